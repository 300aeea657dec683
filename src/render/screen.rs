//! The events of a cell as a notebook shows them: one display for each, those of what goes on updated in place.

use std::time::{Duration, Instant};

use super::ansi::Ink;
use super::board::Board;
use super::drawing::Drawing;
use super::html;
use super::output::{Bundle, Output};
use super::plain::{self, Plain};
use super::rows::{self, Row};
use crate::event::{Event, Page, Progress, RunEnded, Sheet};

/// The text form of every display.
const TEXT: Plain = Plain { width: 100, color: false };
/// What is done within this time shows no bar.
const PATIENCE: Duration = Duration::from_millis(500);

/// Turns the events of one cell into outputs.
///
/// [`Screen::apply`] gives what is to be shown at once. What goes on is drawn by [`Screen::due`], so a front end decides
/// how often, and a run that has ended before the first call shows its end alone. A bar is taken away when its work is
/// done: what comes next stands in its place.
pub struct Screen {
    prefix: String,
    displays: usize,
    run: Option<Run>,
    bar: Option<Bar>,
    generation: Option<Generation>,
    sheet: Option<Filling>,
    /// The display of a bar that has ended, if nothing stands below it.
    vacant: Option<String>,
    /// The display that was begun last, if nothing but a vacant one stands below it.
    lowest: Option<String>,
    patience: Duration,
}

/// A training run. `id` is that of its display once it is shown, `moved` whether it has changed since.
#[derive(Default)]
struct Run {
    board: Board,
    id: Option<String>,
    moved: bool,
}

struct Bar {
    now: Progress,
    since: Instant,
    id: Option<String>,
    /// What stands right above its display.
    above: Option<String>,
    moved: bool,
}

/// A sheet that fills.
struct Filling {
    sheet: Sheet,
    id: Option<String>,
    moved: bool,
}

#[derive(Default)]
struct Generation {
    rows: Vec<Row>,
    id: Option<String>,
    moved: bool,
}

impl Screen {
    /// An empty screen; `prefix` makes its display ids differ from those of other cells.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            displays: 0,
            run: None,
            bar: None,
            generation: None,
            sheet: None,
            vacant: None,
            lowest: None,
            patience: PATIENCE,
        }
    }

    /// Takes an event and returns what is to be sent now.
    pub fn apply(&mut self, event: &Event) -> Vec<Output> {
        let mut out = Vec::new();
        match event {
            Event::Progress(now) => self.progress(now, &mut out),
            Event::Generated { adapter, text, begins, ends } => {
                self.show_run(&mut out);
                let mut taken = false;
                if let Some(generation) = &mut self.generation {
                    taken = rows::take(&mut generation.rows, adapter, text, *begins, *ends);
                    generation.moved |= taken;
                }
                if !taken {
                    self.end_generation(&mut out);
                    let mut rows = Vec::new();
                    rows::take(&mut rows, adapter, text, *begins, *ends);
                    self.generation = Some(Generation { rows, moved: true, id: None });
                }
            }
            Event::RunStarted(_) => {
                self.settle(&mut out);
                let run = self.run.insert(Run { moved: true, ..Run::default() });
                run.board.apply(event);
            }
            Event::Step(_) | Event::Evaluated(_) | Event::Probed { .. } => self.move_run(event),
            Event::Sampled { .. } if self.run.is_some() => self.move_run(event),
            Event::RunEnded(ended) => {
                self.move_run(event);
                self.end_run(ended, &mut out);
            }
            Event::Sheet(sheet) => self.fill(sheet, &mut out),
            Event::Clear => self.clear(&mut out),
            _ => {
                self.end_generation(&mut out);
                self.show_run(&mut out);
                self.draw_sheet(&mut out);
                self.once(event, &mut out);
            }
        }
        out
    }

    /// What has moved since the last call. To be called at most four times a second, and before [`Screen::finish`].
    pub fn due(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        self.draw_run(&mut out);
        self.draw_sheet(&mut out);
        self.draw_generation(&mut out);
        if let Some(mut bar) = self.bar.take() {
            if std::mem::take(&mut bar.moved) && (bar.id.is_some() || bar.since.elapsed() >= self.patience) {
                let text = plain::progress(&bar.now, TEXT.width, Ink::PLAIN);
                let bundle = Bundle::text(&text).with("text/html", html::progress(&bar.now));
                if bar.id.is_none() {
                    bar.above = self.lowest.clone();
                }
                bar.id = Some(self.draw(bar.id.take(), bundle, &mut out));
            }
            self.bar = Some(bar);
        }
        out
    }

    /// Ends the cell: what has not come to its end is shown as it is.
    pub fn finish(&mut self) -> Vec<Output> {
        let mut out = Vec::new();
        self.settle(&mut out);
        if let Some(id) = self.bar.take().and_then(|bar| bar.id) {
            out.push(blank(id));
        }
        self.vacate(&mut out);
        out
    }

    /// The end of everything that goes on but a bar.
    fn settle(&mut self, out: &mut Vec<Output>) {
        self.end_generation(out);
        self.draw_sheet(out);
        self.sheet = None;
        if let Some(run) = &mut self.run {
            run.board.stop();
            run.moved = true;
            self.draw_run(out);
            self.run = None;
        }
    }

    /// An event that is shown once.
    fn once(&mut self, event: &Event, out: &mut Vec<Output>) {
        let text = TEXT.render(event);
        let output = match event {
            Event::Stream { text, error } if !text.is_empty() => Output::Stream { error: *error, text: text.clone() },
            Event::Value(_) => Output::Value(Bundle::text(&text)),
            Event::Page(Page { text, markdown }) => {
                Output::Page(Bundle::text(text).with("text/markdown", markdown.as_str()))
            }
            Event::Chart(chart) => {
                let bundle = Bundle::picture(chart).unwrap_or_default();
                Output::Display(bundle.with("text/plain", text.trim_end_matches('\n')))
            }
            Event::Heat(map) => {
                let bundle = Bundle::picture(map).unwrap_or_default().with("text/plain", text.trim_end_matches('\n'));
                Output::Display(match html::html(event) {
                    Some(html) => bundle.with("text/html", html),
                    None => bundle,
                })
            }
            _ if text.is_empty() => return,
            _ => {
                let bundle = Bundle::text(&text);
                Output::Display(match html::html(event) {
                    Some(html) => bundle.with("text/html", html),
                    None => bundle,
                })
            }
        };
        match output {
            Output::Display(bundle) => {
                self.draw(None, bundle, out);
            }
            Output::Page(_) => out.push(output),
            _ => {
                self.vacate(out);
                self.lowest = None;
                out.push(output);
            }
        }
    }

    /// A bar begins, moves or ends; between the steps of a run it is a part of the run's display.
    fn progress(&mut self, now: &Progress, out: &mut Vec<Output>) {
        let ends = now.done >= now.total;
        if let Some(run) = &mut self.run {
            run.board.set_activity((!ends).then(|| now.clone()));
            run.moved = true;
        } else if !ends {
            let bar = self.bar.get_or_insert_with(|| Bar {
                now: now.clone(),
                since: Instant::now(),
                id: None,
                above: None,
                moved: true,
            });
            bar.now = now.clone();
            bar.moved = true;
        } else if let Some((id, above)) = self.bar.take().and_then(|bar| Some((bar.id?, bar.above))) {
            if self.lowest.as_ref() == Some(&id) {
                (self.vacant, self.lowest) = (Some(id), above);
            } else {
                out.push(blank(id));
            }
        }
    }

    fn move_run(&mut self, event: &Event) {
        let run = self.run.get_or_insert_default();
        run.moved |= run.board.apply(event);
    }

    /// The last look of a run, and the picture of its chart.
    fn end_run(&mut self, ended: &RunEnded, out: &mut Vec<Output>) {
        self.end_generation(out);
        let Some(run) = self.run.take() else { return };
        let picture = Bundle::picture(&ended.chart);
        let lowest = run.id.is_none() || run.id == self.lowest;
        self.draw(run.id, page(&run.board, lowest && picture.is_some()), out);
        if let Some(picture) = picture {
            self.draw(None, picture, out);
        }
    }

    /// A sheet begins, fills or ends.
    fn fill(&mut self, now: &Sheet, out: &mut Vec<Output>) {
        let id = self.sheet.take().and_then(|filling| filling.id);
        if !now.ends {
            self.sheet = Some(Filling { sheet: now.clone(), id, moved: true });
            return;
        }
        let picture = Bundle::picture(&now.chart);
        let lowest = id.is_none() || id == self.lowest;
        self.draw(id, filled(now, lowest && picture.is_some()), out);
        if let Some(picture) = picture {
            self.draw(None, picture, out);
        }
    }

    fn draw_sheet(&mut self, out: &mut Vec<Output>) {
        let Some(mut filling) = self.sheet.take() else { return };
        if std::mem::take(&mut filling.moved) {
            filling.id = Some(self.draw(filling.id.take(), filled(&filling.sheet, false), out));
        }
        self.sheet = Some(filling);
    }

    fn draw_run(&mut self, out: &mut Vec<Output>) {
        let Some(mut run) = self.run.take() else { return };
        if std::mem::take(&mut run.moved) {
            run.id = Some(self.draw(run.id.take(), page(&run.board, false), out));
        }
        self.run = Some(run);
    }

    /// Shows a run that is not yet shown, so that what comes now stands below it.
    fn show_run(&mut self, out: &mut Vec<Output>) {
        if self.run.as_ref().is_some_and(|run| run.id.is_none()) {
            self.draw_run(out);
        }
    }

    fn draw_generation(&mut self, out: &mut Vec<Output>) {
        let Some(mut generation) = self.generation.take() else { return };
        if std::mem::take(&mut generation.moved) {
            let text = rows::plain(&generation.rows, TEXT);
            let bundle = Bundle::text(&text).with("text/html", html::rows(&generation.rows));
            generation.id = Some(self.draw(generation.id.take(), bundle, out));
        }
        self.generation = Some(generation);
    }

    fn end_generation(&mut self, out: &mut Vec<Output>) {
        if let Some(generation) = &mut self.generation {
            generation.rows.iter_mut().for_each(|row| row.ended = true);
            self.draw_generation(out);
            self.generation = None;
        }
    }

    /// Nothing is shown any more; what goes on will be shown again.
    fn clear(&mut self, out: &mut Vec<Output>) {
        self.generation = None;
        (self.vacant, self.lowest) = (None, None);
        if let Some(run) = &mut self.run {
            (run.id, run.moved) = (None, true);
        }
        if let Some(bar) = &mut self.bar {
            (bar.id, bar.above, bar.moved) = (None, None, true);
        }
        if let Some(filling) = &mut self.sheet {
            (filling.id, filling.moved) = (None, true);
        }
        out.push(Output::Clear);
    }

    /// Draws a display: the one of this id anew, else one in the vacant place, else one below all others. Returns its id.
    fn draw(&mut self, id: Option<String>, bundle: Bundle, out: &mut Vec<Output>) -> String {
        if let Some(id) = id {
            out.push(Output::Update(bundle.at(id.clone())));
            return id;
        }
        if let Some(id) = self.vacant.take() {
            out.push(Output::Update(bundle.at(id.clone())));
            self.lowest = Some(id.clone());
            return id;
        }
        self.displays += 1;
        let id = format!("{}-{}", self.prefix, self.displays);
        out.push(Output::Display(bundle.at(id.clone())));
        self.lowest = Some(id.clone());
        id
    }

    /// Empties the vacant place, if nothing can stand in it.
    fn vacate(&mut self, out: &mut Vec<Output>) {
        out.extend(self.vacant.take().map(blank));
    }
}

/// A run as a display.
fn page(board: &Board, picture_follows: bool) -> Bundle {
    Bundle::text(&board.page(TEXT.width, Ink::PLAIN)).with("text/html", html::dashboard(board, picture_follows))
}

/// A sheet as a display.
fn filled(sheet: &Sheet, picture_follows: bool) -> Bundle {
    let text = TEXT.sheet(sheet, Drawing::Braille);
    Bundle::text(&text).with("text/html", html::sheet(sheet, picture_follows))
}

/// A display of nothing.
fn blank(id: String) -> Output {
    Output::Update(Bundle::text("").with("text/html", "").at(id))
}

#[cfg(test)]
mod tests;
