//! What can be typed about a run: lines of the language that do what they say.

use serde_json::Value;

use super::super::train::Train;
use super::Case;
use super::gather::live;
use crate::eval::diagnosis::Ways;
use crate::lora::{LoraConfig, Targets};
use crate::session::Session;
use crate::train::RunRecord;

/// The words behind `train` that began a run.
pub(super) fn words(config: &Value) -> Option<Vec<String>> {
    serde_json::from_value(config["arguments"].clone()).ok()
}

/// What a finding's commands are made of.
pub(super) fn of(session: &Session, case: &Case) -> Ways {
    let run = case.run.as_ref();
    let words = run.and_then(|run| words(&run.config));
    let name = live(session, case).map(|live| live.name.clone());
    let adapter = case.adapter.as_ref().map(|recorded| match (name, run) {
        (None, Some(run)) => (quoted(recorded), Some(load(session, run, "adapter", recorded))),
        (name, _) => (quoted(name.as_ref().unwrap_or(recorded)), None),
    });
    let data = words.as_ref().and_then(|words| Train::parse(words).ok()?.data_word());
    Ways {
        train: words.map(|words| words.iter().map(|word| quoted(word)).collect()),
        data: data.map(|word| quoted(&word)),
        back: run.and_then(|run| back(session, case, run)),
        adapter,
    }
}

/// `load-adapter` of what the run keeps as `adapter` or `best`.
fn load(session: &Session, run: &RunRecord, folder: &str, name: &str) -> String {
    let replace = if session.adapters.iter().any(|live| live.name == name) { " --replace" } else { "" };
    format!("load-adapter {} --name {}{replace}", quoted(&run.dir.join(folder).display().to_string()), quoted(name))
}

/// The step of the lowest held-out loss, and the line that goes back to it: to a version, else to what the run keeps.
fn back(session: &Session, case: &Case, run: &RunRecord) -> Option<(usize, String)> {
    let (_, held_out) = run.curves();
    let (step, _) = held_out.into_iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let steps = run.config["earlier_steps"].as_u64().unwrap_or(0) as usize + step;
    let live = live(session, case);
    let version = live.and_then(|live| {
        let is_it = |run_of: &Option<String>| run_of.as_ref() == Some(&run.id) || steps == 0;
        live.versions.iter().find(|version| version.steps == steps && is_it(&version.run))
    });
    if let (Some(live), Some(version)) = (live, version) {
        return Some((step, format!("restore {}@{}", quoted(&live.name), version.number)));
    }
    let name = format!("{}-best", live.map_or(case.adapter.as_deref()?, |live| &live.name));
    run.dir.join("best").exists().then(|| (step, load(session, run, "best", &name)))
}

/// What is to be typed before training again: the model, an adapter that is live and active.
pub(super) fn first(session: &Session, case: &Case) -> Vec<String> {
    let mut first = Vec::new();
    let config = case.run.as_ref().map_or(&Value::Null, |run| &run.config);
    let model = config["model"].as_str();
    let loaded = session.base.as_ref().filter(|base| model.is_none_or(|model| model == base.opened.name));
    let source = quoted(config["source"].as_str().unwrap_or_default());
    match (loaded, &case.adapter) {
        (None, _) => {
            first.push(format!("load {source}"));
            first.extend(
                config["type"].as_str().filter(|t| ["nf4", "fp4", "int8"].contains(t)).map(|t| format!("quantize {t}")),
            );
        }
        (Some(_), None) => first.push(format!("load {source} --reload")),
        (Some(_), Some(_)) => {}
    }
    let Some(name) = &case.adapter else { return first };
    match live(session, case) {
        Some(live) if session.check_not_merged(&live.name).is_err() => {
            first.extend(["unmerge".to_owned(), format!("use {}", quoted(&live.name))]);
        }
        Some(live) if session.active.len() == 1 && session.active[0].0 == live.name => {}
        Some(live) => first.push(format!("use {}", quoted(&live.name))),
        None => first.extend(attach(session, name, &config["lora"])),
    }
    first
}

/// An adapter like that of a run.
fn attach(session: &Session, name: &str, lora: &Value) -> Option<String> {
    let LoraConfig { rank, alpha, dropout, targets, rslora, layers, .. } = LoraConfig::from_peft(lora).ok()?;
    let mut line = format!("attach-lora {} --rank {rank} --alpha {alpha} --dropout {dropout}", quoted(name));
    let hits =
        |targets: &Targets| targets.resolve(&session.base.as_ref()?.decoder.linears, None).ok().map(|hits| hits.0);
    if hits(&targets) != hits(&Targets::AllLinear) || session.base.is_none() {
        line += &format!(" --targets {}", quoted(&targets.text()));
    }
    if rslora {
        line += " --rslora";
    }
    if let Some(layers) = layers {
        line += &format!(" --layers {}", layers.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
    }
    Some(line)
}

/// A word as it is typed: in quotes where it would not come back as it is.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:=+,@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    if !word.contains(['\'', '\n', '\r']) {
        return format!("'{word}'");
    }
    let escaped =
        word.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('\n', "\\n").replace('\r', "\\r");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::{self, StatementKind};

    #[test]
    fn a_quoted_word_comes_back() {
        for word in
            ["q", "my rows.jsonl", "don't", "$x", "a\"b'c\\d$e", "(a b)", "#no", "--valid=0.1", "é日", "", "a\nb'"]
        {
            let line = format!("echo {}", quoted(word));
            let statements = language::parse(&line).unwrap();
            let StatementKind::Command { words } = &statements[0].kind else { panic!("{line}") };
            let back = language::expand(words, &serde_json::Map::new()).unwrap();
            assert_eq!(back[1].text, word, "{line}");
        }
        assert_eq!(quoted("runs/0001/best"), "runs/0001/best");
    }
}
