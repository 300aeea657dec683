//! A table without boxes: a rule below its header, numbers to the right, the best row bold, coloured and named.

use super::{HAIRLINE, best, heading, lines, muted};
use crate::event::Table;
use crate::render::table::Texts;

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
        out += &grid(&texts.header, &texts.right, rows);
    }
    if !sheet.note.is_empty() {
        out += &muted(&sheet.note);
    }
    out
}

/// A row of cells in HTML.
pub(super) struct Row {
    pub(super) cells: Vec<String>,
    pub(super) best: bool,
}

/// The table itself. `right` tells which columns hold numbers.
pub(super) fn grid(header: &[String], right: &[bool], rows: impl Iterator<Item = Row>) -> String {
    // The attribute stays where styles are taken away.
    let side = |column: usize| if right.get(column) == Some(&true) { "right" } else { "left" };
    let wraps = |column: usize| if right.get(column) == Some(&true) { ";white-space:nowrap" } else { "" };
    let mut out = "<table style=\"border-collapse:collapse;border:0;margin:6px 0;font-size:13px;\
                   font-variant-numeric:tabular-nums\">\n"
        .to_owned();
    if header.iter().any(|name| !name.is_empty()) {
        out += "<thead><tr style=\"background:none\">";
        for (column, name) in header.iter().enumerate() {
            let side = side(column);
            out += &format!(
                "<th scope=\"col\" align=\"{side}\" style=\"{CELL};padding-bottom:3px;text-align:{side};font-weight:600;\
                 border-bottom:1.5px solid {HAIRLINE}\">{}</th>",
                lines(name)
            );
        }
        out += "</tr></thead>\n";
    }
    out += "<tbody>\n";
    for row in rows {
        out += "<tr style=\"background:none;vertical-align:top\">";
        for (column, cell) in row.cells.iter().enumerate() {
            let (side, wraps) = (side(column), wraps(column));
            let (color, cell) = match row.best {
                true if !cell.is_empty() => (format!(";color:{}", best()), format!("<b>{cell}</b>")),
                _ => (String::new(), cell.clone()),
            };
            out += &format!("<td align=\"{side}\" style=\"{CELL};text-align:{side}{wraps}{color}\">{cell}</td>");
        }
        out += "</tr>\n";
    }
    out + "</tbody></table>\n"
}
