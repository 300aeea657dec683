//! Rules on the rows: what the check of the data minds, where it is enough to matter for what was trained.

use super::{Evidence, Finding, Rows, Severity};

/// A share of the rows below which a fault of theirs moves a mean loss by less than another seed does.
const MATTERS: f64 = 0.05;

pub(super) fn not_there(e: &Evidence) -> Option<String> {
    e.rows.as_ref().err().cloned()
}

pub(super) fn nothing_to_compare(e: &Evidence) -> Option<String> {
    let held_out = |rows: &Rows| rows.held_out.is_none().then(|| "nothing was held out".to_owned());
    e.rows.as_ref().map_or_else(|why| Some(why.clone()), held_out)
}

/// What the check says by this rule.
fn checked(rows: &Rows, rule: &str) -> Option<String> {
    let finding = rows.check.iter().find(|finding| finding.rule == rule)?;
    let mut letters = finding.found.chars();
    let first = letters.next()?;
    Some(first.to_lowercase().chain(letters).collect())
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn finding(kind: &'static str, severity: Severity, found: String, reason: &str) -> Finding {
    Finding { kind, severity, found, numbers: Vec::new(), chart: None, reason: reason.to_owned(), commands: Vec::new() }
}

pub(super) fn untrained_rows(e: &Evidence) -> Option<Finding> {
    let rows = e.rows.as_ref().ok()?;
    let found = checked(rows, "rows untrained").filter(|_| share(rows.untrained, rows.rows) >= MATTERS)?;
    let severity = if share(rows.untrained, rows.rows) >= 0.5 { Severity::Serious } else { Severity::Warning };
    let reason = "only responses are trained, and these rows have none, or their prompt fills all of --max-seq-len: they teach nothing";
    Some(Finding {
        numbers: vec![("untrained", rows.untrained as f64), ("rows", rows.rows as f64)],
        commands: if rows.cut > 0 { longer(e, rows) } else { e.look_at_data("--show 2") },
        ..finding("untrained rows", severity, found, reason)
    })
}

pub(super) fn few_trained(e: &Evidence) -> Option<Finding> {
    let rows = e.rows.as_ref().ok()?;
    let found = checked(rows, "trained tokens")?;
    let reason =
        "each step reads all tokens and learns from few: the loss is that of a handful and jumps from step to step";
    Some(Finding {
        numbers: vec![("trained", rows.trained as f64), ("tokens", rows.tokens as f64)],
        commands: e.look_at_data("--show 2"),
        ..finding("few trained tokens", Severity::Warning, found, reason)
    })
}

pub(super) fn end_of_text(e: &Evidence) -> Option<Finding> {
    let rows = e.rows.as_ref().ok()?;
    let found = checked(rows, "end of text")?;
    let reason = "the model is never shown where an answer stops, so it will not stop by itself";
    Some(Finding {
        numbers: vec![("ended", 0.0), ("samples", rows.samples as f64), ("cut", rows.cut as f64)],
        commands: if rows.cut > 0 { longer(e, rows) } else { e.look_at_data("--show 2") },
        ..finding("end of text", Severity::Warning, found, reason)
    })
}

pub(super) fn leakage(e: &Evidence) -> Option<Finding> {
    let rows = e.rows.as_ref().ok()?;
    let (of, leaked) = rows.held_out?;
    let is_much = share(leaked, of) >= MATTERS;
    let are = if leaked == 1 { "is" } else { "are" };
    let found = format!("{leaked} of {of} held-out rows {are} trained on too, word by word");
    let reason = "the held-out loss then tells what was learnt by heart, and falls where it should warn";
    (leaked > 0).then(|| Finding {
        numbers: vec![("leaked", leaked as f64), ("held_out", of as f64)],
        // Rows drawn from the file itself can only be there twice.
        commands: if rows.split { e.look_at_data("--check") } else { e.afresh(&[("valid", "0.1")]) },
        ..finding("leakage", if is_much { Severity::Serious } else { Severity::Warning }, found, reason)
    })
}

pub(super) fn truncation(e: &Evidence) -> Option<Finding> {
    let rows = e.rows.as_ref().ok()?;
    let found = checked(rows, "lengths").filter(|_| share(rows.cut, rows.samples) >= MATTERS)?;
    let reason = "what is cut off is the end of the answer: the model learns to break off, and not to stop";
    Some(Finding {
        numbers: vec![
            ("cut", rows.cut as f64),
            ("samples", rows.samples as f64),
            ("max_seq_len", rows.max_seq_len as f64),
            ("longest", rows.longest as f64),
        ],
        commands: longer(e, rows),
        ..finding("truncation", Severity::Warning, format!("{found}; the longest has {}", rows.longest), reason)
    })
}

/// Training again on longer sequences, as far as the model reads them.
fn longer(e: &Evidence, rows: &Rows) -> Vec<String> {
    match rows.longest.min(rows.context) {
        length if length > rows.max_seq_len => e.afresh(&[("max-seq-len", &length.to_string())]),
        _ => e.look_at_data("--check"),
    }
}

pub(super) fn duplicates(e: &Evidence) -> Option<Finding> {
    let rows = e.rows.as_ref().ok()?;
    let found = checked(rows, "duplicates").filter(|_| share(rows.repeated, rows.rows) >= MATTERS)?;
    let reason = "what is repeated weighs more, and is learnt by heart first";
    Some(Finding {
        numbers: vec![("repeated", rows.repeated as f64), ("rows", rows.rows as f64)],
        commands: e.look_at_data("--check"),
        ..finding("duplicates", Severity::Warning, found, reason)
    })
}

/// Two begin-of-text tokens that were read so: those that a template and a tokenizer make together are mended before training.
pub(super) fn begin_of_text(e: &Evidence) -> Option<Finding> {
    let rows = e.rows.as_ref().ok()?;
    let found = checked(rows, "begin of text").filter(|_| rows.verbatim)?;
    let reason = "the model has never seen that: the rows hold the token, and the tokenizer adds it again. Take it out of the rows";
    Some(Finding {
        numbers: vec![("doubled_bos", rows.doubled_bos as f64), ("samples", rows.samples as f64)],
        commands: e.look_at_data("--show 1"),
        ..finding("begin of text", Severity::Warning, found, reason)
    })
}
