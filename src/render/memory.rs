//! A memory breakdown: the sum in a sentence, a stacked bar, a table that explains each part.

use super::ansi::{self, Ink};
use super::number::{cell, short_bytes, signed};
use super::table::Layout;
use crate::event::{Cell, MemoryReport, units};

/// The bar is never longer than this.
const LONGEST_BAR: usize = 76;

/// A memory breakdown as text of at most `width` columns, ended by a line break.
///
/// With colours the bar consists of blocks in the colour of the square before each part; without, of the part's letter.
#[must_use]
pub fn memory(report: &MemoryReport, width: usize, ink: Ink) -> String {
    let mut out = ink.bold(&ansi::wrap(&heading(report), width)) + "\n";
    let counted = counted(report);
    let sizes: Vec<u64> = report.parts.iter().map(|part| part.bytes).collect();
    if counted > 0 {
        let cells = stack(&sizes, width.clamp(8, LONGEST_BAR));
        let bar = cells.iter().enumerate().map(|(index, &n)| ink.nth(index, &key(index, ink).repeat(n)));
        out += &(bar.collect::<String>() + "\n");
    }
    let rows = report.parts.iter().enumerate().map(|(index, part)| {
        let share = if counted > 0 { cell(&Cell::Share(part.bytes as f64 / counted as f64)) } else { String::new() };
        vec![key(index, ink), part.name.clone(), megabytes(part.bytes), share, part.why.clone()]
    });
    let header = ["", "part", "MB", "share", "why"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = rows.collect();
    let layout = Layout::new(header, &rows, vec![false, false, true, true, false], width);
    out += &layout.header(ink);
    for (index, lines) in layout.rows.iter().enumerate() {
        for line in lines {
            out += &match line.strip_prefix(&key(index, ink)) {
                Some(rest) => ink.nth(index, &key(index, ink)) + rest,
                None => line.clone(),
            };
            out.push('\n');
        }
    }
    out
}

/// `memory · 483 MB held, peak 512 MB, counted 476 MB (−1.4 %)`.
pub(super) fn heading(report: &MemoryReport) -> String {
    let held = report.resident_bytes + report.device_bytes;
    if report.planned {
        return format!("plan · {} at the peak", short_bytes(counted(report)));
    }
    let mut out = format!("memory · {} held", short_bytes(report.resident_bytes));
    if report.device_bytes > 0 {
        out += &format!(" and {} on the device", short_bytes(report.device_bytes));
    }
    if report.peak_bytes > 0 {
        out += &format!(", peak {}", short_bytes(report.peak_bytes));
    }
    let counted = counted(report);
    if !report.parts.is_empty() {
        out += &format!(", counted {}", short_bytes(counted));
        if held > 0 {
            let off = (counted as f64 - held as f64) / held as f64 * 100.0;
            out += &format!(" ({} %)", signed(off, 1));
        }
    }
    out
}

pub(super) fn counted(report: &MemoryReport) -> u64 {
    report.parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes))
}

/// What stands for a part in the bar and before its row.
fn key(index: usize, ink: Ink) -> String {
    if ink.is_color() {
        return "█".to_owned();
    }
    char::from(b'A' + (index % 26) as u8).to_string()
}

/// Bytes as a bare number of megabytes with one digit after the point.
pub(super) fn megabytes(bytes: u64) -> String {
    match bytes {
        1..50_000 => "<0.1".to_owned(),
        _ => {
            let tenths = bytes.saturating_add(50_000) / 100_000;
            format!("{}.{}", units::count(tenths / 10), tenths % 10)
        }
    }
}

/// How many of `columns` each part takes: by its share, at least one if it is not zero and there is room.
fn stack(sizes: &[u64], columns: usize) -> Vec<usize> {
    let total = sizes.iter().map(|&s| s as f64).sum::<f64>();
    if total <= 0.0 {
        return vec![0; sizes.len()];
    }
    let exact = |s: u64| s as f64 / total * columns as f64;
    let mut cells: Vec<usize> = sizes.iter().map(|&s| (exact(s) as usize).max(usize::from(s > 0))).collect();
    let error = |cells: &[usize], i: usize| cells[i] as f64 - exact(sizes[i]);
    while cells.iter().sum::<usize>() > columns {
        // Takes from whoever has most beyond its share, and a part's only cell last.
        let order = |&a: &usize, &b: &usize| {
            (cells[a] > 1).cmp(&(cells[b] > 1)).then(error(&cells, a).total_cmp(&error(&cells, b)))
        };
        match (0..cells.len()).filter(|&i| cells[i] > 0).max_by(order) {
            Some(i) => cells[i] -= 1,
            None => break,
        }
    }
    while cells.iter().sum::<usize>() < columns {
        let least = (0..cells.len()).min_by(|&a, &b| error(&cells, a).total_cmp(&error(&cells, b)));
        match least {
            Some(i) => cells[i] += 1,
            None => break,
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::MemoryPart;

    #[test]
    fn the_bar_is_filled_and_every_part_is_seen() {
        assert_eq!(stack(&[1, 1, 2], 8), [2, 2, 4]);
        assert_eq!(stack(&[1_000_000, 1, 1], 10), [8, 1, 1]);
        assert_eq!(stack(&[0, 5], 4), [0, 4]);
        assert_eq!(stack(&[1; 20], 8).iter().sum::<usize>(), 8);
        assert_eq!(stack(&[0, 0], 4), [0, 0]);
        assert!(stack(&[], 4).is_empty());
        assert_eq!(stack(&[u64::MAX, u64::MAX], 4), [2, 2]);
    }

    #[test]
    fn megabytes_never_hide_that_there_is_something() {
        assert_eq!(megabytes(0), "0.0");
        assert_eq!(megabytes(1), "<0.1");
        assert_eq!(megabytes(50_000), "0.1");
        assert_eq!(megabytes(1_234_560_000), "1,234.6");
        assert!(!megabytes(u64::MAX).is_empty());
    }

    #[test]
    fn headings_say_what_is_known() {
        let part = |bytes| MemoryPart { name: "weights".into(), bytes, why: String::new() };
        let mut report = MemoryReport { resident_bytes: 483_000_000, ..MemoryReport::default() };
        assert_eq!(heading(&report), "memory · 483 MB held");
        report.peak_bytes = 512_000_000;
        report.parts = vec![part(470_000_000), part(6_238_000)];
        assert_eq!(heading(&report), "memory · 483 MB held, peak 512 MB, counted 476 MB (−1.4 %)");
        report.device_bytes = 1_200_000_000;
        assert!(heading(&report).contains(" and 1.20 GB on the device, "));
        assert_eq!(memory(&MemoryReport::default(), 60, Ink::PLAIN).lines().next(), Some("memory · 0 B held"));
    }
}
