//! Adapters, scales and prompts side by side; adapters cut to what they need.

use loralab::error::Kind;
use loralab::event::{Cancel, Event, Task};
use loralab::generate::log_probabilities;
use loralab::lora::Adapter;
use loralab::model::{Arena, Batch, Keep, LoadOptions, Pass, Use};
use loralab::ops::Reference;
use serde_json::{Value, json};

use crate::support::{self, Session, number, numbers, says};

/// A session whose adapter `a` of rank 8 has been trained, with held-out rows.
fn trained(name: &str) -> Session {
    let s = Session::with(name, "llama");
    let rows = s.file("rows.jsonl", &support::questions());
    s.ok(&format!("data {rows} --name q --valid 0.25\nattach-lora a --rank 8 --dropout 0"));
    s.ok("train q --epochs 3 --learning-rate 1e-2");
    s
}

fn texts(made: &Value) -> Vec<&str> {
    made["rows"].as_array().unwrap().iter().map(|row| row["text"].as_str().unwrap()).collect()
}

#[test]
fn rows_of_one_batch_say_what_each_says_alone() {
    let s = trained("batch");
    let together = s.ok("generate 'What is 3 and 3?' --adapters base,a,a+a --max-tokens 10");
    let alone: Vec<Value> = ["base", "a", "a+a"]
        .iter()
        .map(|adapter| s.ok(&format!("generate 'What is 3 and 3?' --adapters {adapter} --max-tokens 10")))
        .collect();
    assert_eq!(texts(&together), alone.iter().map(|made| texts(made)[0]).collect::<Vec<_>>());
    let first = &together["rows"][0];
    assert_eq!((&first["departs"], number(&first["divergence"])), (&Value::Null, 0.0));
    let divergences = numbers(&together["rows"][1]["token_divergences"]);
    let mean = divergences.iter().sum::<f64>() / divergences.len() as f64;
    assert!((mean - number(&together["rows"][1]["divergence"])).abs() < 1e-9 && mean != 0.0);
}

#[test]
fn log_probabilities_are_those_of_the_logits_one_by_one() {
    let model = support::load(&support::golden("llama").join("model"), LoadOptions::default());
    let cancel = Cancel::default();
    let (decoder, backend) = (&model.decoder, Reference);
    let adapter = Adapter::load(&support::golden("llama").join("adapter"), &decoder.linears).unwrap().0;
    let (prompt, ids) = ([5u32, 80, 33], [7u32, 90, 200, 7]);
    let uses = [Vec::new(), vec![Use { slot: 0, weight: 1.0 }], vec![Use { slot: 0, weight: 0.5 }]];
    let task = Task::new(&support::Quiet, &cancel);
    let all = log_probabilities(decoder, &[&adapter], &uses, &prompt, &ids, &backend, task).unwrap();
    let pass = Pass { backend: &backend, adapters: &[&adapter], cancel: &cancel, dropout: None };
    for (uses, found) in uses.iter().zip(&all) {
        for (i, (id, found)) in ids.iter().zip(found).enumerate() {
            let before: Vec<u32> = prompt.iter().chain(&ids[..i]).copied().collect();
            let mut batch = Batch::default();
            batch.push(&before, uses);
            let mut arena =
                Arena::new(&decoder.spec, before.len(), before.len(), Keep::Nothing, decoder.compute).unwrap();
            decoder.forward(&pass, &batch, &mut arena, None).unwrap();
            let logits = decoder.logits(&pass, &arena, &[before.len() - 1]).unwrap();
            let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            let exact = f64::from(logits[*id as usize]) - sum.ln();
            assert!((found - exact).abs() < 1e-4, "token {i}: {found} is not {exact}");
        }
    }
    assert_ne!(all[0], all[1]);
    let none = log_probabilities(decoder, &[], &uses[..1], &prompt, &[], &backend, task).unwrap();
    assert_eq!(none, [Vec::<f64>::new()]);
}

#[test]
fn a_strip_of_scales_is_one_table_compared_with_scale_one() {
    let s = trained("strip");
    let ran = s.run("generate 'What is 3 and 3?' --scale (-1 0 0.5 1 2) --max-tokens 10");
    let shown = ran.events.iter().find_map(|event| match event {
        Event::Outputs(outputs) => Some((outputs.columns.clone(), outputs.reference)),
        _ => None,
    });
    let names = ["scale -1", "scale 0", "scale 0.5", "scale 1", "scale 2"].map(str::to_owned).to_vec();
    assert_eq!(shown, Some((names, 3)));
    let strip = ran.ok();
    assert_eq!(strip["reference"], "scale 1");
    let scales: Vec<f64> = strip["rows"].as_array().unwrap().iter().map(|row| number(&row["scale"])).collect();
    assert_eq!(scales, [-1.0, 0.0, 0.5, 1.0, 2.0]);
    let base = s.ok("generate 'What is 3 and 3?' --adapters a --scale 0 --max-tokens 10");
    assert_eq!(texts(&strip)[1], texts(&base)[0]);
    let one = s.ok("generate 'What is 3 and 3?' --adapters a --max-tokens 10");
    assert_eq!(texts(&strip)[3], texts(&one)[0]);
    assert_eq!(strip["rows"][3]["departs"], Value::Null);
}

#[test]
fn prompts_make_a_table() {
    let s = trained("prompts");
    let made = s.ok("generate 'What is 1 and 1?' 'What is 5 and 5?' --adapters base,a --max-tokens 6");
    let rows = made["rows"].as_array().unwrap();
    let asked: Vec<(&str, &str)> =
        rows.iter().map(|row| (row["prompt"].as_str().unwrap(), row["adapter"].as_str().unwrap())).collect();
    let (one, five) = ("What is 1 and 1?", "What is 5 and 5?");
    assert_eq!(asked, [(one, "base"), (one, "a"), (five, "base"), (five, "a")]);
    let of = |data: &str| s.ok(&format!("generate --prompts {data} --most 3 --adapters base,a --max-tokens 4"));
    assert_eq!(of("q.valid")["rows"].as_array().unwrap().len(), 6);
    let lines = s.file("prompts.txt", "It is\n");
    assert_eq!(of(&lines)["rows"][0]["prompt"].as_str().unwrap().trim(), "It is");
}

#[test]
fn side_by_side_refuses_what_makes_no_sense() {
    let s = trained("side-bad");
    let fails = |cell: &str| s.fails(cell);
    says(&fails("generate x --scale nan"), Kind::Usage, &["--scale nan", "not a number"], "");
    says(&fails("generate x --scale (1 two)"), Kind::Usage, &["--scale", "two"], "");
    says(
        &fails("generate x --scale (0 1) --adapters base"),
        Kind::Usage,
        &["--scale", "need an adapter"],
        "--adapters a",
    );
    s.ok("attach-lora b --rank 2");
    says(&fails("generate x --scale (0 1) --adapters a,b"), Kind::Usage, &["one adapter", "a and b"], "a+b");
    says(&fails("generate x --adapters base,nobody"), Kind::NotFound, &["nobody"], "");
    says(&fails("generate"), Kind::Usage, &["generate needs"], "");
    says(&fails("generate --prompts nowhere"), Kind::NotFound, &["nowhere"], "");
    says(&fails("generate two words"), Kind::Usage, &["no argument words"], "generate \"two words\"");
    says(&fails("eval q --scale nan"), Kind::Usage, &["--scale nan", "not a number"], "");
    says(&fails("eval q --scale (0 1) --adapters base"), Kind::Usage, &["--scale", "need an adapter"], "--adapters a");
}

#[test]
fn loss_over_scale_names_the_best() {
    let s = trained("scales");
    let ran = s.run("eval q.valid --adapters a --scale (0 0.5 1 1.5)");
    assert!(ran.events.iter().any(|event| matches!(event, Event::Chart(chart) if chart.x == "scale")));
    let scored = ran.ok();
    let losses: Vec<f64> = scored["rows"].as_array().unwrap().iter().map(|row| number(&row["loss"])).collect();
    assert_eq!(losses.len(), 4);
    assert_eq!(losses[0], s.loss("q.valid", "base"));
    assert_eq!(losses[2], s.loss("q.valid", "a"));
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let best = &scored["best"][0];
    assert_eq!((number(&best["loss"]), &best["adapter"]), (least, &json!("a")));
    assert_eq!(number(&s.ok("eval q.valid --adapters a --scale 0.5")["rows"][0]["loss"]), losses[1]);
}

#[test]
fn a_spectrum_names_the_rank_that_is_enough() {
    let s = trained("spectrum");
    let ran = s.run("spectrum a");
    assert!(ran.events.iter().any(|event| matches!(event, Event::Heat(heat) if heat.values.len() == 2)));
    let found = ran.ok();
    assert_eq!((&found["adapter"], &found["rank"], &found["data"]), (&json!("a"), &json!(8), &json!("q.valid")));
    assert_eq!(found["modules"].as_array().unwrap().len(), 14);
    assert_eq!(found["kinds"].as_array().unwrap().len(), 7);
    let ranks: Vec<f64> = found["cuts"].as_array().unwrap().iter().map(|cut| number(&cut["rank"])).collect();
    assert_eq!(ranks, [0.0, 1.0, 2.0, 4.0, 8.0]);
    let energies: Vec<f64> = found["cuts"].as_array().unwrap().iter().map(|cut| number(&cut["energy"])).collect();
    assert!(energies.is_sorted() && energies[0] == 0.0 && (energies[4] - 1.0).abs() < 1e-12);
    assert_eq!(number(&found["cuts"][0]["loss"]), s.loss("q.valid", "base"));
    assert_eq!(number(&found["cuts"][4]["loss"]), s.loss("q.valid", "a"));

    // What is cut has the loss that was foretold, and PEFT's files hold it.
    let made = s.ok("shrink a --rank 2");
    assert_eq!((&made["adapter"], &made["rank"], number(&made["alpha"])), (&json!("a-r2"), &json!(2), 4.0));
    let loss = number(&found["cuts"][2]["loss"]);
    assert!((s.loss("q.valid", "a-r2") - loss).abs() < 1e-6);
    assert_eq!(s.ok("shrink a --rank 2"), made);
    let to = s.path("small");
    s.ok(&format!("save-adapter a-r2 {to}\nload-adapter {to} --name back"));
    assert!((s.loss("q.valid", "back") - loss).abs() < 1e-6);
}

#[test]
fn spectra_and_cuts_refuse_what_makes_no_sense() {
    let s = Session::new("spectrum-bad");
    says(&s.fails("spectrum a"), Kind::State, &["no model"], "load");
    drop(s);
    let s = trained("spectrum-bad-2");
    says(&s.fails("spectrum nobody"), Kind::NotFound, &["nobody"], "");
    says(&s.fails("shrink nobody --rank 2"), Kind::NotFound, &["nobody"], "");
    says(&s.fails("spectrum a --ranks (2 9)"), Kind::Usage, &["--ranks 9", "rank 8"], "from 1 to 8");
    says(&s.fails("spectrum a --ranks 0"), Kind::Usage, &["--ranks 0", "at least 1"], "");
    says(&s.fails("spectrum a --data nowhere"), Kind::NotFound, &["nowhere"], "");
    for rank in [8, 9] {
        says(
            &s.fails(&format!("shrink a --rank {rank}")),
            Kind::Usage,
            &[&format!("--rank {rank}"), "rank 8"],
            "1 to 7",
        );
    }
    says(&s.fails("shrink a --rank 0"), Kind::Usage, &["--rank 0", "at least 1"], "");
    says(&s.fails("shrink a --rank 2 --name a"), Kind::Usage, &["--name a"], "a-r2");
    says(&s.fails("shrink a --rank 2 --name base"), Kind::Usage, &["base"], "");
    s.ok("attach-lora fresh --rank 4");
    says(&s.fails("spectrum fresh"), Kind::State, &["fresh changes nothing"], "train");
    says(&s.fails("shrink fresh --rank 2"), Kind::State, &["fresh changes nothing"], "train");
    // Another adapter of that name is not overwritten, unless asked for.
    says(&s.fails("shrink a --rank 2 --name fresh"), Kind::State, &["fresh is live"], "--replace");
    assert_eq!(s.ok("shrink a --rank 2 --name fresh --replace")["rank"], 2);
    says(&s.fails("train q --fresh --steps 1"), Kind::Unsupported, &["--fresh"], "shrink a --rank 2");
    s.ok("use a\nmerge");
    says(&s.fails("spectrum a"), Kind::State, &["merged"], "unmerge");
    says(&s.fails("shrink a --rank 4"), Kind::State, &["merged"], "unmerge");
}
