//! Generated text: one row, or several beside each other with what differs underlined; prompts by adapters.

use super::{HAIRLINE, WIDTH, best, escape, heading, lines, muted, page, text};
use crate::event::Outputs;
use crate::render::differ::{self, DEPARTS, Piece, departs, differ};
use crate::render::rows::Row;

const LOOK: &str = "white-space:pre-wrap;overflow-wrap:anywhere";

/// The rows as they are now.
pub(in crate::render) fn rows(rows: &[Row]) -> String {
    if let [only] = rows {
        let text = lines(only.text.trim_matches('\n'));
        let said = format!("<div style=\"max-width:{WIDTH}px;{LOOK}\">{text}</div>\n");
        return page(&(heading(&only.adapter) + &said));
    }
    let whole = rows.iter().all(|row| row.ended);
    let names: Vec<&str> = rows.iter().map(|row| row.adapter.as_str()).collect();
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    page(&below(&names, &texts, whole.then_some(0)))
}

/// What several combinations say to each prompt.
pub(super) fn outputs(outputs: &Outputs) -> String {
    let names: Vec<&str> = outputs.columns.iter().map(String::as_str).collect();
    let mut out = if outputs.title.is_empty() { String::new() } else { heading(&outputs.title) };
    for (prompt, texts) in &outputs.rows {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        if outputs.rows.len() == 1 {
            out += &below(&names, &texts, Some(outputs.reference));
        } else {
            out += &heading(prompt);
            out += &table(&names, &texts, Some(outputs.reference));
        }
    }
    if outputs.rows.len() > 1 {
        out += &muted(&legend(names[outputs.reference]));
    }
    out
}

/// Texts below each other, with their legend.
fn below(names: &[&str], texts: &[&str], reference: Option<usize>) -> String {
    let mut out = table(names, texts, reference);
    if let Some(reference) = reference.filter(|r| texts.iter().any(|text| departs(texts[*r], text))) {
        out += &muted(&legend(names[reference]));
    }
    out
}

fn table(names: &[&str], texts: &[&str], reference: Option<usize>) -> String {
    let mut out = format!(
        "<table style=\"border-collapse:collapse;border:0;margin:6px 0;font-size:13px;max-width:{WIDTH}px\">\n<tbody>\n"
    );
    for (index, (name, said)) in names.iter().zip(texts).enumerate() {
        let said = match reference {
            Some(reference) if index != reference => marked(texts[reference], said),
            _ => lines(said.trim_matches('\n')),
        };
        let rule = if index == 0 { String::new() } else { format!(";border-top:1px solid {HAIRLINE}") };
        let cell = format!("border:0{rule};background:none;vertical-align:top;text-align:left");
        out += &format!(
            "<tr style=\"background:none\"><th scope=\"row\" align=\"left\" style=\"{cell};padding:5px 16px 5px 0;\
             font-weight:600;white-space:nowrap\">{}</th><td align=\"left\" style=\"{cell};padding:5px 0;{LOOK}\">{said}</td></tr>\n",
            text(name)
        );
    }
    out + "</tbody></table>\n"
}

fn legend(name: &str) -> String {
    differ::legend(name, crate::render::Ink::COLOR)
}

/// `text` with the place where it departs from `other` and the words that differ underlined.
fn marked(other: &str, text: &str) -> String {
    let piece = |piece: Piece<'_>| match piece {
        Piece::Same(text) => kept(text),
        Piece::Differs(text) => format!("<u>{}</u>", kept(text)),
        Piece::Departs => format!("<b style=\"color:{}\">{DEPARTS}</b>", best()),
    };
    differ(other, text).into_iter().map(piece).collect()
}

fn kept(text: &str) -> String {
    escape(text).replace('\n', "<br>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_differ_are_underlined() {
        let marked = |a: &str, b: &str| marked(a, b).replace(&format!(" style=\"color:{}\"", best()), "");
        assert_eq!(marked("a sample", "a silly sample <x>"), "a <b>▸</b><u>silly</u> sample <u>&lt;x&gt;</u>");
        assert_eq!(marked("same", "same"), "same");
    }

    #[test]
    fn prompts_are_headings_and_one_prompt_is_none() {
        let of = |rows: Vec<(String, Vec<String>)>| {
            outputs(&Outputs { title: "<t>".into(), columns: vec!["base".into(), "a".into()], reference: 0, rows })
        };
        let row = |prompt: &str| (prompt.to_owned(), vec!["one".to_owned(), "<two>".to_owned()]);
        let one = of(vec![row("who?")]);
        assert!(one.contains("&lt;t&gt;") && one.contains("&lt;two&gt;") && !one.contains("who?"), "{one}");
        let two = of(vec![row("who?"), row("what?")]);
        assert!(two.contains("<b>who?</b>") && two.contains("<b>what?</b>"), "{two}");
        assert_eq!(two.matches("departs from base").count(), 1);
    }

    #[test]
    fn a_row_that_has_not_ended_is_not_compared() {
        let row = |text: &str, ended| Row { adapter: text.into(), text: text.into(), ended };
        assert!(rows(&[row("a", true), row("b", true)]).contains(DEPARTS));
        assert!(!rows(&[row("a", true), row("b", false)]).contains(DEPARTS));
    }
}
