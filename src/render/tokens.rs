//! The token X-ray: what training does with each token of a sample.

use super::ansi::{self, Ink, visible};
use super::shade;
use crate::event::{Mark, TokenSample, units};

/// Runs of the same padding token are shown this often, then counted.
pub(super) const MOST_PADDING: usize = 3;

/// Nats gained on a token that have the strongest shade; a level of four is one nat.
pub(super) const STRONGEST: f64 = 4.0;

/// A sample as text of at most `width` columns, ended by a line break: a heading, the tokens, a legend with counts.
///
/// Trained tokens are green and underlined, in turns bright so that their borders are seen, masked ones dim, padding
/// struck out; without colour trained runs stand between `‹` and `›` and padding between `~` and `~`. A line break
/// inside a token is shown as `⏎`. What was gained or lost is a ground of blue or orange, or, without colour, a character behind it.
#[must_use]
pub fn tokens(sample: &TokenSample, width: usize, ink: Ink) -> String {
    let count = |mark: Mark| sample.tokens.iter().filter(|token| token.1 == mark).count();
    let (trained, masked, padding) = (count(Mark::Trained), count(Mark::Masked), count(Mark::Padding));
    let mut out = ink.bold(&ansi::wrap(&ansi::clean(&title(sample)), width)) + "\n";
    out += &body(sample, width.max(8), ink);

    let remark = if gained(sample) > 0 { ": read, not scored" } else { ": read, not learnt" };
    let legend = [
        (Mark::Trained, trained, "trained", ""),
        (Mark::Masked, masked, "masked", remark),
        (Mark::Padding, padding, "padding", ""),
    ];
    let shown = legend.into_iter().filter(|entry| entry.1 > 0).map(|(mark, n, name, remark)| {
        let text = format!("{} {name}", units::count(n as u64));
        let (open, close) = brackets(mark, ink);
        format!("{open}{}{close}{remark}", paint(mark, 0, &text, ink))
    });
    let legend = scale(sample, ink).into_iter().chain(shown).collect::<Vec<_>>().join(" · ");
    out + &if legend.is_empty() { ink.dim("no tokens") } else { legend } + "\n"
}

/// Scored tokens whose gain is known.
pub(super) fn gained(sample: &TokenSample) -> usize {
    sample.tokens.iter().filter(|token| matches!(token.1, Mark::Gained(_))).count()
}

/// What the shades of gains say.
fn scale(sample: &TokenSample, ink: Ink) -> Option<String> {
    let level = |nats: i32| {
        let mark = Mark::Gained(f64::from(nats));
        let sign =
            if ink.is_color() { String::new() } else { shade::character(f64::from(nats) / STRONGEST).to_string() };
        let more = if nats.abs() == 4 { "+" } else { "" };
        paint(mark, 0, &format!(" {sign}{}{more} ", nats.abs()), ink)
    };
    let levels = |sign: i32| (1..=4).map(|nats| level(sign * nats)).collect::<String>();
    let scored = gained(sample);
    (scored > 0).then(|| {
        format!("{} scored · nats gained{}and lost{}", units::count(scored as u64), levels(1), levels(-1).trim_end())
    })
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
            let mut text: String = same[0].0.chars().map(|c| if c == '\n' { '⏎' } else { visible(c) }).collect();
            if let Mark::Gained(nats) = mark
                && !open.is_empty()
            {
                text.push(shade::character(nats / STRONGEST));
            }
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
        Mark::Gained(nats) if shade::character(nats / STRONGEST) != ' ' => ("‹", "›"),
        Mark::Masked | Mark::Gained(_) => ("", ""),
        Mark::Padding => ("~", "~"),
    }
}

fn paint(mark: Mark, index: usize, text: &str, ink: Ink) -> String {
    match mark {
        Mark::Trained => ink.paint(if index.is_multiple_of(2) { "4;32" } else { "4;92" }, text),
        Mark::Masked => ink.dim(text),
        Mark::Gained(nats) => shade::paint(nats / STRONGEST, text, ink),
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
    fn gains_have_shades_or_characters() {
        let all =
            [("Q", Mark::Masked), (" a", Mark::Gained(1.2)), (" b", Mark::Gained(-9.0)), (" c", Mark::Gained(0.1))];
        let plain = tokens(&sample(&all), 80, Ink::PLAIN);
        assert_eq!(plain.lines().nth(1), Some("Q‹ a░›‹ b≣› c"), "{plain}");
        assert_eq!(
            plain.lines().nth(2),
            Some("3 scored · nats gained ░1  ▒2  ▓3  █4+ and lost -1  =2  ≡3  ≣4+ · 1 masked: read, not scored")
        );
        let color = tokens(&sample(&all), 80, Ink::COLOR);
        assert!(color.contains(&shade::paint(0.3, " a", Ink::COLOR)) && !color.contains('░'), "{color:?}");
        assert!(tokens(&sample(&[("x", Mark::Gained(f64::NAN))]), 80, Ink::PLAIN).contains("\nx\n"));
    }

    #[test]
    fn hostile_and_missing_tokens_are_shown() {
        let text = tokens(&sample(&[("\u{1b}[2J\t\r", Mark::Masked), ("", Mark::Trained)]), 80, Ink::PLAIN);
        assert!(text.contains("␛[2J␉␍"), "{text}");
        let none = TokenSample { title: String::new(), tokens: vec![] };
        assert_eq!(tokens(&none, 80, Ink::PLAIN), "0 tokens\nno tokens\n");
    }
}
