//! A [`Cell`] as text.

use crate::event::{Cell, units};

/// What stands in the table for a cell: one line for numbers, the text itself for text.
#[must_use]
pub fn cell(cell: &Cell) -> String {
    match *cell {
        Cell::Empty => String::new(),
        Cell::Text(ref text) => text.clone(),
        Cell::Count(n) => units::count(n),
        Cell::Bytes(n) => units::bytes(n),
        Cell::Number(x, digits) => number(x, digits),
        Cell::Share(x) => finite(x, |x| signed_minus(units::percent(x))),
        Cell::Signed(x, digits) => signed(x, digits),
        Cell::Seconds(x) => finite(x, |x| signed_minus(units::seconds(x))),
    }
}

/// Whether a cell holds a number, which makes its column stand right: text does if it is one with a unit, as `4.88 M`.
#[must_use]
pub fn is_numeric(cell: &Cell) -> bool {
    match cell {
        Cell::Empty => false,
        Cell::Text(text) => {
            let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || "+−±.,".contains(c));
            let letters = unit.strip_prefix(' ').unwrap_or(unit);
            unit.len() < text.len()
                && (letters.is_empty() || unit.len() > letters.len() && letters.chars().count() <= 2)
        }
        _ => true,
    }
}

/// A number with this many digits after the point; in powers of ten where those would show nothing or too much.
pub(super) fn number(x: f64, digits: usize) -> String {
    let digits = digits.min(12);
    finite(x, |x| {
        let fixed = format!("{x:.digits$}");
        let shows_nothing = x != 0.0 && fixed.bytes().all(|b| matches!(b, b'0' | b'.' | b'-'));
        if shows_nothing || x.abs() >= 1e9 {
            return signed_minus(format!("{x:.2e}")).replace("e-", "e−");
        }
        let (whole, fraction) = fixed.split_at(fixed.find('.').unwrap_or(fixed.len()));
        let grouped = units::count(whole.trim_start_matches('-').parse().unwrap_or(0));
        let minus = if x < 0.0 { "−" } else { "" };
        format!("{minus}{grouped}{fraction}")
    })
}

/// A difference with its sign; `±` where the digits shown are all zero.
pub(super) fn signed(x: f64, digits: usize) -> String {
    let digits = digits.min(12);
    finite(x, |x| {
        let text = if x.abs() >= 1e9 { format!("{:.2e}", x.abs()) } else { format!("{:.digits$}", x.abs()) };
        let zero = text.bytes().all(|b| matches!(b, b'0' | b'.'));
        let sign = if zero {
            '±'
        } else if x < 0.0 {
            '−'
        } else {
            '+'
        };
        format!("{sign}{text}")
    })
}

/// Bytes in running text, where three digits are enough: `483 MB`, `19.5 MB`, `1.20 GB`.
pub(super) fn short_bytes(n: u64) -> String {
    match n {
        99_950_000..999_500_000 => format!("{:.0} MB", n as f64 / 1e6),
        999_500_000..1_000_000_000 => "1.00 GB".to_owned(),
        _ => units::bytes(n),
    }
}

/// `show` for a finite number, and the usual names for the others.
fn finite(x: f64, show: impl FnOnce(f64) -> String) -> String {
    match x {
        _ if x.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "∞".to_owned(),
        f64::NEG_INFINITY => "−∞".to_owned(),
        _ => show(x),
    }
}

/// The same number with a minus sign as wide as a plus.
fn signed_minus(text: String) -> String {
    text.strip_prefix('-').map_or(text.clone(), |rest| format!("−{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_read_as_numbers_do() {
        assert_eq!(cell(&Cell::Count(1584)), "1,584");
        assert_eq!(cell(&Cell::Bytes(19_500_000)), "19.5 MB");
        assert_eq!(cell(&Cell::Number(1.3549, 3)), "1.355");
        assert_eq!(cell(&Cell::Number(-1234.5, 1)), "−1,234.5");
        assert_eq!(cell(&Cell::Number(12.0, 0)), "12");
        assert_eq!(cell(&Cell::Share(0.035)), "3.5 %");
        assert_eq!(cell(&Cell::Share(-0.035)), "−3.5 %");
        assert_eq!(cell(&Cell::Signed(0.168, 3)), "+0.168");
        assert_eq!(cell(&Cell::Signed(-0.003, 3)), "−0.003");
        assert_eq!(cell(&Cell::Signed(-0.0003, 3)), "±0.000");
        assert_eq!(cell(&Cell::Seconds(837.0)), "13:57");
        assert_eq!(cell(&Cell::Empty), "");
    }

    #[test]
    fn numbers_too_small_or_large_for_their_digits_say_so() {
        assert_eq!(number(2e-4, 2), "2.00e−4");
        assert_eq!(number(0.0, 2), "0.00");
        assert_eq!(number(-0.0, 2), "0.00");
        assert_eq!(number(1e300, 2), "1.00e300");
        assert_eq!(signed(-1e300, 2), "−1.00e300");
        assert_eq!(number(1.0, usize::MAX), "1.000000000000");
    }

    #[test]
    fn what_is_not_finite_has_its_name() {
        for make in [|x| Cell::Number(x, 2), |x| Cell::Signed(x, 2), Cell::Share, Cell::Seconds] {
            assert_eq!(cell(&make(f64::NAN)), "NaN");
            assert_eq!(cell(&make(f64::INFINITY)), "∞");
            assert_eq!(cell(&make(f64::NEG_INFINITY)), "−∞");
        }
    }

    #[test]
    fn text_that_is_a_number_counts_as_one() {
        for text in ["4.88 M", "12", "−0.003", "19.5 MB", "3.5 %"] {
            assert!(is_numeric(&text.into()), "{text}");
        }
        for text in ["", "r16", "7b-chat", "3 evaluations", "…", " M", "4 × 256"] {
            assert!(!is_numeric(&text.into()), "{text}");
        }
        assert!(is_numeric(&Cell::Count(1)) && !is_numeric(&Cell::Empty));
    }

    #[test]
    fn bytes_in_a_sentence_have_three_digits() {
        assert_eq!(short_bytes(483_200_000), "483 MB");
        assert_eq!(short_bytes(19_540_000), "19.5 MB");
        assert_eq!(short_bytes(99_960_000), "100 MB");
        assert_eq!(short_bytes(999_900_000), "1.00 GB");
        assert_eq!(short_bytes(0), "0 B");
    }
}
