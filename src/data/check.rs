//! What is wrong with data though it can be read, in sentences.

use std::collections::HashSet;

use super::{Content, DataSet, Format, Tokenized};
use crate::event::units;

/// Findings that explain a training that does not learn, or a model that does not stop. Empty if all is well. `context` is the
/// longest sequence the model can read.
#[must_use]
pub fn check(data: &DataSet, tokenized: &Tokenized, context: usize) -> Vec<String> {
    let mut findings = Vec::new();
    let answers = !matches!(data.format, Format::Text | Format::Tokens);
    let rows = |n: usize| units::plural(n, "row");
    let have = |n: usize| if n == 1 { "has" } else { "have" };
    let were = |n: usize| if n == 1 { "was" } else { "were" };

    let none = tokenized.untrained.len();
    if none > 0 {
        findings.push(format!(
            "{} of {} {} no trained token: {} {}.",
            rows(none),
            units::count(data.rows.len() as u64),
            have(none),
            if none == 1 { data.unit.to_owned() } else { format!("{}s", data.unit) },
            first_of(&tokenized.untrained),
        ));
    }
    let cut = tokenized.truncated;
    if cut > 0 {
        findings.push(format!(
            "{} {} cut to {} tokens; {}.",
            rows(cut),
            were(cut),
            tokenized.max_seq_len,
            match longest(tokenized) {
                longest if longest <= context => format!("--max-seq-len {longest} keeps the longest whole"),
                longest if tokenized.max_seq_len < context => {
                    format!("the longest has {longest}, and --max-seq-len can go up to {context}")
                }
                longest => format!("the longest has {longest}, the model's context holds no more"),
            }
        ));
    }
    if answers && tokenized.ended == 0 {
        findings.push("No trained answer ends with a special token, so the model cannot learn to stop.".to_owned());
    }
    let doubled = tokenized.doubled_bos;
    if doubled > 0 {
        let remedy = if answers { "one of them was dropped" } else { "they are used verbatim" };
        let begin = if doubled == 1 { "begins" } else { "begin" };
        findings.push(format!("{} {begin} with two begin-of-text tokens; {remedy}.", rows(doubled)));
    }
    let last_only = tokenized.last_turn_only;
    if last_only > 0 {
        findings.push(format!(
            "In {} only the last answer is trained: the chat template writes earlier turns otherwise once others follow.",
            units::plural(last_only, "conversation")
        ));
    }
    let twice = data.rows.len() - distinct(data).len();
    if twice > 0 && data.rows.len() > 1 {
        let repeat = if twice == 1 { "repeats" } else { "repeat" };
        findings.push(format!("{} {repeat} an earlier one word by word.", rows(twice)));
    }
    findings
}

/// How many held-out rows are, word by word, among the rows that are trained on.
#[must_use]
pub fn leakage(train: &DataSet, valid: &DataSet) -> usize {
    let known = distinct(train);
    valid.rows.iter().filter(|row| known.contains(&row.content)).count()
}

fn distinct(data: &DataSet) -> HashSet<&Content> {
    data.rows.iter().map(|row| &row.content).collect()
}

/// The tokens of the longest sample before it was cut.
pub(super) fn longest(tokenized: &Tokenized) -> usize {
    tokenized.samples.iter().map(|sample| sample.ids.len() + sample.cut.len()).max().unwrap_or(0)
}

/// `3, 17, 20 and 5 more`.
fn first_of(numbers: &[usize]) -> String {
    let shown: Vec<String> = numbers.iter().take(5).map(usize::to_string).collect();
    match numbers.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
