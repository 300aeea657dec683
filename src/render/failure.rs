//! An error as text: what failed, where in the cell, what to type next.

use super::ansi::{self, Ink};
use crate::error::Error;

/// Columns that a tab in the source takes.
const TAB: &str = "    ";

/// An error as text, ended by a line break: its kind and message, the place in the cell, what to type next. `cell` is the
/// text its span counts in; a span that lies outside is moved to the nearest place inside. Where the place is no news, the
/// only line of a cell, or the error is an interrupt, it is left out.
///
/// ```text
/// error[Usage]: unknown flag --rnak
///   2 │ attach-lora --rnak 16
///     │             ^^^^^^
/// hint: did you mean --rank?
/// ```
#[must_use]
pub fn failure(error: &Error, cell: &str, width: usize, ink: Ink) -> String {
    if error.is_interrupted() {
        return ink.warning(&ansi::wrap(&ansi::clean(error.message()), width)) + "\n";
    }
    let mut out =
        labelled(&format!("error[{}]:", error.kind().name()), error.message(), width, |label| ink.error(label));
    if let Some(span) = error.span().filter(|span| is_news(cell, span)) {
        out += &excerpt(cell, span, width, ink);
    }
    if let Some(hint) = error.hint_text() {
        out += &labelled("hint:", hint, width, |label| ink.hint(label));
    }
    out
}

/// `label text` in lines of at most `width` columns, the label painted.
fn labelled(label: &str, text: &str, width: usize, paint: impl Fn(&str) -> String) -> String {
    let lines = ansi::wrap(&format!("{label} {}", ansi::clean(text)), width);
    lines.replacen(label, &paint(label), 1) + "\n"
}

/// Whether it helps to show the place: something is left of the cell beside it.
fn is_news(cell: &str, span: &std::ops::Range<usize>) -> bool {
    let text = cell.trim();
    let start = cell.len() - cell.trim_start().len();
    !text.is_empty() && (text.contains('\n') || span.start > start || span.end < start + text.len())
}

/// The line in which the span begins, and carets below the part of it that lies on that line.
fn excerpt(cell: &str, span: std::ops::Range<usize>, width: usize, ink: Ink) -> String {
    let start = floor(cell, span.start);
    let end = floor(cell, span.end.max(start)).max(start);
    let line_start = cell[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = cell[start..].find('\n').map_or(cell.len(), |at| start + at);
    let number = (cell[..line_start].matches('\n').count() + 1).to_string();

    let mut before = shown(&cell[line_start..start]);
    let marked = shown(&cell[start..end.min(line_end)]);
    let mut after = shown(&cell[end.min(line_end)..line_end]);
    // What stands before gives way first if the line is too long, so that the carets stay in view.
    let room = width.saturating_sub(number.len() + 5).max(16);
    let needed = ansi::width(&marked).clamp(1, room - 2);
    before = keep_end(&before, (room - needed).saturating_sub(ansi::width(&after).min(room / 3)));
    after = ansi::shorten(&after, room.saturating_sub(ansi::width(&before) + ansi::width(&marked)));
    let marked = ansi::shorten(&marked, room - ansi::width(&before).min(room));

    let blank = " ".repeat(number.len());
    let carets = "^".repeat(ansi::width(&marked).max(1));
    let line = format!(" {before}{marked}{after}");
    format!(
        "  {}{}\n  {} {}{}\n",
        ink.dim(&format!("{number} │")),
        line.trim_end(),
        ink.dim(&format!("{blank} │")),
        " ".repeat(ansi::width(&before)),
        ink.error(&carets)
    )
}

/// The greatest place at or before `at` where a character begins.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

fn shown(text: &str) -> String {
    text.trim_end_matches('\r').replace('\t', TAB).chars().map(ansi::visible).collect()
}

/// The end of `text` that fits into `columns`, with `…` before it if something was cut off.
fn keep_end(text: &str, columns: usize) -> String {
    if ansi::width(text) <= columns {
        return text.to_owned();
    }
    let mut start = text.len();
    let mut used = 1;
    for (at, c) in text.char_indices().rev() {
        used += ansi::width(c.encode_utf8(&mut [0; 4]));
        if used > columns {
            break;
        }
        start = at;
    }
    format!("…{}", &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn at(cell: &str, span: std::ops::Range<usize>) -> String {
        failure(&Error::usage("unknown flag --rnak").at(span), cell, 80, Ink::PLAIN)
    }

    #[test]
    fn the_place_and_the_hint_are_shown() {
        let cell = "load demo\nattach-lora --rnak 16\ntrain x";
        let error = Error::usage("unknown flag --rnak").at(22..28).hint("did you mean --rank?");
        let expected = "\
error[Usage]: unknown flag --rnak
  2 │ attach-lora --rnak 16
    │             ^^^^^^
hint: did you mean --rank?
";
        assert_eq!(failure(&error, cell, 80, Ink::PLAIN), expected);
        let colored = failure(&error, cell, 80, Ink::COLOR);
        assert!(colored.starts_with("\u{1b}[31merror[Usage]:\u{1b}[0m unknown flag"), "{colored:?}");
        assert!(colored.contains("\u{1b}[31m^^^^^^\u{1b}[0m"), "{colored:?}");
    }

    #[test]
    fn carets_stand_below_tabs_and_wide_characters() {
        assert!(
            at("\tx 日本 y", 3..9).ends_with("  1 │     x 日本 y\n    │       ^^^^\n"),
            "{}",
            at("\tx 日本 y", 3..9)
        );
        assert!(at("e\u{301} x", 4..5).ends_with("  1 │ e\u{301} x\n    │   ^\n"));
    }

    #[test]
    fn a_span_over_several_lines_marks_the_first() {
        assert!(at("for d in (a\nb", 9..13).ends_with("  1 │ for d in (a\n    │          ^^\n"));
    }

    #[test]
    fn spans_out_of_range_are_moved_inside() {
        assert!(at("abc", 7..9).ends_with("  1 │ abc\n    │    ^\n"));
        assert!(at("äb", 1..2).ends_with("  1 │ äb\n    │ ^\n"));
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = at("abc", 2..1);
        assert!(reversed.ends_with("  1 │ abc\n    │   ^\n"), "{reversed}");
        assert!(at("abc\n", 4..4).ends_with("  2 │\n    │ ^\n"));
        assert_eq!(at("", 0..3), "error[Usage]: unknown flag --rnak\n");
        assert!(at("abc", usize::MAX - 1..usize::MAX).contains('^'));
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let cell = format!("{}BAD{}", "x ".repeat(100), " y".repeat(100));
        let text = at(&cell, 200..203);
        assert!(text.lines().all(|line| ansi::width(line) <= 80), "{text}");
        let rows: Vec<&str> = text.lines().collect();
        let caret = rows[2].chars().position(|c| c == '^');
        assert_eq!(rows[1].chars().position(|c| c == 'B'), caret, "{text}");
        let wide = at(&"z".repeat(500), 0..499);
        assert!(wide.lines().all(|line| ansi::width(line) <= 80), "{wide}");
    }

    #[test]
    fn an_interrupt_is_not_called_an_error() {
        assert_eq!(failure(&Error::interrupted().at(0..5), "train x", 80, Ink::PLAIN), "interrupted\n");
        assert_eq!(failure(&Error::new(Kind::Io, "a\u{1b}b"), "", 80, Ink::PLAIN), "error[Io]: a␛b\n");
    }

    #[test]
    fn a_place_that_is_all_of_the_cell_is_no_news() {
        assert_eq!(at("train x", 0..7), "error[Usage]: unknown flag --rnak\n");
        assert_eq!(at(" train x\n", 1..8), "error[Usage]: unknown flag --rnak\n");
        assert!(at("train x\nload y", 0..7).contains("1 │ train x"));
        assert!(at("train x", 6..7).contains('^'));
    }

    #[test]
    fn long_messages_and_hints_break_between_words() {
        let error = Error::usage("many words ".repeat(12)).hint("more words ".repeat(12)).at(0..1);
        let text = failure(&error, "a b", 60, Ink::PLAIN);
        assert!(text.lines().all(|line| ansi::width(line) <= 60), "{text}");
        assert!(text.contains("\nhint: more words"), "{text}");
        let colored = failure(&error, "a b", 60, Ink::COLOR);
        assert!(colored.contains("\u{1b}[1;36mhint:\u{1b}[0m more"), "{colored:?}");
    }
}
