//! A heat map on a page.

use super::{describe, number};
use crate::event::{Heat, HeatScale};
use crate::render::font::text_width;
use crate::render::picture::{Anchor, Color, Paint, Pen, Pictured, WIDTH, Words};

/// Pixels of a row, of what stands above the rows, and of what stands below.
const ROW: u32 = 17;
const ABOVE: u32 = 24;
const TITLE: u32 = 24;
const BELOW: u32 = 30;

/// The widest a cell becomes.
const WIDEST: f64 = 84.0;

/// Letters in cells and beside them.
const SMALL: f64 = 10.5;

/// How opaque the strongest shade is: letters are read on it.
const STRONGEST: f64 = 0.6;

impl Pictured for Heat {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn describe(&self) -> String {
        describe(self)
    }

    fn is_empty(&self) -> bool {
        self.values.iter().all(Vec::is_empty)
    }

    fn height(&self) -> u32 {
        let title = if self.title.is_empty() { 0 } else { TITLE };
        title + ABOVE + ROW * self.rows.len() as u32 + BELOW
    }

    fn draw<P: Pen>(&self, pen: &mut P, _: usize) -> Result<(), P::Error> {
        let mut top = 0.0;
        if !self.title.is_empty() {
            let title = crate::render::ansi::clean(&self.title);
            put(pen, &title, (4.0, 12.0), (13.0, true), Anchor::Left, 1.0)?;
            top += f64::from(TITLE);
        }
        let names = self.rows.iter().map(|name| text_width(name, SMALL)).fold(text_width(self.row, SMALL), f64::max);
        let left = (names + 12.0).min(f64::from(WIDTH) / 3.0);
        let wide = ((f64::from(WIDTH) - left - 6.0) / self.columns.len().max(1) as f64).min(WIDEST);
        let middle = |column: usize| left + wide * (column as f64 + 0.5);
        put(pen, self.row, (left - 6.0, top + 12.0), (SMALL, true), Anchor::Right, 0.75)?;
        let widest = self.columns.iter().map(|name| text_width(name, SMALL) + 6.0).fold(1.0, f64::max);
        for (column, name) in self.columns.iter().enumerate().step_by((widest / wide).ceil().max(1.0) as usize) {
            put(pen, name, (middle(column), top + 12.0), (SMALL, true), Anchor::Middle, 0.75)?;
        }
        top += f64::from(ABOVE);
        let longest = self.values.iter().flatten().map(|&x| text_width(&number(self, x), SMALL)).fold(0.0, f64::max);
        for (row, (name, values)) in self.rows.iter().zip(&self.values).enumerate() {
            let y = top + f64::from(ROW) * (row as f64 + 0.5);
            put(pen, name, (left - 6.0, y), (SMALL, false), Anchor::Right, 0.75)?;
            for (column, &value) in values.iter().enumerate() {
                let x = middle(column);
                fill(pen, (x - wide / 2.0, x + wide / 2.0 - 1.0), y, self.shade(value))?;
                if longest + 4.0 < wide {
                    put(pen, &number(self, value), (x, y), (SMALL, false), Anchor::Middle, 1.0)?;
                }
            }
        }
        let (low, high) = self.range();
        let most = high.abs().max(low.abs());
        let (low, weakest) = if self.scale == HeatScale::Signed { (-most, -1.0) } else { (low, 0.0) };
        let high = if self.scale == HeatScale::Signed { most } else { high };
        let y = top + f64::from(ROW * self.rows.len() as u32) + 17.0;
        let begins = left + text_width(&number(self, low), SMALL) + 6.0;
        put(pen, &number(self, low), (left, y), (SMALL, false), Anchor::Left, 0.75)?;
        for part in 0..12 {
            let x = begins + 10.0 * f64::from(part);
            fill(pen, (x, x + 10.0), y, Some(weakest + (1.0 - weakest) * f64::from(part) / 11.0))?;
        }
        put(pen, &number(self, high), (begins + 126.0, y), (SMALL, false), Anchor::Left, 0.75)
    }
}

/// A cell: a line as thick as a row is high.
fn fill<P: Pen>(pen: &mut P, (from, to): (f64, f64), y: f64, shade: Option<f64>) -> Result<(), P::Error> {
    let Some(shade) = shade.filter(|s| s.abs() > 0.01) else { return Ok(()) };
    let color = Color::Series(usize::from(shade < 0.0));
    pen.path(&[(from, y), (to, y)], f64::from(ROW - 1), Paint { color, opacity: STRONGEST * shade.abs() })
}

fn put<P: Pen>(
    pen: &mut P,
    text: &str,
    at: (f64, f64),
    (size, bold): (f64, bool),
    anchor: Anchor,
    opacity: f64,
) -> Result<(), P::Error> {
    if text.is_empty() {
        return Ok(());
    }
    pen.words(&Words { text, at, size, bold, anchor }, Paint { color: Color::Text, opacity })
}
