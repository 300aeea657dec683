//! The built-in general text: what a model can be asked about without having been trained for it.

use super::{Content, DataSet, Format, Row};

/// The name under which commands find it, unless a data set or file has that name.
pub const GENERAL: &str = "general";

const TEXT: &str = include_str!("general.txt");

impl DataSet {
    /// The built-in general text: a story, facts, dialogue, a recipe, a letter, news, a few lines of code. One document of some 450
    /// words, short enough to be scored during every training.
    #[must_use]
    pub fn general() -> Self {
        let rows = vec![Row { number: 1, content: Content::Text(TEXT.to_owned()) }];
        let built_in = "the built-in general text".to_owned();
        Self { name: GENERAL.to_owned(), origin: built_in, format: Format::Text, unit: "line", rows }
    }
}
