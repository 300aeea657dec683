//! Sixteen colours or none, and text measured, cleaned and wrapped by its width on the screen.

/// Whether text is coloured. Every function of a colour returns its text unchanged if not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ink {
    color: bool,
}

/// The colours of lines and bars, in the order they are given out: told apart on dark and light screens.
const PALETTE: [&str; 8] = ["94", "33", "32", "35", "36", "31", "95", "90"];

impl Ink {
    /// Text without any escape sequence.
    pub const PLAIN: Ink = Ink { color: false };
    /// Text with ANSI colours.
    pub const COLOR: Ink = Ink { color: true };

    /// Colours if `color`.
    #[must_use]
    pub fn new(color: bool) -> Self {
        Self { color }
    }

    /// Whether text is coloured.
    #[must_use]
    pub fn is_color(self) -> bool {
        self.color
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(super) fn best(self, text: &str) -> String {
        self.paint("1;32", text)
    }

    pub(super) fn error(self, text: &str) -> String {
        // Not bold: Jupyter's bold red cannot be read on the ground it gives to errors in the dark.
        self.paint("31", text)
    }

    pub(super) fn warning(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(super) fn hint(self, text: &str) -> String {
        self.paint("1;36", text)
    }

    /// The colour of the line or part with this index.
    pub(super) fn nth(self, index: usize, text: &str) -> String {
        self.paint(PALETTE[index % PALETTE.len()], text)
    }

    /// `text` between the escape sequence with these attributes and a reset.
    pub(super) fn paint(self, attributes: &str, text: &str) -> String {
        if self.color && !text.is_empty() { format!("\u{1b}[{attributes}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Columns that `text`, a single line, takes on the screen: as comfy-table measures its cells.
pub(super) fn width(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    let mut table = comfy_table::Table::new();
    table.add_row([text]);
    table.column_max_content_widths().first().map_or(0, |&w| usize::from(w))
}

/// `text` without what would move the cursor or switch the colours of a terminal: tabs become spaces, other control
/// characters their pictures. Line breaks stay.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.replace("\r\n", "\n").chars() {
        match c {
            '\n' => out.push(c),
            '\t' => out.push_str("    "),
            _ => out.push(visible(c)),
        }
    }
    out
}

/// A control character's picture (`␛` for escape), any other character itself.
pub(super) fn visible(c: char) -> char {
    match c {
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(c),
        '\u{7f}' => '␡',
        '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '�',
        _ => c,
    }
}

/// The beginning of `text` that fits into `columns`, with `…` at its end if something was cut off.
pub(super) fn shorten(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += width(c.encode_utf8(&mut [0; 4]));
        if used > columns {
            break;
        }
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// `text` as one line of at most `columns`, without what would move the cursor or switch colours.
#[must_use]
pub fn fit(text: &str, columns: usize) -> String {
    shorten(&clean(text).replace('\n', " "), columns)
}

/// `text` broken between words so that no line is wider than `columns`, words that are wider by themselves excepted.
/// Lines that fit stay as they are; continued ones are indented as their beginning is.
pub(super) fn wrap(text: &str, columns: usize) -> String {
    text.split('\n').map(|line| wrap_line(line, columns)).collect::<Vec<_>>().join("\n")
}

fn wrap_line(line: &str, columns: usize) -> String {
    if width(line) <= columns {
        return line.to_owned();
    }
    let indent = &line[..line.len() - line.trim_start().len()];
    join_wrapped(line.split_whitespace().map(str::to_owned), " ", indent, indent, columns)
}

/// `pieces` with `separator` between, on lines of at most `columns`; the first begins with `first`, the others with
/// `rest`.
pub(super) fn join_wrapped(
    pieces: impl Iterator<Item = String>,
    separator: &str,
    first: &str,
    rest: &str,
    columns: usize,
) -> String {
    let mut out = first.to_owned();
    let mut used = width(first);
    let mut begins = true;
    for piece in pieces {
        let needed = width(&piece);
        if !begins && used + width(separator) + needed > columns {
            out.truncate(out.trim_end().len());
            out.push('\n');
            out.push_str(rest);
            used = width(rest);
            begins = true;
        }
        if !begins {
            out.push_str(separator);
            used += width(separator);
        }
        out.push_str(&piece);
        used += needed;
        begins = false;
    }
    out
}

/// A bar of `columns` of which `share`, from 0 to 1, is done.
pub(super) fn bar(share: f64, columns: usize) -> String {
    let done = (share.clamp(0.0, 1.0) * columns as f64).round() as usize;
    "━".repeat(done) + &"╌".repeat(columns - done.min(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_screen() {
        assert_eq!(width(""), 0);
        assert_eq!(width("abc"), 3);
        assert_eq!(width("日本"), 4);
        assert_eq!(width("e\u{301}"), 1);
        assert_eq!(width("± 3 ⏎"), 5);
    }

    #[test]
    fn shortened_text_fits_and_says_so() {
        assert_eq!(shorten("abcdef", 6), "abcdef");
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("日本語", 4), "日…");
        assert_eq!(shorten("abc", 0), "");
        assert_eq!(fit("a\u{1b}\nbc", 3), "a␛…");
    }

    #[test]
    fn lines_break_between_words_and_keep_their_indent() {
        assert_eq!(wrap("one two three", 8), "one two\nthree");
        assert_eq!(wrap("  one two three", 9), "  one two\n  three");
        assert_eq!(wrap("short\n\nlines", 20), "short\n\nlines");
        assert_eq!(wrap("incomprehensibilities x", 5), "incomprehensibilities\nx");
        assert_eq!(wrap("a b", 0), "a\nb");
    }

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(clean("a\u{1b}[31m\tb\r\nc\u{7f}"), "a␛[31m    b\nc␡");
        assert_eq!(clean("\u{9b}31m\u{202e}"), "�31m�");
    }

    #[test]
    fn without_colour_there_is_no_escape() {
        assert_eq!(Ink::PLAIN.bold("x"), "x");
        assert_eq!(Ink::COLOR.bold("x"), "\u{1b}[1mx\u{1b}[0m");
        assert_eq!(Ink::COLOR.bold(""), "");
    }

    #[test]
    fn a_bar_takes_any_share() {
        assert_eq!(bar(0.5, 4), "━━╌╌");
        assert_eq!(bar(7.0, 2), "━━");
        assert_eq!(bar(f64::NAN, 2), "╌╌");
    }
}
