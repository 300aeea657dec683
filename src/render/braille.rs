//! A chart for terminals: braille dots, two across and four upwards in each character.

use super::ansi::{self, Ink};
use super::chart::{Line, Plot, push_apart};
use crate::event::{Chart, Style};

/// Names at the line ends are cut to this many columns.
const LONGEST_NAME: usize = 28;

/// A chart of `width` columns and `height` rows of dots, with one more row for the y axis' name and two for the x axis,
/// ended by a line break. It is never drawn smaller than 24 × 4.
///
/// Evaluations are marked `•`. With colours the raw values stand dim behind the smoothed line; without, they would hide
/// it and are left out if there is such a line.
#[must_use]
pub fn braille(chart: &Chart, width: usize, height: usize, ink: Ink) -> String {
    let (width, height) = (width.max(24), height.max(4));
    let mut chart = chart.clone();
    if !ink.is_color() && chart.series.iter().any(|series| series.style == Style::Bold && !series.points.is_empty()) {
        chart.series.retain(|series| series.style != Style::Faint);
    }
    let plot = Plot::new(&chart, width / 14, height / 2);
    let names: Vec<String> =
        plot.names().map(|(line, _)| ansi::shorten(&line.name, LONGEST_NAME.min(width / 3))).collect();
    let ticks = plot.y.ticks.iter().map(|t| ansi::width(&t.1)).max().unwrap_or(0);
    let left = ticks + 2;
    let longest = names.iter().map(|name| ansi::width(name)).max().unwrap_or(0);
    let room = if longest == 0 { 0.0 } else { plot.margin(width as f64, left as f64, longest as f64 + 2.0) };
    // Half of a wide last number stands beyond the end of the axis, before its name.
    let beside = (room.ceil() as usize).max(ansi::width(chart.x) + 6);
    let columns = width.saturating_sub(left + beside).max(8);

    let mut grid = Grid::new(columns, height);
    for style in [Style::Faint, Style::Bars, Style::Bold, Style::Marked, Style::Points, Style::Dots, Style::Best] {
        for line in plot.lines.iter().filter(|line| line.style == style) {
            grid.line(line, &plot);
        }
    }

    let row_of = |share: f64| (1.0 - share) * (height - 1) as f64;
    let mut tick_rows = vec![String::new(); height];
    for (value, text) in &plot.y.ticks {
        tick_rows[row_of(plot.y.place(*value)).round() as usize].clone_from(text);
    }
    // Names follow the end of the data, one row each.
    let end = ((plot.end() * columns as f64).ceil() as usize).min(columns) + 1;
    let wanted: Vec<f64> = plot.names().map(|(_, share)| row_of(share)).collect();
    let mut name_rows: Vec<Option<(usize, &str)>> = vec![None; height];
    let rows = push_apart(&wanted, 1.0, 0.0, (height - 1) as f64);
    for (((line, _), name), row) in plot.names().zip(&names).zip(rows) {
        let row = row.round() as usize;
        let free = (0..height).filter(|&r| name_rows[r].is_none()).min_by_key(|r| r.abs_diff(row));
        if let Some(free) = free {
            name_rows[free] = Some((line.color, name));
        }
    }

    let mut out = format!("{}\n", ink.dim(chart.y)).trim_start_matches('\n').to_owned();
    for row in 0..height {
        let tick = format!("{:>ticks$}  ", tick_rows[row]);
        let line = match name_rows[row] {
            Some((color, name)) => grid.row(row, end, ink) + &ink.nth(color, name),
            None => grid.row(row, 0, ink),
        };
        out += (ink.dim(tick.trim_end()) + &tick[tick.trim_end().len()..] + &line).trim_end();
        out.push('\n');
    }
    out + &x_axis(&plot, chart.x, left, columns, ink)
}

/// The line below the dots with its ticks, and the row of their numbers.
fn x_axis(plot: &Plot, name: &str, left: usize, columns: usize, ink: Ink) -> String {
    let mut rule = vec!['─'; columns];
    let mut numbers = String::new();
    let mut used = 0;
    for (value, text) in &plot.x.ticks {
        let at = (plot.x.place(*value) * (columns - 1) as f64).round() as usize;
        rule[at] = '┬';
        let start = (left + at).saturating_sub(ansi::width(text) / 2);
        if start >= used && (used == 0 || start > used) {
            numbers += &" ".repeat(start - used);
            numbers += text;
            used = start + ansi::width(text);
        }
    }
    if !name.is_empty() {
        numbers += &format!("  {name}");
    }
    let rule: String = rule.into_iter().collect();
    format!("{}{}\n{}\n", " ".repeat(left), ink.dim(&rule), ink.dim(&numbers))
}

/// Characters of dots with the line that has drawn on each last.
struct Grid {
    columns: usize,
    rows: usize,
    cells: Vec<Dots>,
}

#[derive(Clone, Copy, Default)]
struct Dots {
    /// Braille's bits, as in the code points from U+2800.
    bits: u8,
    mark: Option<char>,
    faint: bool,
    color: usize,
}

impl Grid {
    fn new(columns: usize, rows: usize) -> Self {
        Self { columns, rows, cells: vec![Dots::default(); columns * rows] }
    }

    fn line(&mut self, line: &Line, plot: &Plot) {
        let (wide, high) = (2 * self.columns - 1, 4 * self.rows - 1);
        let at = |&(x, y): &(f64, f64)| {
            let (x, y) = (plot.x.place(x) * wide as f64, (1.0 - plot.y.place(y)) * high as f64);
            (x.round() as i64, y.round() as i64)
        };
        let points: Vec<(i64, i64)> = line.points.iter().map(at).collect();
        if let [only] = points[..] {
            self.dot(only, line);
        }
        let pairs: Vec<_> = match line.style {
            Style::Dots | Style::Best => Vec::new(),
            Style::Bars => points.chunks_exact(2).collect(),
            _ => points.windows(2).collect(),
        };
        for pair in pairs {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            let steps = (x1 - x0).abs().max((y1 - y0).abs()).max(1);
            for step in 0..=steps {
                let along = |a: i64, b: i64| a + ((b - a) as f64 * step as f64 / steps as f64).round() as i64;
                let dot = (along(x0, x1), along(y0, y1));
                // Marked lines are dotted: every third column.
                if line.style != Style::Marked || dot.0 % 3 == 0 {
                    self.dot(dot, line);
                }
            }
        }
        let mark = match line.style {
            Style::Marked | Style::Dots => '•',
            Style::Points => '◦',
            Style::Best => '◆',
            Style::Faint | Style::Bold | Style::Bars => return,
        };
        if points.len() <= self.columns {
            for (x, y) in points {
                self.cells[(y / 4) as usize * self.columns + (x / 2) as usize].mark = Some(mark);
                self.dot((x, y), line);
            }
        }
    }

    /// Sets a dot. A line takes characters over from faint ones; otherwise dots add up.
    fn dot(&mut self, (x, y): (i64, i64), line: &Line) {
        const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
        let cell = &mut self.cells[(y / 4) as usize * self.columns + (x / 2) as usize];
        let faint = line.style == Style::Faint;
        if cell.faint && !faint {
            cell.bits = 0;
        }
        cell.bits |= BITS[(y % 4) as usize][(x % 2) as usize];
        cell.faint = faint;
        cell.color = line.color;
    }

    /// A row of characters, filled up with blanks to `least` columns, in runs of one colour.
    fn row(&self, row: usize, least: usize, ink: Ink) -> String {
        let cells = &self.cells[row * self.columns..(row + 1) * self.columns];
        let used = cells.iter().rposition(|cell| cell.bits != 0).map_or(0, |last| last + 1);
        let look = |cell: &Dots| (cell.bits != 0).then_some((cell.faint, cell.color));
        let mut out = String::new();
        for run in cells[..used].chunk_by(|a, b| look(a) == look(b)) {
            let text: String = run.iter().map(Dots::character).collect();
            out += &match look(&run[0]) {
                None => text,
                Some((true, _)) => ink.dim(&text),
                Some((false, color)) => ink.nth(color, &text),
            };
        }
        out + &" ".repeat(least.saturating_sub(used))
    }
}

impl Dots {
    fn character(&self) -> char {
        match (self.mark, self.bits) {
            (Some(mark), _) => mark,
            (None, 0) => ' ',
            (None, bits) => char::from_u32(0x2800 + u32::from(bits)).unwrap_or(' '),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Series;

    fn chart(points: &[(f64, f64)], style: Style) -> Chart {
        let series = vec![Series { name: "train 1.00".into(), points: points.to_vec(), style }];
        Chart { x: "step", y: "loss", series, ..Chart::default() }
    }

    #[test]
    fn a_straight_line_is_a_straight_line() {
        let text = braille(&chart(&[(0.0, 4.0), (10.0, 0.0)], Style::Bold), 40, 4, Ink::PLAIN);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0], "loss");
        assert_eq!(rows.len(), 1 + 4 + 2);
        assert!(rows[4].ends_with("train 1.00"), "{text}");
        assert!(text.lines().all(|line| ansi::width(line) <= 40), "{text}");
    }

    #[test]
    fn no_odd_data_and_no_size_panics() {
        let odd =
            [vec![], vec![(1.0, 1.0)], vec![(1.0, f64::NAN), (2.0, f64::INFINITY)], vec![(0.0, 1e29), (1.0, -1e29)]];
        for points in odd {
            for (width, height) in [(0, 0), (24, 4), (60, 10), (300, 50)] {
                for ink in [Ink::PLAIN, Ink::COLOR] {
                    let text = braille(&chart(&points, Style::Marked), width, height, ink);
                    assert_eq!(text.lines().count(), height.max(4) + 3);
                }
            }
        }
    }

    #[test]
    fn every_line_keeps_its_name_as_long_as_there_are_rows() {
        let mut many = chart(&[(0.0, 1.0), (1.0, 1.0)], Style::Bold);
        many.series = (0..6).map(|i| Series { name: format!("line {i}"), ..many.series[0].clone() }).collect();
        let text = braille(&many, 60, 8, Ink::PLAIN);
        assert!((0..6).all(|i| text.contains(&format!("line {i}"))), "{text}");
        let crowded = braille(&many, 60, 4, Ink::PLAIN);
        assert_eq!(crowded.matches("line ").count(), 4, "{crowded}");
    }

    #[test]
    fn raw_values_are_dim_or_absent() {
        let mut both = chart(&[(0.0, 0.0), (1.0, 1.0)], Style::Bold);
        both.series.push(Series { name: String::new(), points: vec![(0.0, 1.0), (1.0, 0.0)], style: Style::Faint });
        let plain = braille(&both, 40, 5, Ink::PLAIN);
        both.series.truncate(1);
        assert_eq!(plain, braille(&both, 40, 5, Ink::PLAIN));
        both.series[0].style = Style::Faint;
        assert!(braille(&both, 40, 5, Ink::PLAIN).contains('⡠'), "{}", braille(&both, 40, 5, Ink::PLAIN));
    }
}
