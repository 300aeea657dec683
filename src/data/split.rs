//! Holding rows out.

use super::order::Random;
use super::{Content, DataSet, Format, Row};
use crate::error::{Error, Result};

impl DataSet {
    /// Holds a share of the rows out: the rest, and the held-out rows as `NAME.valid`. Both keep the order of the file.
    ///
    /// The rows are drawn by `seed`. A text of one document is cut instead: the end of it, from the start of a line, is held out.
    ///
    /// # Errors
    /// [`crate::error::Kind::Usage`] unless `0 < fraction < 1`; [`crate::error::Kind::Format`] with fewer than two rows.
    pub fn split(&self, fraction: f64, seed: u64) -> Result<(DataSet, DataSet)> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(Error::usage(format!("the share to hold out must be between 0 and 1, not {fraction}"))
                .hint("--valid 0.1 holds every tenth row out"));
        }
        let part = |name: String, rows| DataSet { name, rows, ..self.without_rows() };
        let (train, valid) = match self.rows.as_slice() {
            [Row { number, content: Content::Text(text) }] if self.format == Format::Text => {
                let at = cut(text, fraction).ok_or_else(|| self.too_few())?;
                let line = number + text[..at].matches('\n').count();
                let row = |number, text: &str| vec![Row { number, content: Content::Text(text.to_owned()) }];
                (row(*number, &text[..at]), row(line, &text[at..]))
            }
            rows if rows.len() < 2 => return Err(self.too_few()),
            rows => draw(rows, fraction, seed),
        };
        Ok((part(self.name.clone(), train), part(format!("{}.valid", self.name), valid)))
    }

    fn without_rows(&self) -> DataSet {
        DataSet {
            name: String::new(),
            origin: self.origin.clone(),
            format: self.format,
            unit: self.unit,
            rows: Vec::new(),
        }
    }

    fn too_few(&self) -> Error {
        Error::format(format!("{} has a single row, so none can be held out", self.origin))
            .hint("give held-out rows in a file of their own to eval")
    }
}

fn draw(rows: &[Row], fraction: f64, seed: u64) -> (Vec<Row>, Vec<Row>) {
    let wanted = (rows.len() as f64 * fraction).round() as usize;
    let mut drawn: Vec<usize> = (0..rows.len()).collect();
    Random::new(seed, 0).shuffle(&mut drawn);
    drawn.truncate(wanted.clamp(1, rows.len() - 1));
    let mut held_out = vec![false; rows.len()];
    for row in drawn {
        held_out[row] = true;
    }
    let (valid, train): (Vec<_>, Vec<_>) = rows.iter().cloned().zip(held_out).partition(|(_, held_out)| *held_out);
    let rows = |part: Vec<(Row, bool)>| part.into_iter().map(|(row, _)| row).collect();
    (rows(train), rows(valid))
}

/// Where the last `fraction` of a text begins: after the first line end from there on, else the last before, else between characters.
fn cut(text: &str, fraction: f64) -> Option<usize> {
    let mut at = ((text.len() as f64) * (1.0 - fraction)) as usize;
    while !text.is_char_boundary(at) {
        at += 1;
    }
    let inside = |at: &usize| !text[..*at].trim().is_empty() && !text[*at..].trim().is_empty();
    let after = text[at..].find('\n').map(|i| at + i + 1);
    let before = text[..at].rfind('\n').map(|i| i + 1);
    [after, before, Some(at)].into_iter().flatten().find(inside)
}
