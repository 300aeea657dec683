//! Generated text as it comes, row by row.

use super::ansi::{self, Ink};
use super::differ::{self, departs};
use super::plain::Plain;
use super::table::dim_lines;
use crate::event::{Event, Outputs};

/// What an adapter says to a prompt.
pub(super) struct Row {
    pub(super) adapter: String,
    pub(super) text: String,
    pub(super) ended: bool,
}

/// Takes a piece of text in; false if it begins another round of rows.
pub(super) fn take(rows: &mut Vec<Row>, adapter: &str, text: &str, begins: bool, ends: bool) -> bool {
    let index = rows.iter().position(|row| row.adapter == adapter);
    if begins && index.is_some() {
        return false;
    }
    let index = index.unwrap_or_else(|| {
        rows.push(Row { adapter: adapter.to_owned(), text: String::new(), ended: false });
        rows.len() - 1
    });
    rows[index].text.push_str(text);
    rows[index].ended = ends;
    true
}

/// The rows one after the other, as a terminal shows them; when all have ended, with what differs from the first marked.
pub(super) fn plain(rows: &[Row], plain: Plain) -> String {
    let ink = Ink::new(plain.color);
    let whole = rows.iter().all(|row| row.ended);
    let mut out = String::new();
    for (index, row) in rows.iter().enumerate() {
        out += &if whole && index > 0 { later(rows, index, ink) } else { said(row, plain) };
    }
    if whole { out + &remark(rows, plain) } else { out }
}

fn said(row: &Row, plain: Plain) -> String {
    plain.render(&Event::Generated { adapter: row.adapter.clone(), text: row.text.clone(), begins: true, ends: true })
}

/// A row behind the first, compared with it.
pub(super) fn later(rows: &[Row], index: usize, ink: Ink) -> String {
    let row = &rows[index];
    let text = if row.ended { differ::plain(&rows[0].text, &row.text, ink) } else { ansi::clean(&row.text) };
    format!("{}\n{text}\n", ink.bold(&ansi::clean(&row.adapter)))
}

/// What the marks mean, if there are any.
pub(super) fn remark(rows: &[Row], plain: Plain) -> String {
    if !rows.iter().any(|row| departs(&rows[0].text, &row.text)) {
        return String::new();
    }
    let ink = Ink::new(plain.color);
    dim_lines(&ansi::wrap(&differ::legend(&ansi::clean(&rows[0].adapter), ink), plain.width.max(1)), ink)
}

/// What several combinations say to each prompt, names before the texts; what differs from the reference is marked.
pub(super) fn outputs(outputs: &Outputs, width: usize, ink: Ink) -> String {
    let mut out = String::new();
    if !outputs.title.is_empty() {
        out += &(ink.bold(&ansi::wrap(&ansi::clean(&outputs.title), width)) + "\n");
    }
    let names: Vec<String> = outputs.columns.iter().map(|name| ansi::fit(name, width / 3)).collect();
    let left = names.iter().map(|name| ansi::width(name)).max().unwrap_or(0);
    let mut differs = false;
    for (prompt, texts) in &outputs.rows {
        if outputs.rows.len() > 1 {
            out += &(ink.bold(&ansi::fit(prompt, width)) + "\n");
        }
        let reference = &texts[outputs.reference];
        for (index, (name, text)) in names.iter().zip(texts).enumerate() {
            differs |= departs(reference, text);
            let text = match index == outputs.reference {
                true => ansi::clean(text.trim_matches('\n')),
                false => differ::plain(reference, text, Ink::PLAIN),
            };
            let text = ansi::wrap(&text.replace('\n', " ⏎ "), width.saturating_sub(left + 4).max(8));
            for (nth, line) in text.lines().chain(text.is_empty().then_some("")).enumerate() {
                let name = if nth == 0 { name.as_str() } else { "" };
                let pad = " ".repeat(left - ansi::width(name));
                out += &(format!("  {pad}{}  {line}", ink.bold(name)).trim_end().to_owned() + "\n");
            }
        }
    }
    if differs {
        let legend = differ::legend(&ansi::clean(&outputs.columns[outputs.reference]), Ink::PLAIN);
        out += &dim_lines(&ansi::wrap(&legend, width), ink);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn several(rows: &[(&str, &[&str])], reference: usize) -> Outputs {
        let row = |(prompt, texts): &(&str, &[&str])| {
            ((*prompt).to_owned(), texts.iter().map(|text| (*text).to_owned()).collect())
        };
        Outputs {
            title: "strip".into(),
            columns: vec!["scale 0".into(), "scale 1".into()],
            reference,
            rows: rows.iter().map(row).collect(),
        }
    }

    #[test]
    fn texts_stand_beside_their_names_and_are_compared_with_the_reference() {
        let strip = several(&[("hidden", &["one 2\nthree", "one two three\n"])], 1);
        assert_eq!(
            outputs(&strip, 60, Ink::PLAIN),
            "strip\n  scale 0  one ▸‹2› ⏎ three\n  scale 1  one two three\n\
             ▸ departs from scale 1 · ‹…›: what scale 1 does not say\nthere\n"
        );
        let prompts = several(&[("Who?", &["a", "a"]), ("What?", &["", "b"])], 0);
        let shown = outputs(&prompts, 80, Ink::PLAIN);
        assert!(shown.contains("Who?\n  scale 0  a\n  scale 1  a\nWhat?\n  scale 0\n  scale 1  ▸b\n"), "{shown}");
        // Without a difference nothing needs explaining.
        assert!(!outputs(&several(&[("x", &["a", "a"])], 0), 80, Ink::PLAIN).contains('▸'));
    }

    #[test]
    fn hostile_and_long_texts_stay_in_their_place() {
        let long = "word ".repeat(60);
        let texts = several(&[("\u{1b}[2J", &["\u{1b}[31m red", &long]), ("x", &["", ""])], 0);
        let shown = outputs(&texts, 40, Ink::PLAIN);
        assert!(!shown.contains('\u{1b}'), "{shown}");
        assert!(shown.lines().all(|line| ansi::width(line) <= 40), "{shown}");
    }
}
