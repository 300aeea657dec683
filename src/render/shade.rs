//! Shades of blue and of orange, which every kind of colour vision tells apart, and characters for where there are none.

use super::ansi::Ink;

/// Shades to either side of nothing.
const LEVELS: f64 = 4.0;

/// Ground and letters by level in the colours of 256: from pale to full.
const BLUE: [&str; 4] = ["48;5;153;38;5;16", "48;5;75;38;5;16", "48;5;32;38;5;231", "48;5;25;38;5;231"];
const ORANGE: [&str; 4] = ["48;5;223;38;5;16", "48;5;215;38;5;16", "48;5;208;38;5;16", "48;5;166;38;5;231"];

/// The level of a shade from −1 to 1: 0 for next to nothing, up to 4.
fn level(shade: f64) -> i32 {
    (shade * LEVELS + 0.5 * shade.signum()).clamp(-LEVELS, LEVELS) as i32
}

/// `text` on a ground of this shade: blue, or orange where it is negative.
pub(super) fn paint(shade: f64, text: &str, ink: Ink) -> String {
    match level(shade) {
        0 => text.to_owned(),
        n if n > 0 => ink.paint(BLUE[n as usize - 1], text),
        n => ink.paint(ORANGE[-n as usize - 1], text),
    }
}

/// A character as dense as the shade is strong; negative ones are drawn in lines.
pub(super) fn character(shade: f64) -> char {
    match level(shade) {
        0 => ' ',
        n if n > 0 => ['░', '▒', '▓', '█'][n as usize - 1],
        n => ['-', '=', '≡', '≣'][-n as usize - 1],
    }
}

/// The ground of this shade on pages of either kind, as CSS; letters of the page's own colour are read on it.
pub(super) fn ground(shade: f64) -> String {
    let color = if shade < 0.0 { "230,120,20" } else { "0,114,178" };
    format!("rgba({color},{:.2})", 0.6 * shade.abs().min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strong_shades_are_dense_and_signs_differ() {
        let shades = [-1.0, -0.5, -0.1, 0.0, 0.1, 0.3, 0.5, 0.8, 1.0, 9.0];
        assert_eq!(shades.map(character), ['≣', '=', ' ', ' ', ' ', '░', '▒', '▓', '█', '█']);
        assert_eq!(character(f64::NAN), ' ');
        assert_eq!(paint(1.0, "x", Ink::COLOR), "\u{1b}[48;5;25;38;5;231mx\u{1b}[0m");
        assert_ne!(paint(-1.0, "x", Ink::COLOR), paint(1.0, "x", Ink::COLOR));
        assert_eq!(paint(1.0, "x", Ink::PLAIN), "x");
        assert_eq!((ground(0.5), ground(-2.0)), ("rgba(0,114,178,0.30)".into(), "rgba(230,120,20,0.60)".into()));
    }
}
