//! A training run: what is trained, how far it has got, its losses, its evaluations, what the adapter says.

use super::progress::bar;
use super::{MUTED, chart, heading, lines, muted, page, paragraph, sample, series, table, text};
use crate::event::Sheet;
use crate::render::ansi;
use crate::render::board::Board;

/// Columns of what the adapter says while the run goes on.
const LONGEST_SAMPLE: usize = 300;

/// The picture of the chart that follows the dashboard of a run that has ended is for those who do not see the one in it:
/// pages that take styles and SVG away. Where this rule holds, so does that chart.
const ONE_CHART: &str = "<style>.jp-OutputArea-child:has(.loralab-chart)+.jp-OutputArea-child:has([data-mime-type^=\"image/\"])\
                         {display:none}</style>\n";

/// The dashboard as it is now; `picture_follows` if the next output is the picture of its chart.
pub(in crate::render) fn dashboard(board: &Board, picture_follows: bool) -> String {
    let mut out = String::new();
    if let Some(info) = board.info() {
        out += &heading(&info.title);
        if !info.subtitle.is_empty() {
            out += &muted(&info.subtitle);
        }
    }
    if board.is_running() {
        out += &state(board);
    }
    let drawing = board.chart();
    if drawing.series.iter().any(|series| !series.points.is_empty()) {
        let class = if picture_follows { " class=\"loralab-chart\"" } else { "" };
        out += &format!("<div{class} style=\"margin:6px 0 2px\">\n{}</div>\n", chart::chart(&drawing));
        if let Some(evaluations) = board.evaluations() {
            out += &table::table(&evaluations);
        }
    }
    out += &samples(board);
    if let Some(end) = board.end() {
        let warns = format!("border-left:3px solid {};padding-left:9px", series(1));
        if !end.sentence.is_empty() {
            let sentence = format!("<b>{}</b>", lines(&end.sentence));
            let look = if end.interrupted { warns.as_str() } else { "" };
            out += &paragraph(&format!("margin-top:8px;{look}"), &sentence);
        }
        if !end.kept.is_empty() {
            out += &muted(&format!("kept: {}", end.kept));
        }
    }
    if picture_follows {
        out.insert_str(0, ONE_CHART);
    }
    page(&out)
}

/// A chart above its table; `picture_follows` if the next output is the picture of the chart.
pub(in crate::render) fn sheet(sheet: &Sheet, picture_follows: bool) -> String {
    let mut out = heading(&sheet.chart.title);
    if sheet.chart.series.iter().any(|series| !series.points.is_empty()) {
        let class = if picture_follows { " class=\"loralab-chart\"" } else { "" };
        out += &format!("<div{class} style=\"margin:6px 0 2px\">\n{}</div>\n", chart::chart(&sheet.chart));
    }
    out += &table::table(&sheet.table);
    if picture_follows {
        out.insert_str(0, ONE_CHART);
    }
    page(&out)
}

/// The bar, and below it how far and how fast.
fn state(board: &Board) -> String {
    let (begin, rest) = board.state();
    let words = format!("<b>{}</b>{}", text(&begin), text(&rest));
    bar("training", board.share(), !board.is_stopped()) + &paragraph("font-variant-numeric:tabular-nums", &words)
}

fn samples(board: &Board) -> String {
    let running = board.end().is_none();
    let said = |text: &str| if running { ansi::shorten(text, LONGEST_SAMPLE) } else { text.to_owned() };
    let shown = board.samples().iter().map(|(step, text)| paragraph("", &sample(*step, &said(text))));
    let shown: String = shown.collect();
    if shown.is_empty() {
        return shown;
    }
    format!("<div style=\"margin:6px 0\">\n<div style=\"{MUTED}\">what it says</div>\n{shown}</div>\n")
}
