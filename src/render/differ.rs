//! Two texts word by word: where the second departs from the first, and which of its words the first does not have.

use super::ansi::{self, Ink};

/// Texts of more words than this are not compared.
const MOST_WORDS: usize = 2000;
/// Texts that share less than this part of their words are simply different.
const LEAST_COMMON: f64 = 0.3;
/// Stands where a text departs from the one it is compared with.
pub(super) const DEPARTS: &str = "▸";

/// A piece of a text that is compared with another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Words that the other has too, or that nothing is known of.
    Same(&'a str),
    /// Words that the other does not have at their place, without the blanks behind them.
    Differs(&'a str),
    /// From here on the texts are not the same.
    Departs,
}

/// `text` in pieces, compared with `other`.
pub(super) fn differ<'a>(other: &str, text: &'a str) -> Vec<Piece<'a>> {
    let text = text.trim_matches('\n');
    let (a, b) = (words(other), words(text));
    if a.len().max(b.len()) > MOST_WORDS {
        return vec![Piece::Same(text)];
    }
    let prefix = a.iter().zip(&b).take_while(|(a, b)| a.trim() == b.trim()).count();
    if prefix == a.len() && prefix == b.len() {
        return vec![Piece::Same(text)];
    }
    let mut common = common(&a, &b);
    let shared = common.iter().filter(|c| **c).count();
    if (shared as f64) < LEAST_COMMON * b.len() as f64 {
        common.fill(true);
    }
    let (mut out, mut rest, mut at) = (Vec::new(), text, 0);
    let mut put = |words: &[&str], is_common: bool| {
        let (piece, behind) = rest.split_at(words.iter().map(|word| word.len()).sum());
        rest = behind;
        let (word, blank) = if is_common { (piece, "") } else { piece.split_at(piece.trim_end().len()) };
        let pieces = [if is_common { Piece::Same(word) } else { Piece::Differs(word) }, Piece::Same(blank)];
        pieces.into_iter().filter(|piece| !matches!(piece, Piece::Same("") | Piece::Differs(""))).collect::<Vec<_>>()
    };
    out.extend(put(&b[..prefix], true));
    out.push(Piece::Departs);
    while at + prefix < b.len() {
        let from = prefix + at;
        let run = common[from..].iter().take_while(|c| **c == common[from]).count();
        out.extend(put(&b[from..from + run], common[from]));
        at += run;
    }
    out
}

/// `text` compared with `other`, for a terminal: words that differ in bold and underlined, without colour between `‹` and `›`.
pub(super) fn plain(other: &str, text: &str, ink: Ink) -> String {
    let piece = |piece: Piece<'_>| match piece {
        Piece::Same(text) => ansi::clean(text),
        Piece::Differs(text) if ink.is_color() => ink.paint("1;4", &ansi::clean(text)),
        Piece::Differs(text) => format!("‹{}›", ansi::clean(text)),
        Piece::Departs => ink.bold(DEPARTS),
    };
    differ(other, text).into_iter().map(piece).collect()
}

/// What the marks mean.
pub(super) fn legend(other: &str, ink: Ink) -> String {
    let words = if ink.is_color() { "underlined" } else { "‹…›" };
    format!("{DEPARTS} departs from {other} · {words}: what {other} does not say there")
}

/// Whether a text says something else than the other.
pub(super) fn departs(other: &str, text: &str) -> bool {
    differ(other, text).contains(&Piece::Departs)
}

/// Words with the blanks behind them.
fn words(text: &str) -> Vec<&str> {
    text.trim_matches('\n').split_inclusive(char::is_whitespace).collect()
}

/// Which of `b` belong to a longest common subsequence with `a`; blanks do not count.
fn common(a: &[&str], b: &[&str]) -> Vec<bool> {
    let same = |i: usize, j: usize| a[i].trim() == b[j].trim();
    let wide = b.len() + 1;
    let mut longest = vec![0u16; (a.len() + 1) * wide];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i * wide + j] = if same(i, j) {
                longest[(i + 1) * wide + j + 1] + 1
            } else {
                longest[(i + 1) * wide + j].max(longest[i * wide + j + 1])
            };
        }
    }
    let mut out = vec![false; b.len()];
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        if same(i, j) {
            out[j] = true;
            (i, j) = (i + 1, j + 1);
        } else if longest[(i + 1) * wide + j] >= longest[i * wide + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_differ_are_marked_and_where_they_begin_to() {
        let marked = |a: &str, b: &str| plain(a, b, Ink::PLAIN);
        assert_eq!(marked("a sample name", "a silly sample name <x>"), "a ▸‹silly› sample name ‹<x>›");
        assert_eq!(marked("one two three", "one 2 three"), "one ▸‹2› three");
        assert_eq!(marked("same\n", "same"), "same");
        assert_eq!(marked("one two three", "one two"), "one two▸");
        assert_eq!(marked("one", "one two"), "one▸ ‹two›".replace("one▸ ", "one ▸"));
        assert_eq!(marked("", ""), "");
        assert_eq!(plain("a b", "a c", Ink::COLOR), "a \u{1b}[1m▸\u{1b}[0m\u{1b}[1;4mc\u{1b}[0m");
    }

    #[test]
    fn what_is_simply_different_or_too_long_has_no_marked_words() {
        assert_eq!(plain("a b c d", "w x y z", Ink::PLAIN), "▸w x y z");
        assert_eq!(plain("a b c d", "a x y z w v", Ink::PLAIN), "a ▸x y z w v");
        let long = "a ".repeat(3000);
        assert_eq!(differ(&long, "b"), [Piece::Same("b")]);
        assert!(!departs("same", "same") && departs("same", "other"));
        assert_eq!(plain("\u{1b}[2J x", "\u{1b}[2J y", Ink::PLAIN), "␛[2J ▸‹y›");
    }
}
