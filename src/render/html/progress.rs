//! A bar for what takes long.

use super::{HAIRLINE, MUTED, WIDTH, page, paragraph, series, text};
use crate::event::Progress;
use crate::render::plain;

/// The bar and its words.
pub(in crate::render) fn progress(now: &Progress) -> String {
    let share = plain::share(now);
    let label = text(&now.label);
    let words = format!("{label} · <span style=\"{MUTED}\">{}</span>", text(&plain::amounts(now)));
    page(&(paragraph("font-variant-numeric:tabular-nums", &words) + &bar(&now.label, share, true)))
}

/// A bar of which `share`, from 0 to 1, is done; grey if it does not move any more.
pub(super) fn bar(label: &str, share: f64, moves: bool) -> String {
    let percent = (share.clamp(0.0, 1.0) * 1000.0).round() / 10.0;
    let color = if moves { series(0) } else { HAIRLINE.to_owned() };
    format!(
        "<div role=\"progressbar\" aria-label=\"{}\" aria-valuemin=\"0\" aria-valuemax=\"100\" aria-valuenow=\"{percent}\" \
         style=\"height:8px;max-width:{WIDTH}px;border-radius:4px;background:rgba(128,128,128,.22);overflow:hidden;margin:6px 0 4px\">\
         <div style=\"width:{percent}%;height:8px;border-radius:4px;background:{color}\"></div></div>\n",
        text(label)
    )
}
