//! The token X-ray: trained tokens underlined on a ground, masked ones faint, padding struck out.

use super::{CODE, best, escape, heading, paragraph, text};
use crate::event::{Mark, TokenSample, units};
use crate::render::ansi::visible;
use crate::render::number;
use crate::render::shade;
use crate::render::tokens::{MOST_PADDING, STRONGEST, gained, title};

/// A sample with its legend.
pub(super) fn tokens(sample: &TokenSample) -> String {
    let mut body = String::new();
    for run in sample.tokens.chunk_by(|a, b| a.1 == b.1) {
        for same in run.chunk_by(|a, b| run[0].1 == Mark::Padding && a.0 == b.0) {
            for token in same.iter().take(MOST_PADDING) {
                let shown: String = token.0.chars().map(|c| if c == '\n' { '⏎' } else { visible(c) }).collect();
                // A token is never broken; a line may end behind each.
                body += &format!("{}<wbr>", marked(token.1, &escape(&shown)));
            }
            if same.len() > MOST_PADDING {
                body += &format!(" <span style=\"opacity:.6\">×{}</span>", units::count(same.len() as u64));
            }
        }
    }
    let scored = gained(sample);
    let remark = if scored > 0 { ": read, not scored" } else { ": read, not learnt" };
    let legend = [(Mark::Trained, "trained", ""), (Mark::Masked, "masked", remark), (Mark::Padding, "padding", "")];
    let mut legend: Vec<String> = legend
        .into_iter()
        .filter_map(|(mark, name, remark)| {
            let count = sample.tokens.iter().filter(|token| token.1 == mark).count();
            let words = format!("{} {name}{remark}", units::count(count as u64));
            (count > 0).then(|| marked(mark, &text(&words)))
        })
        .collect();
    if scored > 0 {
        let level = |nats: i32| {
            let more = if nats.abs() == 4 { "+" } else { "" };
            marked(Mark::Gained(f64::from(nats)), &format!("&nbsp;{}{more}&nbsp;", nats.abs()))
        };
        let levels = |sign: i32| (1..=4).map(|nats| level(sign * nats)).collect::<String>();
        let scored = units::count(scored as u64);
        legend.insert(0, format!("{scored} scored · nats gained {} and lost {}", levels(1), levels(-1)));
    }
    let legend = if legend.is_empty() { "no tokens".to_owned() } else { legend.join(" · ") };
    let mut out = heading(&title(sample));
    out += &format!("<div style=\"{CODE};line-height:1.75;margin:4px 0;overflow-wrap:anywhere\">{body}</div>\n");
    out + &paragraph("font-size:12px", &legend)
}

/// A token's look, that of its mark; elements that mean the same stay where styles are taken away.
fn marked(mark: Mark, html: &str) -> String {
    // No room between tokens, or words would seem to be torn: a thin line tells where one ends.
    let look = "padding:1px 0;box-shadow:inset -1px 0 0 rgba(127,127,127,.35);white-space:pre-wrap";
    match mark {
        Mark::Trained => format!(
            "<ins style=\"{look};text-decoration:none;background:rgba(0,158,115,.2);border-bottom:2px solid {}\">{html}</ins>",
            best()
        ),
        Mark::Gained(nats) => format!(
            "<span style=\"{look};background:{}\" title=\"{}\">{html}</span>",
            shade::ground(nats / STRONGEST),
            number::signed(nats, 2)
        ),
        Mark::Masked => format!("<span style=\"{look};opacity:.66\">{html}</span>"),
        Mark::Padding => format!("<del style=\"{look};opacity:.5;text-decoration:line-through\">{html}</del>"),
    }
}
