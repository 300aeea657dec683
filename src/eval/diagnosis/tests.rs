use super::*;

/// A run of `steps` steps whose loss falls from 4 to about 2, with rows that differ.
fn steps(steps: usize) -> Vec<Made> {
    let made = |step: usize| Made {
        step,
        loss: 2.0 + 2.0 * (-(step as f64) / 12.0).exp() + 0.2 * (step as f64 * 2.4).sin(),
        grad_norm: 1.0 + 0.4 * (step as f64 * 1.7).cos(),
        learning_rate: 2e-4 * (1.0 - (step - 1) as f64 / steps as f64),
    };
    (1..=steps).map(made).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn weights() -> Weights {
    Weights {
        rank: 16,
        update_ratio: 0.02,
        modules: 42,
        silent: 0,
        finite: true,
        directions: (12.5, 15),
        effective_rank: 12.0,
        values: (0..16).map(|i| 1.0 / f64::from(i + 1)).collect(),
    }
}

fn rows() -> Rows {
    Rows {
        rows: 100,
        samples: 100,
        tokens: 5000,
        trained: 2500,
        cut: 0,
        max_seq_len: 512,
        longest: 80,
        context: 2048,
        untrained: 0,
        repeated: 0,
        doubled_bos: 0,
        verbatim: false,
        held_out: Some((20, 0)),
        split: false,
        check: Vec::new(),
    }
}

/// A training without a fault.
fn healthy() -> Evidence {
    Evidence {
        steps: steps(50),
        held_out: vec![(0, 4.1), (10, 3.0), (20, 2.5), (30, 2.3), (40, 2.22), (50, 2.2)],
        probe: vec![(0, 3.0), (25, 3.02), (50, 3.04)],
        diverged: None,
        full: false,
        usual_rate: 2e-4,
        weights: Ok(weights()),
        rows: Ok(rows()),
        ways: Ways {
            train: Some(words("q --steps 50 --lr 2e-4 --valid v")),
            data: Some("q".to_owned()),
            back: Some((20, "restore r16@1".to_owned())),
            adapter: Some(("r16".to_owned(), None)),
        },
    }
}

/// The healthy training with a change.
fn but(change: impl FnOnce(&mut Evidence)) -> Evidence {
    let mut evidence = healthy();
    change(&mut evidence);
    evidence
}

/// The only finding.
#[track_caller]
fn only(evidence: &Evidence) -> Finding {
    let mut findings = diagnose(evidence).findings;
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

#[track_caller]
fn number(finding: &Finding, name: &str) -> f64 {
    finding.numbers.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}: {finding:#?}")).1
}

#[track_caller]
fn sound(evidence: &Evidence) {
    let diagnosis = diagnose(evidence);
    assert!(diagnosis.findings.is_empty(), "{:#?}", diagnosis.findings);
}

fn checked(rule: &'static str) -> Vec<crate::data::Finding> {
    vec![crate::data::Finding { rule, found: "Rows are so".to_owned(), message: String::new() }]
}

fn but_rows(change: impl FnOnce(&mut Rows)) -> Evidence {
    but(|e| change(e.rows.as_mut().unwrap()))
}

fn but_weights(change: impl FnOnce(&mut Weights)) -> Evidence {
    but(|e| change(e.weights.as_mut().unwrap()))
}

#[test]
fn a_sound_run_has_no_finding_and_everything_was_looked_at() {
    let diagnosis = diagnose(&healthy());
    assert!(diagnosis.findings.is_empty(), "{:#?}", diagnosis.findings);
    assert!(diagnosis.not_looked_at.is_empty());
    assert_eq!(diagnosis.looked_at.len(), RULES.len());
    assert_eq!(diagnosis.healthy().count(), RULES.len());
}

#[test]
fn what_is_not_there_is_not_called_healthy() {
    let bare = but(|e| {
        (e.held_out, e.probe) = (Vec::new(), Vec::new());
        e.weights = Err("no model is loaded".to_owned());
        e.rows = Err("no model is loaded".to_owned());
    });
    let diagnosis = diagnose(&bare);
    assert_eq!(diagnosis.looked_at, ["divergence", "spikes", "not learning"]);
    let reason = |kind: &str| diagnosis.not_looked_at.iter().find(|(known, _)| *known == kind).unwrap().1.as_str();
    assert_eq!(reason("over-fitting"), "nothing was held out");
    assert_eq!(reason("forgetting"), "no general text was scored");
    assert_eq!(reason("rank too large"), "no model is loaded");
    assert!(diagnose(&but(|e| e.steps.truncate(2))).looked_at.iter().all(|kind| *kind != "divergence"));
}

#[test]
fn over_fitting_names_the_step_to_go_back_to() {
    let worse = but(|e| e.held_out = vec![(0, 4.1), (10, 3.0), (20, 2.5), (30, 2.7), (40, 2.9), (50, 3.0)]);
    let finding = only(&worse);
    assert_eq!((finding.kind, finding.severity), ("over-fitting", Severity::Serious));
    assert_eq!((number(&finding, "lowest_step"), number(&finding, "rise")), (20.0, 0.5));
    assert_eq!(finding.commands, ["restore r16@1", "train q --steps 50 --lr 2e-4 --valid v --fresh --early-stop 2"]);
    assert!(finding.chart.is_some());
    // What is kept is another step: it is not offered as this one.
    let other = but(|e| (e.held_out, e.ways.back) = (worse.held_out.clone(), Some((30, "restore r16@2".to_owned()))));
    assert!(only(&other).commands[0].starts_with("train "));
    // The training loss rises too: that is something else.
    let both = but(|e| {
        e.held_out.clone_from(&worse.held_out);
        e.steps.iter_mut().filter(|made| made.step > 20).for_each(|made| made.loss += 0.03 * (made.step - 20) as f64);
    });
    sound(&both);
    // A ripple at the end is none.
    sound(&but(|e| e.held_out[5].1 = 2.26));
}

#[test]
fn rows_known_by_heart_are_over_fitting_though_the_held_out_loss_stands_still() {
    let heart = but(|e| {
        e.held_out = vec![(0, 4.1), (10, 2.5), (20, 2.4), (30, 2.41), (40, 2.41), (50, 2.415)];
        e.steps.iter_mut().filter(|made| made.step > 25).for_each(|made| made.loss = 0.01);
    });
    let finding = only(&heart);
    assert_eq!((finding.kind, finding.severity), ("over-fitting", Severity::Warning));
    sound(&but(|e| e.steps.iter_mut().filter(|made| made.step > 25).for_each(|made| made.loss = 0.01)));
}

#[test]
fn forgetting_is_a_rise_on_a_general_text() {
    let finding = only(&but(|e| e.probe[2].1 = 3.2));
    assert_eq!((finding.kind, finding.severity), ("forgetting", Severity::Warning));
    assert!((number(&finding, "rise") - 0.2).abs() < 1e-12);
    assert_eq!(finding.commands[0], "train q --steps 50 --valid v --fresh --learning-rate 1e-4");
    assert_eq!(only(&but(|e| e.probe[2].1 = 4.0)).severity, Severity::Serious);
    sound(&but(|e| e.probe[2].1 = 2.5));
}

#[test]
fn a_loss_that_stays_is_not_learning() {
    let flat = |e: &mut Evidence| e.held_out.iter_mut().for_each(|point| point.1 = 4.1);
    let low = but(|e| {
        flat(e);
        e.weights.as_mut().unwrap().update_ratio = 1e-8;
        e.steps.iter_mut().for_each(|made| made.learning_rate = 1e-9);
    });
    let finding = only(&low);
    assert_eq!((finding.kind, finding.severity), ("not learning", Severity::Serious));
    assert_eq!(finding.commands, ["train q --steps 50 --valid v --fresh --learning-rate 2e-4"]);
    assert!(finding.reason.contains("lora_B"));
    // The weights move, the loss does not: another reason, another way out.
    let idle = only(&but(flat));
    assert_eq!((idle.severity, idle.commands.as_slice()), (Severity::Warning, &["data q --show 2".to_owned()][..]));
    // Without held-out rows the size of the update decides; without an adapter at hand the learning rate.
    let alone = |ratio: f64| {
        but(|e| {
            e.held_out.clear();
            e.weights.as_mut().unwrap().update_ratio = ratio;
            e.steps.iter_mut().for_each(|made| made.loss = 4.0 + 0.2 * (made.step as f64 * 2.4).sin());
        })
    };
    assert_eq!(only(&alone(1e-8)).kind, "not learning");
    sound(&alone(0.02));
    let mut gone = alone(0.02);
    gone.weights = Err("no model is loaded".to_owned());
    sound(&gone);
    gone.steps.iter_mut().for_each(|made| made.learning_rate = 1e-9);
    assert_eq!(only(&gone).kind, "not learning");
}

#[test]
fn every_way_to_diverge_is_one_finding() {
    let stopped = but(|e| {
        e.steps.truncate(2);
        e.diverged = Some("step 3: the loss is NaN".to_owned());
    });
    let nan = but(|e| e.steps[30].grad_norm = f64::NAN);
    let broken = but_weights(|w| w.finite = false);
    let high = |e: &mut Evidence| {
        e.steps.iter_mut().skip(10).for_each(|made| (made.loss, made.grad_norm) = (9.0, 300.0));
        e.held_out.iter_mut().skip(1).for_each(|point| point.1 = 9.1);
    };
    let alone = but(|e| {
        high(e);
        e.held_out.clear();
    });
    let blown = but(high);
    let whole = but_weights(|w| w.update_ratio = 30.0);
    for (evidence, word) in [
        (stopped, "is NaN"),
        (nan, "1 step"),
        (broken, "adapter holds"),
        (blown, "ends at 9.00"),
        (alone, "ends at 9.00"),
        (whole, "30.0 times"),
    ] {
        let finding = only(&evidence);
        assert_eq!((finding.kind, finding.severity), ("divergence", Severity::Serious));
        assert!(finding.found.contains(word), "{}", finding.found);
        assert_eq!(finding.commands[0], "train q --steps 50 --valid v --fresh --learning-rate 2e-5");
        let back = finding.commands.get(1).map(String::as_str);
        assert_eq!(back, Some("restore r16@1").filter(|_| number(&finding, "update_ratio") < 1.0));
    }
}

#[test]
fn rows_that_differ_are_no_divergence() {
    // The first rows are easier than most, and nothing is learnt yet.
    let rows = |e: &mut Evidence| {
        e.steps.truncate(6);
        for (made, loss) in e.steps.iter_mut().zip([3.2, 4.3, 3.4, 4.6, 3.9, 4.5]) {
            made.loss = loss;
        }
    };
    sound(&but(rows));
    sound(&but(|e| {
        rows(e);
        e.held_out.clear();
    }));
}

#[test]
fn steps_that_stand_out_are_spikes_if_there_are_several() {
    let finding = only(&but(|e| {
        e.steps[20].grad_norm = 40.0;
        e.steps[33].loss = 6.0;
    }));
    assert_eq!((finding.kind, number(&finding, "spikes"), number(&finding, "largest_step")), ("spikes", 2.0, 21.0));
    assert_eq!(finding.commands, ["train q --steps 50 --valid v --fresh --learning-rate 1e-4 --warmup-ratio 0.1"]);
    sound(&but(|e| e.steps[20].grad_norm = 40.0));
    sound(&but(|e| e.steps.truncate(6)));
}

#[test]
fn modules_that_stay_at_zero_are_counted() {
    let finding = only(&but_weights(|w| w.silent = 3));
    assert_eq!((finding.kind, number(&finding, "silent")), ("silent modules", 3.0));
    // All of them: the run has not learnt, or has hardly begun.
    sound(&but_weights(|w| w.silent = w.modules));
}

#[test]
fn a_rank_is_too_small_if_it_is_used_up_and_the_loss_still_falls() {
    let falls = |e: &mut Evidence| e.held_out = vec![(0, 4.1), (10, 3.7), (20, 3.3), (30, 2.9), (40, 2.5), (50, 2.1)];
    let finding = only(&but(|e| {
        falls(e);
        let weights = e.weights.as_mut().unwrap();
        (weights.rank, weights.effective_rank, weights.directions) = (4, 3.9, (4.0, 4));
    }));
    assert_eq!((finding.kind, finding.severity), ("rank too small", Severity::Hint));
    assert_eq!(finding.commands, ["sweep q --rank (4 8 16) --alpha 2r --steps 50 --learning-rate 2e-4"]);
    sound(&but(falls));
    // A loss that moves in its last digits falls nowhere.
    let still = but(|e| {
        e.held_out.iter_mut().enumerate().for_each(|(i, point)| point.1 = 4.1 - 0.03 * i as f64);
        (e.weights.as_mut().unwrap().rank, e.weights.as_mut().unwrap().effective_rank) = (4, 3.9);
    });
    sound(&still);
    sound(&but_weights(|w| (w.rank, w.effective_rank) = (4, 3.9)));
}

#[test]
fn a_rank_is_too_large_if_few_directions_hold_the_update_everywhere() {
    let finding = only(&but_weights(|w| w.directions = (1.5, 3)));
    assert_eq!((finding.kind, number(&finding, "most_directions_99")), ("rank too large", 3.0));
    assert_eq!(finding.commands, ["spectrum r16", "shrink r16 --rank 4"]);
    let kept = but(|e| {
        e.weights.as_mut().unwrap().directions = (1.5, 3);
        e.ways.adapter = Some(("r16".to_owned(), Some("load-adapter runs/0001/adapter --name r16".to_owned())));
    });
    assert_eq!(only(&kept).commands[0], "load-adapter runs/0001/adapter --name r16");
    sound(&but_weights(|w| w.directions = (1.5, 9)));
    sound(&but_weights(|w| (w.rank, w.directions) = (4, (1.0, 1))));
}

#[test]
fn rows_are_judged_by_what_the_check_says_and_by_how_many_they_are() {
    let rule = |kind: &str, rule: &'static str, change: fn(&mut Rows)| {
        let finding = only(&but_rows(|rows| {
            rows.check = checked(rule);
            change(rows);
        }));
        assert_eq!(
            (finding.kind, finding.found.as_str()),
            (kind, if kind == "truncation" { "rows are so; the longest has 900" } else { "rows are so" })
        );
        finding
    };
    let afresh = "train q --steps 50 --lr 2e-4 --valid v --fresh";
    assert_eq!(rule("untrained rows", "rows untrained", |r| r.untrained = 60).severity, Severity::Serious);
    assert_eq!(rule("few trained tokens", "trained tokens", |_| {}).commands, ["data q --show 2"]);
    assert_eq!(rule("end of text", "end of text", |_| {}).commands, ["data q --show 2"]);
    let cut = rule("truncation", "lengths", |r| (r.cut, r.longest) = (30, 900));
    assert_eq!(cut.commands, [format!("{afresh} --max-seq-len 900")]);
    let beyond = rule("truncation", "lengths", |r| (r.cut, r.longest, r.context) = (30, 900, 512));
    assert_eq!(beyond.commands, ["data q --check"]);
    assert_eq!(rule("duplicates", "duplicates", |r| r.repeated = 9).commands, ["data q --check"]);
    assert_eq!(
        number(&rule("begin of text", "begin of text", |r| (r.doubled_bos, r.verbatim) = (5, true)), "doubled_bos"),
        5.0
    );
    // A row or two are no fault of a training, and a begin that was mended is none.
    for (rule, change) in [
        ("rows untrained", (|r| r.untrained = 2) as fn(&mut Rows)),
        ("lengths", |r| r.cut = 2),
        ("duplicates", |r| r.repeated = 2),
        ("begin of text", |r| r.doubled_bos = 5),
    ] {
        sound(&but_rows(|rows| {
            rows.check = checked(rule);
            change(rows);
        }));
    }
}

#[test]
fn rows_held_out_and_trained_on_are_leakage() {
    let finding = only(&but_rows(|r| r.held_out = Some((20, 20))));
    assert_eq!((finding.kind, finding.severity), ("leakage", Severity::Serious));
    assert_eq!(finding.commands, ["train q --steps 50 --lr 2e-4 --fresh --valid 0.1"]);
    let one = only(&but_rows(|r| (r.held_out, r.split) = (Some((40, 1)), true)));
    assert_eq!((one.severity, one.commands.as_slice()), (Severity::Warning, &["data q --check".to_owned()][..]));
    let none = diagnose(&but_rows(|r| r.held_out = None));
    assert!(none.findings.is_empty() && !none.looked_at.contains(&"leakage"));
}

#[test]
fn what_matters_most_comes_first_and_a_run_that_says_no_words_gets_none() {
    let both = but(|e| {
        e.weights.as_mut().unwrap().directions = (1.5, 3);
        e.rows.as_mut().unwrap().held_out = Some((20, 20));
        e.ways = Ways::default();
    });
    let findings = diagnose(&both).findings;
    let kinds: Vec<&str> = findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, ["leakage", "rank too large"]);
    assert!(findings.iter().all(|finding| finding.commands.is_empty()));
    let full = but(|e| (e.full, e.held_out) = (true, vec![(0, 4.1), (20, 2.0), (50, 4.0)]));
    assert!(only(&full).commands[1].starts_with("train q ") && !only(&full).commands[1].contains("--fresh"));
}
