//! The events of a cell as a notebook shows them: running text as streams, everything else as displays, of which those
//! that go on (a training run, a progress bar) are updated in place.

use serde_json::{Map, Value};

use super::base64;
use super::board::Board;
use super::chart::{Theme, describe};
use super::plain::Plain;
use crate::event::{Chart, Event, Page};

/// Columns of a notebook's text.
const TEXT: Plain = Plain { width: 100, color: false };

/// What a notebook front end shows, in Jupyter's terms.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Text that continues the stream before it; `error` tells standard error.
    Stream { error: bool, text: String },
    /// `display_data`.
    Display(Bundle),
    /// `update_display_data`: takes the place of the display of the same id.
    Update(Bundle),
    /// `execute_result`.
    Value(Bundle),
    /// Something to read beside the notebook: a payload `page`.
    Page(Bundle),
    /// `clear_output`.
    Clear,
}

/// The forms of one display.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bundle {
    /// By mime type, as in a message: text as a string, pictures in base64, SVG as text.
    pub data: Map<String, Value>,
    pub metadata: Map<String, Value>,
    /// By which an update finds its display.
    pub display_id: Option<String>,
}

impl Bundle {
    /// A bundle of plain text.
    fn text(text: &str) -> Self {
        let mut bundle = Self::default();
        bundle.put("text/plain", text.trim_end_matches('\n'));
        bundle
    }

    fn put(&mut self, mime: &str, content: impl Into<Value>) {
        self.data.insert(mime.to_owned(), content.into());
    }
}

/// Turns the events of one cell into outputs.
///
/// [`Screen::apply`] gives what is to be shown at once. What goes on is shown by [`Screen::due`], so a front end decides
/// how often it draws, and a run that has ended before the first call shows its end alone.
pub struct Screen {
    prefix: String,
    displays: usize,
    board: Board,
    /// The display of the run, once it is shown.
    run: Option<String>,
    /// Whether the run has moved since it was drawn.
    moved: bool,
    /// Rows of generated text that have not ended, with what they say so far.
    rows: Vec<(String, String)>,
}

impl Screen {
    /// An empty screen; `prefix` makes its display ids differ from those of other cells.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            displays: 0,
            board: Board::default(),
            run: None,
            moved: false,
            rows: Vec::new(),
        }
    }

    /// Takes an event and returns what is to be sent now.
    pub fn apply(&mut self, event: &Event) -> Vec<Output> {
        let mut out = Vec::new();
        match event {
            Event::Progress(_) => {}
            Event::RunStarted(_) => {
                out.extend(self.draw_run());
                self.run = None;
                self.board.apply(event);
                self.moved = true;
            }
            Event::Step(_) | Event::Evaluated(_) | Event::Sampled { .. } => {
                self.board.apply(event);
                self.moved = true;
            }
            Event::RunEnded(ended) => {
                self.board.apply(event);
                self.moved = true;
                out.extend(self.draw_run());
                out.extend(picture(&ended.chart).map(Output::Display));
                self.board = Board::default();
                self.run = None;
            }
            _ => {
                out.extend(self.place_run());
                out.extend(self.plain(event));
            }
        }
        out
    }

    /// What has moved since the last call. To be called at most four times a second, and before [`Screen::finish`].
    pub fn due(&mut self) -> Vec<Output> {
        self.draw_run().into_iter().collect()
    }

    /// Ends the cell: what has not come to its end is shown as it is.
    pub fn finish(&mut self) -> Vec<Output> {
        let mut out = self.due();
        for (_, text) in std::mem::take(&mut self.rows) {
            let text = format!("{}\n", text.trim_end_matches('\n'));
            out.push(Output::Stream { error: false, text });
        }
        self.board = Board::default();
        self.run = None;
        out
    }

    /// The events that are shown once.
    fn plain(&mut self, event: &Event) -> Option<Output> {
        let text = TEXT.render(event);
        let stream = |error, text: String| (!text.is_empty()).then_some(Output::Stream { error, text });
        match event {
            Event::Stream { error: true, .. } | Event::Warning(_) => stream(true, text),
            Event::Generated { adapter, ends, .. } => self.generated(adapter, &text, *ends),
            Event::Chart(chart) => {
                let mut bundle = picture(chart).unwrap_or_default();
                bundle.put("text/plain", text.trim_end_matches('\n'));
                Some(Output::Display(bundle))
            }
            Event::Table(_) | Event::Memory(_) | Event::Tokens(_) => Some(Output::Display(Bundle::text(&text))),
            Event::Value(_) => Some(Output::Value(Bundle::text(&text))),
            Event::Page(Page { text, markdown }) => {
                let mut bundle = Bundle::text(text);
                bundle.put("text/markdown", markdown.as_str());
                Some(Output::Page(bundle))
            }
            Event::Clear => Some(Output::Clear),
            _ => stream(false, text),
        }
    }

    /// Rows that are generated side by side are shown one after the other, each when it has ended.
    fn generated(&mut self, adapter: &str, text: &str, ends: bool) -> Option<Output> {
        let row = self.rows.iter().position(|(name, _)| name == adapter).unwrap_or_else(|| {
            self.rows.push((adapter.to_owned(), String::new()));
            self.rows.len() - 1
        });
        self.rows[row].1.push_str(text);
        ends.then(|| Output::Stream { error: false, text: self.rows.remove(row).1 })
    }

    /// The run as it is now, if it has moved.
    fn draw_run(&mut self) -> Option<Output> {
        if !std::mem::take(&mut self.moved) {
            return None;
        }
        let mut bundle = Bundle::text(&self.board.page(TEXT.width, super::Ink::PLAIN));
        let shown = self.run.is_some();
        bundle.display_id = Some(self.run.clone().unwrap_or_else(|| self.new_id()));
        self.run.clone_from(&bundle.display_id);
        Some(if shown { Output::Update(bundle) } else { Output::Display(bundle) })
    }

    /// Shows a run that is not yet shown, so that what comes now stands below it.
    fn place_run(&mut self) -> Option<Output> {
        if self.run.is_none() { self.draw_run() } else { None }
    }

    fn new_id(&mut self) -> String {
        self.displays += 1;
        format!("{}-{}", self.prefix, self.displays)
    }
}

/// A chart as pictures on a light ground, described in words; nothing for a chart without points.
fn picture(chart: &Chart) -> Option<Bundle> {
    if chart.series.iter().all(|series| series.points.is_empty()) {
        return None;
    }
    let mut bundle = Bundle::text(&describe(chart));
    bundle.put("image/svg+xml", super::svg(chart, Theme::Light));
    // A picture that cannot be made leaves the other forms.
    if let Ok(png) = super::png(chart, Theme::Light) {
        bundle.put("image/png", base64::encode(&png));
    }
    bundle.metadata.insert("needs_background".to_owned(), "light".into());
    Some(bundle)
}
