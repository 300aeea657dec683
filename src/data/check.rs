//! What is wrong with data though it can be read. Each rule is a function of plain numbers or rows.

use std::collections::HashSet;

use super::{Content, DataSet, Format, Tokenized};
use crate::event::units;

#[cfg(test)]
mod tests;

/// A share of distinct word triples below which responses say the same again and again.
const FEW_DISTINCT: f64 = 0.3;
/// Word triples from which on their share means something.
const ENOUGH_TRIPLES: usize = 200;
/// A share of trained tokens below which most of the work teaches nothing.
const FEW_TRAINED: f64 = 0.05;

/// Something that explains a training that does not learn, or a model that does not stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule that found it, as `duplicates`.
    pub rule: &'static str,
    /// What was found, with its numbers.
    pub found: String,
    /// What it means, or what to do.
    pub message: String,
}

impl Finding {
    fn new(rule: &'static str, found: String, message: impl Into<String>) -> Self {
        Self { rule, found, message: message.into() }
    }
}

/// The findings that a training tells before it starts, as sentences. Empty if all is well. `context` is the longest sequence the
/// model can read.
#[must_use]
pub fn check(data: &DataSet, tokenized: &Tokenized, context: usize) -> Vec<String> {
    let findings = check_tokens(data, tokenized, context, None).into_iter().chain(duplicates(data));
    findings.map(|finding| format!("{}; {}.", finding.found, finding.message)).collect()
}

/// What the rows tell without a model, with what [`triples`] counts in them, the `others` being the data sets they should have nothing in common with.
#[must_use]
pub fn check_rows<'a>(
    data: &DataSet,
    (distinct, triples): (usize, usize),
    others: impl IntoIterator<Item = &'a DataSet>,
) -> Vec<Finding> {
    let leaks = others.into_iter().filter_map(|other| leak(data, other));
    duplicates(data).into_iter().chain(near_empty(data)).chain(diversity(distinct, triples)).chain(leaks).collect()
}

/// What the tokens tell. `lost` is how many trained tokens were cut off, if that is known.
#[must_use]
pub fn check_tokens(data: &DataSet, tokenized: &Tokenized, context: usize, lost: Option<usize>) -> Vec<Finding> {
    let answers = !matches!(data.format, Format::Text | Format::Tokens);
    let longest = longest(tokenized);
    [
        untrained(&tokenized.untrained, data),
        few_trained(tokenized.scored(), tokenized.tokens()),
        cut(tokenized.truncated, lost, longest, tokenized.max_seq_len, context),
        no_end(tokenized.ended, answers),
        doubled_bos(tokenized.doubled_bos, answers),
        last_turn_only(tokenized.last_turn_only),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How many held-out rows are, word by word, among the rows that are trained on.
#[must_use]
pub fn leakage(train: &DataSet, valid: &DataSet) -> usize {
    let known: HashSet<&Content> = train.rows.iter().map(|row| &row.content).collect();
    valid.rows.iter().filter(|row| known.contains(&row.content)).count()
}

/// How many different triples of words the responses have, and how many in all.
#[must_use]
pub fn triples(data: &DataSet) -> (usize, usize) {
    let mut seen: HashSet<[&str; 3]> = HashSet::new();
    let mut all = 0;
    for response in data.rows.iter().flat_map(|row| row.content.responses()) {
        let mut words = response.split_whitespace();
        let (Some(mut first), Some(mut second)) = (words.next(), words.next()) else { continue };
        for third in words {
            seen.insert([first, second, third]);
            all += 1;
            (first, second) = (second, third);
        }
    }
    (seen.len(), all)
}

fn duplicates(data: &DataSet) -> Option<Finding> {
    let mut seen = HashSet::new();
    let again: Vec<usize> = data.rows.iter().filter(|row| !seen.insert(&row.content)).map(|row| row.number).collect();
    let repeat = if again.len() == 1 { "repeats" } else { "repeat" };
    Some(Finding::new(
        "duplicates",
        format!("{} {repeat} an earlier one word by word, as {} {}", rows(again.len()), data.unit, again.first()?),
        "what is repeated weighs more: drop it unless that is wanted",
    ))
}

/// Responses without a letter or digit, as "" and "...".
fn near_empty(data: &DataSet) -> Option<Finding> {
    let blank = |text: &&str| !text.contains(char::is_alphanumeric);
    let empty: Vec<usize> =
        data.rows.iter().filter(|row| row.content.responses().iter().any(blank)).map(|row| row.number).collect();
    let have = if empty.len() == 1 { "has" } else { "have" };
    empty.first()?;
    Some(Finding::new(
        "near-empty responses",
        format!("{} {have} a response without a letter or digit: {}", rows(empty.len()), places(&empty, data.unit)),
        "they teach the model to say nothing: drop or complete them",
    ))
}

fn diversity(distinct: usize, triples: usize) -> Option<Finding> {
    let share = distinct as f64 / triples.max(1) as f64;
    (triples >= ENOUGH_TRIPLES && share < FEW_DISTINCT).then(|| {
        Finding::new(
            "diversity",
            format!("only {} of the responses' word triples are distinct", units::percent(share)),
            "the model will learn a phrase rather than a task: vary the responses",
        )
    })
}

fn leak(data: &DataSet, other: &DataSet) -> Option<Finding> {
    let (leaked, of) = (leakage(data, other), other.rows.len());
    let are = if leaked == 1 { "is" } else { "are" };
    (leaked > 0).then(|| {
        Finding::new(
            "leakage",
            format!("{leaked} of {} of {} {are} also here", rows(of), other.name),
            format!("a loss on {} tells what was memorized: drop them from one of the two", other.name),
        )
    })
}

fn untrained(numbers: &[usize], data: &DataSet) -> Option<Finding> {
    let have = if numbers.len() == 1 { "has" } else { "have" };
    numbers.first()?;
    Some(Finding::new(
        "rows untrained",
        format!(
            "{} of {} {have} no trained token: {}",
            rows(numbers.len()),
            units::count(data.rows.len() as u64),
            places(numbers, data.unit)
        ),
        "they teach nothing: drop them, or raise --max-seq-len where the prompt fills it",
    ))
}

fn few_trained(trained: usize, tokens: usize) -> Option<Finding> {
    let share = trained as f64 / tokens.max(1) as f64;
    (share < FEW_TRAINED).then(|| {
        Finding::new(
            "trained tokens",
            format!("only {} of the tokens are trained", units::percent(share)),
            "nearly all of the work is reading: shorten the prompts",
        )
    })
}

fn cut(rows_cut: usize, lost: Option<usize>, longest: usize, limit: usize, context: usize) -> Option<Finding> {
    let were = if rows_cut == 1 { "was" } else { "were" };
    let lost = lost.map_or(String::new(), |lost| match lost {
        0 => ", no trained token lost".to_owned(),
        lost => format!(", {} lost", units::plural(lost, "trained token")),
    });
    (rows_cut > 0).then(|| {
        Finding::new(
            "lengths",
            format!("{} {were} cut to {limit} tokens{lost}", rows(rows_cut)),
            match longest {
                longest if longest <= context => format!("--max-seq-len {longest} keeps the longest whole"),
                longest if limit < context => {
                    format!("the longest has {longest}, and --max-seq-len can go up to {context}")
                }
                longest => format!("the longest has {longest}, the model's context holds no more"),
            },
        )
    })
}

fn no_end(ended: usize, answers: bool) -> Option<Finding> {
    (answers && ended == 0).then(|| {
        Finding::new(
            "end of text",
            "No trained answer ends with a special token".to_owned(),
            "the model cannot learn to stop",
        )
    })
}

fn doubled_bos(doubled: usize, answers: bool) -> Option<Finding> {
    let begin = if doubled == 1 { "begins" } else { "begin" };
    (doubled > 0).then(|| {
        Finding::new(
            "begin of text",
            format!("{} {begin} with two begin-of-text tokens", rows(doubled)),
            if answers { "one of them was dropped" } else { "they are used verbatim" },
        )
    })
}

fn last_turn_only(conversations: usize) -> Option<Finding> {
    (conversations > 0).then(|| {
        Finding::new(
            "turns",
            format!("In {} only the last answer is trained", units::plural(conversations, "conversation")),
            "the chat template writes earlier turns otherwise once others follow",
        )
    })
}

/// The tokens of the longest sample before it was cut.
pub(super) fn longest(tokenized: &Tokenized) -> usize {
    tokenized.samples.iter().map(|sample| sample.ids.len() + sample.cut.len()).max().unwrap_or(0)
}

fn rows(n: usize) -> String {
    units::plural(n, "row")
}

/// `lines 3, 17, 20, 21, 30 and 5 more`.
fn places(numbers: &[usize], unit: &str) -> String {
    let shown: Vec<String> = numbers.iter().take(5).map(usize::to_string).collect();
    let units = if numbers.len() == 1 { unit.to_owned() } else { format!("{unit}s") };
    match numbers.len() - shown.len() {
        0 => format!("{units} {}", shown.join(", ")),
        more => format!("{units} {} and {more} more", shown.join(", ")),
    }
}
