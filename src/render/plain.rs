//! Every event as text: `text/plain` of a notebook, the output of a terminal, the end of a script.

use super::ansi::{self, Ink};
use super::drawing::Drawing;
use super::{board, heat, memory, rows, table, tokens};
use crate::event::{Event, Page, Progress, Sheet, Unit, units};

/// Makes text of events: lines of at most `width` columns, with ANSI colours if `color`.
#[derive(Debug, Clone, Copy)]
pub struct Plain {
    pub width: usize,
    pub color: bool,
}

impl Plain {
    /// The text of an event, ended by a line break; empty for what is only shown while it goes on (steps, evaluations,
    /// progress). A piece of generated text comes as it is, after its row's heading if it begins one.
    #[must_use]
    pub fn render(&self, event: &Event) -> String {
        self.drawn(event, Drawing::Braille)
    }

    /// The same with charts drawn another way.
    pub(super) fn drawn(&self, event: &Event, drawing: Drawing) -> String {
        let (width, ink) = (self.width.max(1), Ink::new(self.color));
        match event {
            Event::Text(text) => lines(&ansi::wrap(&ansi::clean(text), width)),
            Event::Stream { text, .. } => text.clone(),
            Event::Value(text) => lines(text),
            Event::Page(Page { text, .. }) => lines(&ansi::wrap(text, width)),
            Event::Clear => String::new(),
            Event::Warning(text) => {
                let text = ansi::wrap(&format!("warning: {}", ansi::clean(text)), width);
                lines(&text.replacen("warning:", &ink.warning("warning:"), 1))
            }
            Event::Next(commands) if commands.is_empty() => String::new(),
            Event::Next(commands) => {
                let commands = commands.iter().map(|command| ansi::clean(command));
                table::dim_lines(&ansi::join_wrapped(commands, " · ", "next: ", "      ", width), ink)
            }
            Event::Table(t) => table::table(t, width, ink),
            Event::Chart(chart) => {
                let title = ink.bold(&ansi::wrap(&ansi::clean(&chart.title), width));
                lines(&title) + &drawing.draw(chart, width, ink)
            }
            Event::Heat(map) => heat::heat(map, width, ink),
            Event::Sheet(sheet) if !sheet.ends => String::new(),
            Event::Sheet(sheet) => self.sheet(sheet, drawing),
            Event::Memory(report) => memory::memory(report, width, ink),
            Event::Tokens(sample) => tokens::tokens(sample, width, ink),
            Event::Outputs(outputs) => rows::outputs(outputs, width, ink),
            Event::Generated { adapter, text, begins, ends } => {
                let heading = if *begins { ink.bold(&ansi::clean(adapter)) + "\n" } else { String::new() };
                heading + &ansi::clean(text) + if *ends { "\n" } else { "" }
            }
            Event::Sampled { step, text } => {
                let step = format!("step {}:", units::count(*step as u64));
                let text = ansi::wrap(&format!("{step} {}", ansi::clean(text.trim()).replace('\n', " ⏎ ")), width);
                lines(&text.replacen(&step, &ink.dim(&step), 1))
            }
            Event::RunStarted(info) => board::started(info, width, ink),
            Event::RunEnded(ended) => board::ended(ended, width, ink, drawing),
            Event::Progress(_) | Event::Step(_) | Event::Evaluated(_) | Event::Probed { .. } => String::new(),
        }
    }
}

impl Plain {
    /// A chart above its table, whether more is to come or not.
    pub(super) fn sheet(&self, sheet: &Sheet, drawing: Drawing) -> String {
        let has_points = sheet.chart.series.iter().any(|series| !series.points.is_empty());
        let chart = if has_points {
            self.drawn(&Event::Chart(sheet.chart.clone()), drawing) + "\n"
        } else {
            let title = ansi::wrap(&ansi::clean(&sheet.chart.title), self.width.max(1));
            lines(&Ink::new(self.color).bold(&title))
        };
        let table = table::within(&sheet.table, &sheet.spare, self.width.max(1));
        chart + &table::table(&table, self.width.max(1), Ink::new(self.color))
    }
}

/// `text` ended by one line break, unless it is empty.
fn lines(text: &str) -> String {
    match text.trim_end_matches('\n') {
        "" => String::new(),
        text => format!("{text}\n"),
    }
}

/// `quantizing ━━━━━╌╌╌╌ 45 % · 61.2 of 135.0 MB · model.layers.3`, cut to `width` columns.
pub(super) fn progress(progress: &Progress, width: usize, ink: Ink) -> String {
    let label = ansi::shorten(&ansi::clean(&progress.label), width / 3);
    let bar = ansi::bar(share(progress), 20);
    let rest = ansi::clean(&amounts(progress)).replace('\n', " ");
    let room = width.saturating_sub(ansi::width(&label) + 1);
    if room < 40 {
        return format!("{label} {}", ansi::shorten(&rest, room));
    }
    format!("{label} {} {}", ink.nth(0, &bar), ansi::shorten(&rest, room - 21))
}

/// How much is done, from 0 to 1.
pub(super) fn share(progress: &Progress) -> f64 {
    if progress.total == 0 { 1.0 } else { (progress.done as f64 / progress.total as f64).clamp(0.0, 1.0) }
}

/// `45 % · 61.2 MB of 135.0 MB · model.layers.3`.
pub(super) fn amounts(progress: &Progress) -> String {
    let of = match progress.unit {
        Unit::Bytes => format!("{} of {}", units::bytes(progress.done), units::bytes(progress.total)),
        Unit::Items => format!("{} of {}", units::count(progress.done), units::count(progress.total)),
    };
    let detail = if progress.detail.is_empty() { String::new() } else { format!(" · {}", progress.detail) };
    format!("{:.0} % · {of}{detail}", (share(progress) * 100.0).floor())
}
