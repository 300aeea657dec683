//! A heat map as text, and as a picture.

mod picture;

use super::ansi::{self, Ink};
use super::{number, shade, table};
use crate::event::{Heat, HeatScale};

/// Between two columns.
const GAP: &str = " ";

/// A heat map in at most `width` columns as far as they hold it, ended by a line break: a heading, names above, a line for
/// each row, what the shades mean.
///
/// Numbers stand on grounds of their shade, without colour behind a character as dense; where they have no room the shade
/// stands alone.
#[must_use]
pub(super) fn heat(map: &Heat, width: usize, ink: Ink) -> String {
    let mut out = String::new();
    if !map.title.is_empty() {
        out += &(ink.bold(&ansi::wrap(&ansi::clean(&map.title), width)) + "\n");
    }
    if map.rows.is_empty() || map.columns.is_empty() {
        return out + "no numbers\n" + &table::dim_lines(&ansi::wrap(&map.note, width), ink);
    }
    let names: Vec<String> = map.rows.iter().map(|name| ansi::fit(name, width / 3)).collect();
    let left = names.iter().map(|name| ansi::width(name)).fold(ansi::width(map.row), usize::max);
    let each = width.saturating_sub(left) / map.columns.len();
    let longest = map.values.iter().flatten().map(|&x| ansi::width(&number(map, x))).fold(0, usize::max);
    // A shade's character before the number, and the room between.
    let numbers = longest + 1 + GAP.len() <= each;
    let names_fit = map.columns.iter().map(|name| ansi::width(name)).fold(0, usize::max).max(longest + 1);
    let cell = if numbers { names_fit.min(each - GAP.len()) } else { each.saturating_sub(GAP.len()).clamp(1, 2) };
    let gap = if each > cell { GAP } else { "" };

    let heading = format!("{:>left$}", map.row) + &header(map, cell, gap);
    out += &(ink.bold(heading.trim_end()) + "\n");
    for (name, values) in names.iter().zip(&map.values) {
        let mut line = " ".repeat(left - ansi::width(name)) + name;
        for &value in values {
            line += gap;
            line += &field(map, value, cell, numbers, ink);
        }
        out += line.trim_end();
        out += "\n";
    }
    let legend = legend(map, ink);
    out += &(ansi::wrap(&legend, width.max(legend.len() * usize::from(ink.is_color()))) + "\n");
    if !map.note.is_empty() {
        out += &table::dim_lines(&ansi::wrap(&ansi::clean(&map.note), width), ink);
    }
    out
}

/// The columns' names, or as many as have room.
fn header(map: &Heat, cell: usize, gap: &str) -> String {
    let step = cell + gap.len();
    let widest = map.columns.iter().map(|name| ansi::width(name) + 1).fold(1, usize::max);
    // Names that would be cut in every column stand above every so manieth, unless that leaves none but the first.
    let every = if widest <= step || cell >= 5 { 1 } else { widest.div_ceil(step) };
    let room = step * every - gap.len().max(1).min(step * every);
    let mut out = String::new();
    for name in map.columns.iter().step_by(every) {
        let name = ansi::fit(name, room.max(1));
        let pad = " ".repeat((step * every).saturating_sub(gap.len() + ansi::width(&name)));
        // Above numbers, which stand right, names do; above bare shades they begin where the shade does.
        out += &if every == 1 { format!("{gap}{pad}{name}") } else { format!("{gap}{name}{pad}") };
    }
    out
}

fn field(map: &Heat, value: f64, cell: usize, numbers: bool, ink: Ink) -> String {
    let Some(strength) = map.shade(value) else { return format!("{:>cell$}", "·") };
    if !numbers {
        let text = if ink.is_color() { " " } else { &shade::character(strength).to_string() };
        return shade::paint(strength, &text.repeat(cell), ink);
    }
    let text = number(map, value);
    let sign = if ink.is_color() { ' ' } else { shade::character(strength) };
    let pad = " ".repeat(cell.saturating_sub(ansi::width(&text) + 1));
    shade::paint(strength, &format!("{pad}{sign}{text}"), ink)
}

/// A number as it is written.
pub(super) fn number(map: &Heat, value: f64) -> String {
    if value.is_finite() { number::cell(&(map.cell)(value)) } else { String::new() }
}

/// What the strongest shades stand for.
fn legend(map: &Heat, ink: Ink) -> String {
    let (low, high) = map.range();
    let sample = |strength: f64, value: f64| {
        let text = number(map, value);
        let mark = shade::character(strength);
        if ink.is_color() { shade::paint(strength, &format!(" {text} "), ink) } else { format!("{mark} {text}") }
    };
    match map.scale {
        HeatScale::Amount => format!("{} to {}", sample(0.0, low).trim_start(), sample(1.0, high)),
        HeatScale::Signed => {
            let most = high.abs().max(low.abs());
            format!("{} to {}", sample(-1.0, -most), sample(1.0, most))
        }
    }
}

/// The heat map in words: its size, its lowest and its highest number and where they stand.
pub(super) fn describe(map: &Heat) -> String {
    let place = |wanted: f64| {
        let at = map.values.iter().enumerate().find_map(|(r, row)| Some((r, row.iter().position(|&x| x == wanted)?)));
        let (row, column) = at?;
        Some(format!("{} at {} {}, {}", number(map, wanted), map.row, map.rows.get(row)?, map.columns.get(column)?))
    };
    let (low, high) = map.range();
    let size = format!("{} rows by {} columns.", map.rows.len(), map.columns.len());
    match (place(low), place(high)) {
        (Some(low), Some(high)) => format!("{size} Lowest {low}; highest {high}."),
        _ => size,
    }
}

#[cfg(test)]
mod tests;
