//! A table without boxes: a rule below its header, numbers to the right, the best row bold, coloured and named.

use super::{HAIRLINE, best, heading, lines, muted};
use crate::event::Table;
use crate::render::ansi;
use crate::render::table::Texts;

/// Columns of the longest text that is not broken.
const LONGEST_WORD: usize = 24;

/// How cells look: without the lines of the notebook, as rows are without its stripes.
const CELL: &str = "border:0;padding:2px 16px 2px 0";

/// A table with its title and its note.
pub(super) fn table(sheet: &Table) -> String {
    let mut out = String::new();
    if !sheet.title.is_empty() {
        out += &heading(&sheet.title);
    }
    let texts = Texts::new(sheet);
    if sheet.rows.is_empty() {
        out += &muted("no rows");
    } else {
        let rows = texts.rows.iter().enumerate().map(|(index, row)| {
            let cells: Vec<String> = row.iter().map(|text| lines(text)).collect();
            Row { cells, best: texts.best == Some(index) }
        });
        let columns = texts
            .header
            .iter()
            .enumerate()
            .map(|(index, name)| Column { name: name.clone(), kind: kind(&texts, index) });
        out += &grid(&columns.collect::<Vec<_>>(), rows);
    }
    if !sheet.note.is_empty() {
        out += &muted(&sheet.note);
    }
    out
}

fn kind(texts: &Texts, column: usize) -> Kind {
    let is_long = |row: &Vec<String>| ansi::width(&row[column]) > LONGEST_WORD;
    match texts.right[column] {
        true => Kind::Number,
        false if texts.rows.iter().any(is_long) => Kind::Text,
        false => Kind::Word,
    }
}

/// A column by the name above it.
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Stands right, on one line.
    Number,
    /// Stands left, on one line.
    Word,
    /// Stands left and is broken where there is no room.
    Text,
}

/// A row of cells in HTML.
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) best: bool,
}

/// The table itself; every row has a cell for each column.
pub(super) fn grid(columns: &[Column], rows: impl Iterator<Item = Row>) -> String {
    // The attribute stays where styles are taken away.
    let side = |kind: Kind| if kind == Kind::Number { "right" } else { "left" };
    let mut out = "<div style=\"overflow-x:auto\"><table style=\"border-collapse:collapse;border:0;margin:6px 0;\
                   font-size:13px;font-variant-numeric:tabular-nums\">\n"
        .to_owned();
    if columns.iter().any(|column| !column.name.is_empty()) {
        out += "<thead><tr style=\"background:none\">";
        for Column { name, kind } in columns {
            let side = side(*kind);
            let room = if *kind == Kind::Text { ";min-width:12em" } else { "" };
            out += &format!(
                "<th scope=\"col\" align=\"{side}\" style=\"{CELL};padding-bottom:3px;text-align:{side};font-weight:600;\
                 border-bottom:1.5px solid {HAIRLINE}{room}\">{}</th>",
                lines(name)
            );
        }
        out += "</tr></thead>\n";
    }
    out += "<tbody>\n";
    for row in rows {
        out += "<tr style=\"background:none;vertical-align:top\">";
        for (cell, column) in row.cells.iter().zip(columns) {
            let side = side(column.kind);
            let breaks = if column.kind == Kind::Text { "" } else { ";white-space:nowrap" };
            let (color, cell) = match row.best {
                true if !cell.is_empty() => (format!(";color:{}", best()), format!("<b>{cell}</b>")),
                _ => (String::new(), cell.clone()),
            };
            out += &format!("<td align=\"{side}\" style=\"{CELL};text-align:{side}{breaks}{color}\">{cell}</td>");
        }
        out += "</tr>\n";
    }
    out + "</tbody></table></div>\n"
}
