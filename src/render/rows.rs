//! Generated text as it comes, row by row.

use super::plain::Plain;
use crate::event::Event;

/// What an adapter says to a prompt.
pub(super) struct Row {
    pub(super) adapter: String,
    pub(super) text: String,
    pub(super) ended: bool,
}

/// Takes a piece of text in; false if it begins another round of rows.
pub(super) fn take(rows: &mut Vec<Row>, adapter: &str, text: &str, begins: bool, ends: bool) -> bool {
    let index = rows.iter().position(|row| row.adapter == adapter);
    if begins && index.is_some() {
        return false;
    }
    let index = index.unwrap_or_else(|| {
        rows.push(Row { adapter: adapter.to_owned(), text: String::new(), ended: false });
        rows.len() - 1
    });
    rows[index].text.push_str(text);
    rows[index].ended = ends;
    true
}

/// The rows one after the other, as a terminal shows them.
pub(super) fn plain(rows: &[Row], plain: Plain) -> String {
    let whole =
        |row: &Row| Event::Generated { adapter: row.adapter.clone(), text: row.text.clone(), begins: true, ends: true };
    rows.iter().map(|row| plain.render(&whole(row))).collect()
}
