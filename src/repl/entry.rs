//! What was entered at the prompt: when it is whole, and which part of it is the language.

use crate::language::{Completeness, completeness};

/// The blanks that the next line of `text` begins with, if it wants another line.
///
/// An empty line ends a half-finished cell: the session says what is missing. Where empty lines belong to the text, in a
/// `%%` block and between `"""`, it takes two.
pub(super) fn wanted_indent(text: &str) -> Option<usize> {
    let has_empty_lines = text.contains("\"\"\"") || text.lines().any(|line| line.starts_with("%%"));
    let enough = if has_empty_lines { 2 } else { 1 };
    let empty = text.split('\n').skip(1).collect::<Vec<_>>();
    if empty.len() >= enough && empty.iter().rev().take(enough).all(|line| line.trim().is_empty()) {
        return None;
    }
    match completeness(&without_prompts(text)) {
        Completeness::Incomplete { indent } => Some(indent),
        Completeness::Complete | Completeness::Invalid(_) => None,
    }
}

/// What stands behind the prompts of a pasted session, and the lines that continue it; what was printed between is left
/// out. Text without a prompt at its beginning stays as it is.
pub(super) fn without_prompts(text: &str) -> String {
    if text.lines().find(|line| !line.trim().is_empty()).and_then(behind_prompt).is_none() {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut cell = String::new();
    for line in text.lines() {
        if let Some(typed) = behind_prompt(line) {
            kept += &std::mem::replace(&mut cell, format!("{typed}\n"));
        } else if matches!(completeness(cell.trim_end()), Completeness::Incomplete { .. }) {
            cell += &format!("{line}\n");
        }
    }
    let mut kept = kept + &cell;
    if !text.ends_with('\n') {
        kept.truncate(kept.trim_end_matches('\n').len());
    }
    kept
}

/// What follows the prompt if `line` begins with one: `lora> `, `lora demo·nf4 +r16 ❯ ` and the like.
fn behind_prompt(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("lora")?;
    if let Some(typed) = rest.strip_prefix('>') {
        return Some(typed.trim_start());
    }
    let (model, typed) = rest.split_once(" ❯").or_else(|| rest.split_once(" >"))?;
    (model.starts_with(' ') && (typed.is_empty() || typed.starts_with(' '))).then(|| typed.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_finished_cells_want_a_line() {
        for (text, wanted) in [
            ("load demo", None),
            ("echo (a", Some(4)),
            ("echo \"a", Some(0)),
            ("for d in (a b):", Some(4)),
            ("for d in (a b):\n    for e in (a b):", Some(8)),
            ("%%data x", Some(0)),
            ("%%data x\n{}\n%%", None),
            ("lora> echo (a", Some(4)),
            ("x = =", None),
            ("", None),
        ] {
            assert_eq!(wanted_indent(text), wanted, "{text:?}");
        }
    }

    #[test]
    fn an_empty_line_ends_what_is_half_finished() {
        for text in ["echo (a\n", "echo (a\n    ", "echo \"a\n", "load \\\n", "for d in (a b):\n    "] {
            assert_eq!(wanted_indent(text), None, "{text:?}");
        }
        for text in ["%%data x\na\n", "echo \"\"\"a\n", "%%data x\n"] {
            assert_eq!(wanted_indent(text), Some(0), "{text:?}");
            assert_eq!(wanted_indent(&format!("{text}\n")), None, "{text:?}");
        }
    }

    #[test]
    fn pasted_sessions_are_typed_text_again() {
        for (pasted, typed) in [
            ("lora> load demo", "load demo"),
            ("lora>", ""),
            ("lora demo·nf4 +r16 ❯ train x --steps 3", "train x --steps 3"),
            ("lora demo.nf4 +r16 > echo a > b", "echo a > b"),
            (
                "lora> load demo\ndemo: 1 M parameters\nlora demo·f32 ❯ echo (a\n    b)\na b\nlora> memory\n",
                "load demo\necho (a\n    b)\nmemory\n",
            ),
            ("\n\nlora> echo a", "echo a"),
            ("lora> %%data x\na\n\nb\n%%\nprinted", "%%data x\na\n\nb\n%%"),
        ] {
            assert_eq!(without_prompts(pasted), typed, "{pasted:?}");
        }
        for text in ["load demo", "loralab ❯ x", "lora = 3", "lora", "lora x>y", "echo a\nlora> b", "", "größe = 1\n"]
        {
            assert_eq!(without_prompts(text), text);
        }
    }
}
