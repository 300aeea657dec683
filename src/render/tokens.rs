//! The token X-ray: what training does with each token of a sample.

use super::ansi::{self, Ink, visible};
use crate::event::{Mark, TokenSample, units};

/// Runs of the same padding token are shown this often, then counted.
pub(super) const MOST_PADDING: usize = 3;

/// A sample as text of at most `width` columns, ended by a line break: a heading, the tokens, a legend with counts.
///
/// Trained tokens are green and underlined, in turns bright so that their borders are seen, masked ones dim, padding
/// struck out; without colour trained runs stand between `‹` and `›` and padding between `~` and `~`. A line break
/// inside a token is shown as `⏎`.
#[must_use]
pub fn tokens(sample: &TokenSample, width: usize, ink: Ink) -> String {
    let count = |mark: Mark| sample.tokens.iter().filter(|token| token.1 == mark).count();
    let (trained, masked, padding) = (count(Mark::Trained), count(Mark::Masked), count(Mark::Padding));
    let mut out = ink.bold(&ansi::wrap(&ansi::clean(&title(sample)), width)) + "\n";
    out += &body(sample, width.max(8), ink);

    let legend = [
        (Mark::Trained, trained, "trained", ""),
        (Mark::Masked, masked, "masked", ": read, not learnt"),
        (Mark::Padding, padding, "padding", ""),
    ];
    let shown = legend.into_iter().filter(|entry| entry.1 > 0).map(|(mark, n, name, remark)| {
        let text = format!("{} {name}", units::count(n as u64));
        let (open, close) = brackets(mark, ink);
        format!("{open}{}{close}{remark}", paint(mark, 0, &text, ink))
    });
    let legend = shown.collect::<Vec<_>>().join(" · ");
    out + &if legend.is_empty() { ink.dim("no tokens") } else { legend } + "\n"
}

/// The title with the number of tokens that are read.
pub(super) fn title(sample: &TokenSample) -> String {
    let read = sample.tokens.iter().filter(|token| token.1 != Mark::Padding).count();
    let sum = units::plural(read, "token");
    if sample.title.is_empty() { sum } else { format!("{} · {sum}", sample.title) }
}

/// The tokens one after the other, broken between tokens where a line is full.
fn body(sample: &TokenSample, width: usize, ink: Ink) -> String {
    let mut out = String::new();
    let mut used = 0;
    let mut put = |text: &str, painted: &str, glued: bool| {
        let needed = ansi::width(text);
        if used > 0 && used + needed > width && !glued {
            out.push('\n');
            used = 0;
        }
        out.push_str(painted);
        used += needed;
    };
    for run in sample.tokens.chunk_by(|a, b| a.1 == b.1) {
        let mark = run[0].1;
        let (open, close) = brackets(mark, ink);
        put(open, open, false);
        let mut index = 0;
        for same in run.chunk_by(|a, b| mark == Mark::Padding && a.0 == b.0) {
            let text: String = same[0].0.chars().map(|c| if c == '\n' { '⏎' } else { visible(c) }).collect();
            for _ in same.iter().take(MOST_PADDING) {
                for (nth, piece) in pieces(&text, width).iter().enumerate() {
                    let behind_bracket = index == 0 && nth == 0 && !open.is_empty();
                    put(piece, &paint(mark, index, piece, ink), behind_bracket);
                }
                index += 1;
            }
            if same.len() > MOST_PADDING {
                let rest = format!(" ×{}", units::count(same.len() as u64));
                put(&rest, &ink.dim(&rest), true);
            }
        }
        put(close, close, true);
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

/// A token cut into pieces that fit on a line.
fn pieces(text: &str, width: usize) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut used = 0;
    for c in text.chars() {
        let needed = ansi::width(c.encode_utf8(&mut [0; 4]));
        if used + needed > width {
            all.push(String::new());
            used = 0;
        }
        used += needed;
        if let Some(last) = all.last_mut() {
            last.push(c);
        }
    }
    all
}

fn brackets(mark: Mark, ink: Ink) -> (&'static str, &'static str) {
    match mark {
        _ if ink.is_color() => ("", ""),
        Mark::Trained => ("‹", "›"),
        Mark::Masked => ("", ""),
        Mark::Padding => ("~", "~"),
    }
}

fn paint(mark: Mark, index: usize, text: &str, ink: Ink) -> String {
    match mark {
        Mark::Trained => ink.paint(if index.is_multiple_of(2) { "4;32" } else { "4;92" }, text),
        Mark::Masked => ink.dim(text),
        Mark::Padding => ink.paint("2;9", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(tokens: &[(&str, Mark)]) -> TokenSample {
        let tokens = tokens.iter().map(|&(text, mark)| (text.to_owned(), mark)).collect();
        TokenSample { title: "jargon, sample 3 of 1,584".into(), tokens }
    }

    #[test]
    fn without_colour_runs_are_bracketed() {
        let s = sample(&[
            ("user\n", Mark::Masked),
            ("A", Mark::Trained),
            (" name", Mark::Trained),
            ("<pad>", Mark::Padding),
            ("<pad>", Mark::Padding),
        ]);
        assert_eq!(
            tokens(&s, 80, Ink::PLAIN),
            "jargon, sample 3 of 1,584 · 3 tokens\nuser⏎‹A name›~<pad><pad>~\n\
             ‹2 trained› · 1 masked: read, not learnt · ~2 padding~\n"
        );
    }

    #[test]
    fn with_colour_neighbours_differ() {
        let text = tokens(&sample(&[("A", Mark::Trained), (" b", Mark::Trained)]), 80, Ink::COLOR);
        assert!(text.contains("\u{1b}[4;32mA\u{1b}[0m\u{1b}[4;92m b\u{1b}[0m"), "{text:?}");
        assert!(!text.contains('‹'));
    }

    #[test]
    fn long_samples_wrap_and_padding_is_counted() {
        let mut all = vec![("word ", Mark::Masked); 30];
        all.extend([("<pad>", Mark::Padding); 200]);
        let text = tokens(&sample(&all), 40, Ink::PLAIN);
        assert!(text.replace('\n', "").contains("~<pad><pad><pad> ×200~"), "{text}");
        assert!(text.lines().filter(|l| !l.contains('·')).all(|l| ansi::width(l) <= 40), "{text}");
        let one = tokens(&sample(&[(&"x".repeat(100), Mark::Trained)]), 40, Ink::PLAIN);
        assert!(one.lines().skip(1).all(|l| ansi::width(l) <= 41), "{one}");
    }

    #[test]
    fn hostile_and_missing_tokens_are_shown() {
        let text = tokens(&sample(&[("\u{1b}[2J\t\r", Mark::Masked), ("", Mark::Trained)]), 80, Ink::PLAIN);
        assert!(text.contains("␛[2J␉␍"), "{text}");
        let none = TokenSample { title: String::new(), tokens: vec![] };
        assert_eq!(tokens(&none, 80, Ink::PLAIN), "0 tokens\nno tokens\n");
    }
}
