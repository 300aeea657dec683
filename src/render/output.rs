//! What a notebook front end shows, in Jupyter's terms.

use serde_json::{Map, Value};

use super::base64;
use super::chart::Theme;
use super::picture::Pictured;
use super::{png, svg};

/// One thing to show, or to do with what is shown.
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
    /// By mime type, as in a message: text and SVG as they are, other pictures in base64.
    pub data: Map<String, Value>,
    pub metadata: Map<String, Value>,
    /// By which an update finds its display.
    pub display_id: Option<String>,
}

impl Bundle {
    /// Plain text, without the line break that ends it.
    pub(super) fn text(text: &str) -> Self {
        Self::default().with("text/plain", text.trim_end_matches('\n'))
    }

    /// The same with one more form.
    pub(super) fn with(mut self, mime: &str, content: impl Into<Value>) -> Self {
        self.data.insert(mime.to_owned(), content.into());
        self
    }

    /// The same to be found by this id.
    pub(super) fn at(mut self, id: String) -> Self {
        self.display_id = Some(id);
        self
    }

    /// Pictures on a light ground, described in words; nothing for what is empty, as a chart without points.
    pub(super) fn picture(picture: &impl Pictured) -> Option<Self> {
        if picture.is_empty() {
            return None;
        }
        let mut bundle = Self::text(&picture.describe()).with("image/svg+xml", svg::document(picture, Theme::Light));
        // A picture that cannot be made leaves the other forms.
        if let Ok(png) = png::file(picture, Theme::Light) {
            bundle = bundle.with("image/png", base64(&png));
        }
        bundle.metadata.insert("needs_background".to_owned(), "light".into());
        Some(bundle)
    }
}
