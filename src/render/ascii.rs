//! Text for terminals that show nothing but ASCII.

/// `text` with an ASCII character in the place of each that has one of its own; its width stays.
///
/// Braille becomes `'`, `.` and `:`, by where in the character its dots lie. Letters of other scripts stay.
#[must_use]
pub fn ascii(text: &str) -> String {
    text.chars().map(character).collect()
}

fn character(c: char) -> char {
    match c {
        '\u{2800}' => ' ',
        '\u{2801}'..='\u{28ff}' => {
            // The upper two rows of dots are these bits, the lower two the others.
            let bits = c as u32 - 0x2800;
            match (bits & 0x1b != 0, bits & 0xe4 != 0) {
                (true, false) => '\'',
                (false, true) => '.',
                _ => ':',
            }
        }
        '─' | '╌' | '−' | '–' | '—' => '-',
        '━' => '=',
        '│' => '|',
        '┬' => '+',
        '░' => ':',
        '▒' => '+',
        '▓' | '≡' => '%',
        '≣' => '@',
        '█' | '■' => '#',
        '·' => '-',
        '•' => 'o',
        '…' => '~',
        '×' => 'x',
        '→' | '❯' => '>',
        '“' | '”' => '"',
        '‘' | '’' => '\'',
        '⏎' => '\\',
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_becomes_ascii_of_the_same_width() {
        assert_eq!(ascii("⠉⣀⡇⠀•"), "'.: o");
        assert_eq!(ascii("loss ─┬─ 12 × 3 · −0.5 …"), "loss -+- 12 x 3 - -0.5 ~");
        assert_eq!(ascii("━━╌╌ 1 → 2"), "==-- 1 > 2");
        assert_eq!(ascii("größe 日本 ±"), "größe 日本 ±");
    }
}
