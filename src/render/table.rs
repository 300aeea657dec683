//! Tables without boxes: a bold title, a header with a thin rule below, numbers to the right, the best row marked.

use comfy_table::{CellAlignment, ColumnConstraint, Row, Table as Sheet, Width, presets};

use super::ansi::{self, Ink};
use super::number;
use crate::event::{Cell, Table};

/// Blank columns between two columns of a table.
const GAP: usize = 2;
/// A column of text is never made narrower than this.
const NARROWEST: usize = 12;
/// A cell shows at most this many lines, the last with `…` if there are more.
const MOST_LINES: usize = 8;

/// A table as lines of at most `width` columns, ended by a line break.
///
/// Long text and the names above numbers wrap; numbers never do. If even so there is no room for the columns, each row is
/// written out with the names of its cells. The best row is bold and green, and has
/// `best` at its end unless a cell of it says so already: the mark does not hang on colour.
#[must_use]
pub fn table(table: &Table, width: usize, ink: Ink) -> String {
    let Texts { header, rows, right, best } = Texts::new(table);
    let mut layout = Layout::new(header, &rows, right, width);
    if layout.width > width {
        layout = Layout::written_out(&table.columns, &rows, width);
    }

    let mut out = String::new();
    if !table.title.is_empty() {
        out += &ink.bold(&ansi::wrap(&ansi::clean(&table.title), width));
        out.push('\n');
    }
    out += &layout.header(ink);
    for (index, lines) in layout.rows.iter().enumerate() {
        for line in lines {
            out += &if best == Some(index) { ink.best(line) } else { line.clone() };
            out.push('\n');
        }
    }
    if table.rows.is_empty() {
        out += &ink.dim("no rows");
        out.push('\n');
    }
    if !table.note.is_empty() {
        out += &dim_lines(&ansi::wrap(&ansi::clean(&table.note), width), ink);
    }
    out
}

/// The table without as many of its `spare` columns, from the first on, as must go for the others to stand beside each other in `width`
/// columns.
pub(super) fn within(table: &Table, spare: &[&str], width: usize) -> Table {
    let mut table = table.clone();
    for name in spare {
        let Texts { header, rows, right, .. } = Texts::new(&table);
        if Layout::new(header, &rows, right, width).width <= width {
            break;
        }
        if let Some(at) = table.columns.iter().position(|column| column == name) {
            table.columns.remove(at);
            table.rows.iter_mut().filter(|row| at < row.len()).for_each(|row| drop(row.remove(at)));
        }
    }
    table
}

/// The texts of a table's cells, every row as long as the header.
pub(super) struct Texts {
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
    /// Which columns hold numbers, which stand right.
    pub(super) right: Vec<bool>,
    /// The best row, which has `best` in a column of its own unless a cell of it says so already.
    pub(super) best: Option<usize>,
}

impl Texts {
    pub(super) fn new(table: &Table) -> Self {
        let best = table.best.filter(|&row| row < table.rows.len());
        let columns = table.rows.iter().map(Vec::len).chain([table.columns.len()]).max().unwrap_or(0);
        let says_so = |row: &Vec<Cell>| {
            row.iter().any(|cell| matches!(cell, Cell::Text(t) if t.starts_with("best") || t.starts_with("chosen")))
        };
        let marked = best.filter(|&row| !says_so(&table.rows[row]));
        let mut header: Vec<String> = table.columns.iter().map(|&name| name.to_owned()).collect();
        header.resize(columns + usize::from(marked.is_some()), String::new());
        let rows = table.rows.iter().enumerate().map(|(index, row)| {
            let mut texts: Vec<String> = row.iter().map(number::cell).collect();
            texts.resize(columns, String::new());
            texts.extend(marked.map(|best| if index == best { "best".to_owned() } else { String::new() }));
            texts
        });
        let is_right = |c| table.rows.iter().any(|row| row.get(c).is_some_and(number::is_numeric));
        Self { rows: rows.collect(), right: (0..header.len()).map(is_right).collect(), header, best }
    }
}

/// Dims every line by itself, so that a pager or a scroll never leaves the colour on.
pub(super) fn dim_lines(text: &str, ink: Ink) -> String {
    text.lines().map(|line| ink.dim(line) + "\n").collect()
}

/// A table's lines before they are coloured.
pub(super) struct Layout {
    header: Vec<String>,
    /// The lines of each row.
    pub(super) rows: Vec<Vec<String>>,
    width: usize,
}

impl Layout {
    /// Lays out texts in columns; `right` tells which stand right. Rows must be as long as the header.
    pub(super) fn new(header: Vec<String>, rows: &[Vec<String>], right: Vec<bool>, width: usize) -> Self {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|text| ansi::clean(text)).collect()).collect();
        let widths = column_widths(&header, &rows, &right, width);
        let lines = |texts: &[String]| {
            let mut sheet = Sheet::new();
            let mut row = Row::from(texts);
            row.max_height(MOST_LINES);
            sheet.load_style(presets::NOTHING).force_no_tty().add_row(row);
            for (index, column) in sheet.column_iter_mut().enumerate() {
                // comfy-table counts the padding into a column's width.
                let gap = if index + 1 == widths.len() { 0 } else { GAP };
                column.set_padding((0, gap as u16));
                column.set_constraint(ColumnConstraint::Absolute(Width::Fixed((widths[index] + gap) as u16)));
                column.set_cell_alignment(if right[index] { CellAlignment::Right } else { CellAlignment::Left });
            }
            sheet.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
        };
        let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        Self { header: lines(&header), rows: rows.iter().map(|row| lines(row)).collect(), width: total }
    }

    /// Each row as `rank 16 · alpha 32 · held out 1.352`, continued lines indented; empty cells are left out.
    fn written_out(header: &[&str], rows: &[Vec<String>], width: usize) -> Self {
        let lines = |texts: &Vec<String>| {
            let named = texts.iter().enumerate().filter(|(_, text)| !text.is_empty());
            let pieces = named.map(|(c, text)| {
                let text = ansi::clean(text).replace('\n', " ");
                header.get(c).filter(|name| !name.is_empty()).map_or(text.clone(), |name| format!("{name} {text}"))
            });
            let joined = ansi::wrap(&ansi::join_wrapped(pieces, " · ", "", "  ", width), width);
            joined.lines().map(str::to_owned).collect()
        };
        Self { header: Vec::new(), rows: rows.iter().map(lines).collect(), width }
    }

    /// The header and the rule below it; nothing if there are no columns.
    pub(super) fn header(&self, ink: Ink) -> String {
        if self.header.iter().all(String::is_empty) {
            return String::new();
        }
        let names: String = self.header.iter().map(|line| ink.bold(line) + "\n").collect();
        names + &ink.dim(&"─".repeat(self.width)) + "\n"
    }
}

/// How wide each column is: as wide as its content, except that the widest columns give way until the line fits: of text
/// down to [`NARROWEST`], of numbers down to the longest number and the longest word above.
fn column_widths(header: &[String], rows: &[Vec<String>], right: &[bool], width: usize) -> Vec<usize> {
    let most = usize::from(u16::MAX / 2);
    let in_rows = |c: usize| {
        let texts = rows.iter().filter_map(|row| row.get(c));
        texts.flat_map(|text| text.lines()).map(ansi::width).max().unwrap_or(0).clamp(1, most)
    };
    let above = |c: usize| header[c].split(' ').map(ansi::width).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..header.len()).map(|c| in_rows(c).max(ansi::width(&header[c]))).collect();
    let least: Vec<usize> = (0..header.len())
        .map(|c| if right[c] { in_rows(c).max(above(c)) } else { widths[c].min(NARROWEST).max(above(c)) })
        .collect();
    let gaps = GAP * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let yielding = (0..widths.len()).filter(|&c| widths[c] > least[c]).max_by_key(|&c| widths[c]);
        match yielding {
            Some(c) => widths[c] -= 1,
            None => break,
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep() -> Table {
        Table {
            title: "rank sweep".into(),
            columns: vec!["rank", "held out", "to best", "remark"],
            rows: vec![
                vec![Cell::Count(8), Cell::Number(1.385, 3), Cell::Signed(0.033, 3), "".into()],
                vec![Cell::Count(16), Cell::Number(1.352, 3), Cell::Empty, "the smallest within noise".into()],
                vec![Cell::Count(1024), Cell::Number(f64::NAN, 3), Cell::Signed(-0.003, 3), "日本語".into()],
            ],
            best: Some(1),
            note: "two seeds".into(),
        }
    }

    #[test]
    fn numbers_stand_right_and_the_best_row_is_named() {
        let expected = "\
rank sweep
 rank  held out  to best  remark
─────────────────────────────────────────────────────────
    8     1.385   +0.033
   16     1.352           the smallest within noise  best
1,024       NaN   −0.003  日本語
two seeds
";
        assert_eq!(table(&sweep(), 100, Ink::PLAIN), expected);
    }

    #[test]
    fn a_row_that_says_it_is_the_best_gets_no_second_mark() {
        let mut chosen = sweep();
        chosen.rows[1][2] = "chosen".into();
        let text = table(&chosen, 100, Ink::PLAIN);
        assert!(text.contains("chosen") && !text.contains("  best\n"), "{text}");
    }

    #[test]
    fn colour_marks_title_rule_best_row_and_note_alone() {
        let text = table(&sweep(), 100, Ink::COLOR);
        assert!(text.starts_with("\u{1b}[1mrank sweep\u{1b}[0m\n"));
        assert!(text.contains("\u{1b}[1;32m   16     1.352"));
        assert!(text.ends_with("\u{1b}[2mtwo seeds\u{1b}[0m\n"));
        let stripped = ["1", "2", "1;32", "0"].iter().fold(text, |t, code| t.replace(&format!("\u{1b}[{code}m"), ""));
        assert_eq!(stripped, table(&sweep(), 100, Ink::PLAIN));
    }

    #[test]
    fn long_text_wraps_and_numbers_do_not() {
        let text = table(&sweep(), 48, Ink::PLAIN);
        assert!(text.lines().all(|line| ansi::width(line) <= 48), "{text}");
        assert!(text.contains("   16     1.352           the smallest"), "{text}");
        let names = table(&sweep(), 42, Ink::PLAIN);
        assert!(names.contains(" rank     held      to  remark\n"), "{names}");
    }

    #[test]
    fn rows_without_room_for_columns_are_written_out() {
        let text = table(&sweep(), 30, Ink::PLAIN);
        let row = "rank 16 · held out 1.352\n  remark the smallest within\n  noise\n  best\n";
        assert!(text.contains(row), "{text}");
        assert!(text.lines().all(|line| ansi::width(line) <= 30), "{text}");
        assert!(table(&sweep(), 1, Ink::PLAIN).contains("1,024"));
    }

    #[test]
    fn spare_columns_go_before_rows_are_written_out() {
        let columns = |width| within(&sweep(), &["to best", "remark"], width).columns;
        assert_eq!(columns(60), ["rank", "held out", "to best", "remark"]);
        // The remark can wrap.
        assert_eq!(columns(42).len(), 4);
        assert_eq!(columns(32), ["rank", "held out", "remark"]);
        assert_eq!(columns(20), ["rank", "held out"]);
        assert_eq!(within(&sweep(), &["none"], 1).columns.len(), 4);
        let ragged = Table { columns: vec!["a", "b"], rows: vec![vec![], vec!["x".into(), "y".into()]], ..sweep() };
        assert_eq!(within(&ragged, &["b"], 1).rows, [vec![], vec!["x".into()]]);
    }

    #[test]
    fn very_long_cells_are_cut() {
        let long = Table { columns: vec!["text"], rows: vec![vec!["word ".repeat(500).into()]], ..Table::default() };
        let text = table(&long, 40, Ink::PLAIN);
        assert_eq!(text.lines().count(), 2 + MOST_LINES);
        assert!(text.trim_end().ends_with('…'), "{text}");
    }

    #[test]
    fn ragged_and_empty_tables_are_shown() {
        let ragged = Table {
            columns: vec!["a", "b"],
            rows: vec![vec![], vec![Cell::Count(1)], vec!["x".into(), "y".into(), "z".into()]],
            best: Some(9),
            ..Table::default()
        };
        assert_eq!(table(&ragged, 60, Ink::PLAIN), "a  b\n───────\n\n1\nx  y  z\n");
        assert_eq!(table(&Table::default(), 60, Ink::PLAIN), "no rows\n");
        let headed = Table { title: "runs".into(), columns: vec!["run"], ..Table::default() };
        assert_eq!(table(&headed, 60, Ink::PLAIN), "runs\nrun\n───\nno rows\n");
    }

    #[test]
    fn cells_cannot_steer_the_terminal() {
        let hostile = Table { columns: vec!["a"], rows: vec![vec!["\u{1b}[2Jx".into()]], ..Table::default() };
        assert!(!table(&hostile, 60, Ink::PLAIN).contains('\u{1b}'));
    }
}
