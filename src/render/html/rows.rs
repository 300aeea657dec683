//! Generated text: one row, or several beside each other with what differs underlined.

use super::{HAIRLINE, WIDTH, heading, lines, muted, page, text};
use crate::render::rows::Row;

/// Texts of more words than this are not compared.
const MOST_WORDS: usize = 2000;
/// Texts that share less than this part of their words are simply different.
const LEAST_COMMON: f64 = 0.3;

/// The rows as they are now.
pub(in crate::render) fn rows(rows: &[Row]) -> String {
    let look = "white-space:pre-wrap;overflow-wrap:anywhere";
    if let [only] = rows {
        let text = lines(only.text.trim_matches('\n'));
        let said = format!("<div style=\"max-width:{WIDTH}px;{look}\">{text}</div>\n");
        return page(&(heading(&only.adapter) + &said));
    }
    let mut out = format!(
        "<table style=\"border-collapse:collapse;border:0;margin:6px 0;font-size:13px;width:100%;max-width:{WIDTH}px\">\n<tbody>\n"
    );
    let mut differs = false;
    for (index, row) in rows.iter().enumerate() {
        let said = match marked(&rows[0].text, &row.text) {
            Some(html) if index > 0 && rows.iter().all(|row| row.ended) => {
                differs = true;
                html
            }
            _ => lines(row.text.trim_matches('\n')),
        };
        let rule = if index == 0 { String::new() } else { format!(";border-top:1px solid {HAIRLINE}") };
        let cell = format!("border:0{rule};background:none;vertical-align:top;text-align:left");
        out += &format!(
            "<tr style=\"background:none\"><th scope=\"row\" align=\"left\" style=\"{cell};padding:5px 16px 5px 0;width:1%;\
             font-weight:600;white-space:nowrap\">{}</th><td align=\"left\" style=\"{cell};padding:5px 0;{look}\">{said}</td></tr>\n",
            text(&row.adapter)
        );
    }
    out += "</tbody></table>\n";
    if differs {
        out += &muted(&format!("underlined: what differs from {}", rows[0].adapter));
    }
    page(&out)
}

/// `text` with the words that `base` does not have at their place underlined; nothing if there is nothing to compare.
fn marked(base: &str, text: &str) -> Option<String> {
    let (a, b): (Vec<&str>, Vec<&str>) = (words(base), words(text));
    if a.len().max(b.len()) > MOST_WORDS {
        return None;
    }
    let common = common(&a, &b);
    let count = common.iter().filter(|&&c| c).count();
    if count == b.len() || (count as f64) < LEAST_COMMON * b.len() as f64 {
        return None;
    }
    let mut out = String::new();
    for run in (0..b.len()).collect::<Vec<_>>().chunk_by(|&i, &j| common[i] == common[j]) {
        let piece: String = run.iter().map(|&i| b[i]).collect();
        out += &if common[run[0]] {
            lines_kept(&piece)
        } else {
            let (word, space) = piece.split_at(piece.trim_end().len());
            format!("<u>{}</u>{}", lines_kept(word), lines_kept(space))
        };
    }
    Some(out)
}

fn lines_kept(text: &str) -> String {
    super::escape(text).replace('\n', "<br>")
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
    fn words_that_differ_are_underlined() {
        let marked = |a: &str, b: &str| marked(a, b).unwrap_or_default();
        assert_eq!(marked("a sample name", "a silly sample name <x>"), "a <u>silly</u> sample name <u>&lt;x&gt;</u>");
        assert_eq!(marked("one two three", "one 2 three"), "one <u>2</u> three");
        assert_eq!(marked("same", "same"), "");
        assert_eq!(marked("a b c d", "w x y z"), "");
        assert_eq!(marked("", ""), "");
        assert_eq!(marked(&"a ".repeat(3000), "a"), "");
    }
}
