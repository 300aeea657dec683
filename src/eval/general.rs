//! Plain English on many subjects: what a model should be able to predict before anything is done to it.

/// A general text, a document of some 650 words.
#[must_use]
pub fn text() -> &'static str {
    include_str!("general.txt")
}

/// Its first paragraphs: enough for a quick look.
#[must_use]
pub fn opening() -> &'static str {
    let end = text().match_indices('\n').nth(4).map_or(text().len(), |(at, _)| at + 1);
    &text()[..end]
}

/// Another text of that kind: what is adjusted to this one is measured on [`text`].
#[must_use]
pub fn calibration() -> &'static str {
    include_str!("calibration.txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_long_enough_and_share_nothing() {
        assert!(text().split_whitespace().count() > 500 && calibration().split_whitespace().count() > 500);
        assert!(text().starts_with(opening()) && opening().ends_with(".\n") && opening().len() < text().len() / 2);
        assert!(calibration().lines().all(|line| !text().contains(line)));
    }
}
