//! A table of numbers as colours.

use super::Cell;

/// Numbers by row and column, each shown as a shade: a layer's error, a module's share.
#[derive(Debug, Clone)]
pub struct Heat {
    pub title: String,
    /// What the rows are, as "layer".
    pub row: &'static str,
    pub rows: Vec<String>,
    pub columns: Vec<String>,
    /// By row, then by column; NaN where there is nothing.
    pub values: Vec<Vec<f64>>,
    pub scale: HeatScale,
    /// How a number is written: as [`Cell::Share`].
    pub cell: fn(f64) -> Cell,
    /// A remark below; may be empty.
    pub note: String,
}

/// How numbers become shades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeatScale {
    /// From the lowest number, the lightest, to the highest.
    Amount,
    /// From zero both ways, positive and negative in colours of their own.
    Signed,
}

impl Heat {
    /// The numbers there are, and the lowest and the highest of them; zero for both where there is none.
    #[must_use]
    pub fn range(&self) -> (f64, f64) {
        let there = self.values.iter().flatten().copied().filter(|x| x.is_finite());
        let (low, high) = there.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        if low <= high { (low, high) } else { (0.0, 0.0) }
    }

    /// How strong the shade of a number is, from 0 to 1, negative on the negative side of a signed scale; `None` for none.
    #[must_use]
    pub fn shade(&self, value: f64) -> Option<f64> {
        if !value.is_finite() {
            return None;
        }
        let (low, high) = self.range();
        let share = match self.scale {
            HeatScale::Amount => (value - low) / (high - low),
            HeatScale::Signed => value / high.abs().max(low.abs()),
        };
        Some(if share.is_finite() { share.clamp(-1.0, 1.0) } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heat(values: &[f64], scale: HeatScale) -> Heat {
        Heat {
            title: String::new(),
            row: "layer",
            rows: vec!["0".to_owned()],
            columns: vec![String::new(); values.len()],
            values: vec![values.to_vec()],
            scale,
            cell: Cell::Share,
            note: String::new(),
        }
    }

    #[test]
    fn shades_reach_over_what_there_is() {
        let amounts = heat(&[2.0, f64::NAN, 4.0, 3.0], HeatScale::Amount);
        assert_eq!([2.0, 3.0, 4.0].map(|x| amounts.shade(x)), [0.0, 0.5, 1.0].map(Some));
        assert_eq!(amounts.shade(f64::NAN), None);
        let signed = heat(&[-4.0, 2.0], HeatScale::Signed);
        assert_eq!([-4.0, 0.0, 2.0].map(|x| signed.shade(x)), [-1.0, 0.0, 0.5].map(Some));
    }

    #[test]
    fn nothing_and_sameness_have_no_shade() {
        assert_eq!(heat(&[], HeatScale::Amount).range(), (0.0, 0.0));
        assert_eq!(heat(&[7.0, 7.0], HeatScale::Amount).shade(7.0), Some(0.0));
        assert_eq!(heat(&[0.0], HeatScale::Signed).shade(0.0), Some(0.0));
        assert_eq!(heat(&[f64::INFINITY], HeatScale::Signed).shade(f64::INFINITY), None);
    }
}
