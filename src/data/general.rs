//! The built-in general text: what a model can be asked about without having been trained for it.

use super::{Content, DataSet, Format, Row};

/// The name under which commands find it, unless a data set or file has that name.
pub const GENERAL: &str = "general";

/// A story, facts, dialogue, a recipe, a letter, news, a few lines of code: some 450 words.
const TEXT: &str = include_str!("general.txt");
/// Another text of that kind: what is adjusted to this one is measured on the other.
const CALIBRATION: &str = include_str!("calibration.txt");
/// Lines that the text begins with, enough for a quick look.
const OPENING: usize = 8;

impl DataSet {
    /// The built-in general text, one document, short enough to be scored during every training.
    #[must_use]
    pub fn general() -> Self {
        built_in(TEXT)
    }

    /// The first paragraphs of [`DataSet::general`].
    #[must_use]
    pub fn opening() -> Self {
        built_in(opening())
    }

    /// A text that has nothing in common with [`DataSet::general`], some 700 words.
    #[must_use]
    pub fn calibration() -> Self {
        built_in(CALIBRATION)
    }
}

fn built_in(text: &str) -> DataSet {
    let rows = vec![Row { number: 1, content: Content::Text(text.to_owned()) }];
    let origin = "the built-in general text".to_owned();
    DataSet { name: GENERAL.to_owned(), origin, format: Format::Text, unit: "line", rows }
}

fn opening() -> &'static str {
    let end = TEXT.match_indices('\n').nth(OPENING - 1).map_or(TEXT.len(), |(at, _)| at + 1);
    &TEXT[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_long_enough_and_share_nothing() {
        assert!(TEXT.split_whitespace().count() > 400 && CALIBRATION.split_whitespace().count() > 500);
        assert!(opening().ends_with(".\n") && opening().split_whitespace().count() > 150);
        assert!(opening().len() < TEXT.len() / 2);
        assert!(CALIBRATION.lines().all(|line| !TEXT.contains(line)));
    }
}
