//! A memory breakdown: the sum in a sentence, a stacked bar, a table that explains each part.

use super::table::{Column, Kind, Row, grid};
use super::{SVG_ALONE, heading, hex, text};
use crate::event::{Cell, MemoryReport};
use crate::render::font::text_width;
use crate::render::memory::{counted, heading as sum, megabytes};
use crate::render::number::cell;
use crate::render::palette::PARTS;

/// The bar in pixels; parts stand this far apart.
const WIDTH: f64 = super::WIDTH as f64;
const HEIGHT: f64 = 26.0;
const GAP: f64 = 1.5;

/// A memory breakdown.
pub(super) fn memory(report: &MemoryReport) -> String {
    let counted = counted(report);
    let mut out = heading(&sum(report));
    if counted > 0 {
        out += &bar(report, counted as f64);
    }
    let rows = report.parts.iter().enumerate().map(|(index, part)| {
        let swatch = format!(
            "<span style=\"display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:7px;background:{}\">\
             </span>",
            hex(color(report, index))
        );
        let share = if counted > 0 { cell(&Cell::Share(part.bytes as f64 / counted as f64)) } else { String::new() };
        let cells = vec![swatch + &text(&part.name), megabytes(part.bytes), share, text(&part.why)];
        Row { cells, best: false }
    });
    let columns = [("part", Kind::Word), ("MB", Kind::Number), ("share", Kind::Number), ("why", Kind::Text)];
    out + &grid(&columns.map(|(name, kind)| Column { name: name.to_owned(), kind }), rows)
}

/// Each part as wide as its share, with its name and its megabytes where they fit.
fn bar(report: &MemoryReport, counted: f64) -> String {
    let words: Vec<String> =
        report.parts.iter().map(|part| format!("{} {} MB", part.name, megabytes(part.bytes))).collect();
    let words = text(&words.join(", "));
    let mut out = format!(
        "{SVG_ALONE}<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{words}\" \
         style=\"display:block;max-width:100%;height:auto;margin:6px 0;font-family:inherit\">\n<title>{words}</title>\n"
    );
    let shown = report.parts.iter().filter(|part| part.bytes > 0).count();
    let room = (WIDTH - GAP * shown.saturating_sub(1) as f64).max(0.0);
    let mut x = 0.0;
    for (index, part) in report.parts.iter().enumerate().filter(|(_, part)| part.bytes > 0) {
        let width = part.bytes as f64 / counted * room;
        let fill = color(report, index);
        out += &format!(
            "<rect x=\"{x:.1}\" y=\"0\" width=\"{:.1}\" height=\"{HEIGHT}\" rx=\"2\" fill=\"{}\"/>\n",
            width.max(0.5),
            hex(fill)
        );
        let label = format!("{} {}", part.name, megabytes(part.bytes));
        let fits = |label: &&str| text_width(label, 11.0) + 14.0 <= width;
        if let Some(label) = [label.as_str(), part.name.as_str()].iter().find(|label| fits(label)) {
            out += &format!(
                "<text x=\"{:.1}\" y=\"17\" font-size=\"11\" font-weight=\"600\" fill=\"{}\">{}</text>\n",
                x + 7.0,
                ink(fill),
                text(label)
            );
        }
        x += width + GAP;
    }
    out + "</svg></div>\n"
}

/// The colour of a part; the last one, the program itself, is grey.
fn color(report: &MemoryReport, index: usize) -> u32 {
    let (grey, colors) = (PARTS[PARTS.len() - 1], &PARTS[..PARTS.len() - 1]);
    if index + 1 == report.parts.len() { grey } else { colors[index % colors.len()] }
}

/// Black or white, whichever is read more easily on this ground (WCAG's contrast).
fn ink(ground: u32) -> &'static str {
    let linear = |shift: u32| (f64::from(ground >> shift & 0xFF) / 255.0).powf(2.2);
    let luminance = 0.2126 * linear(16) + 0.7152 * linear(8) + 0.0722 * linear(0);
    if 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 { "#fff" } else { "#111" }
}
