//! DEC's sixels: bands of six rows, one colour of a small palette after the other.

use std::collections::HashMap;

use crate::render::png::Pixels;

/// Colours of the palette: a chart has few, and shades of them at the edges of its lines.
const COLORS: usize = 64;

type Rgb = [u8; 3];

/// The picture in its own size.
pub(super) fn encode(pixels: &Pixels) -> String {
    let (width, height) = (pixels.width as usize, pixels.height as usize);
    let rgb: Vec<Rgb> = pixels.rgb.chunks_exact(3).map(|p| coarse([p[0], p[1], p[2]])).collect();
    let palette = palette(&rgb);
    let nearest: HashMap<Rgb, usize> = rgb.iter().map(|&color| (color, near(&palette, color))).collect();
    let mut out = format!("\x1bPq\"1;1;{width};{height}");
    for (index, color) in palette.iter().enumerate() {
        let [r, g, b] = color.map(|c| (u32::from(c) * 100 + 127) / 255);
        out += &format!("#{index};2;{r};{g};{b}");
    }
    for band in rgb.chunks(6 * width.max(1)) {
        let indices: Vec<usize> = band.iter().map(|color| nearest[color]).collect();
        for color in 0..palette.len() {
            if indices.contains(&color) {
                out += &format!("#{color}{}$", row(&indices, width, color));
            }
        }
        out.push('-');
    }
    out + "\x1b\\"
}

/// The band's pixels of one colour: a character for each column, runs counted.
fn row(band: &[usize], width: usize, color: usize) -> String {
    let sixel = |x: usize| {
        let bits: u8 = band.iter().skip(x).step_by(width).zip(0..).map(|(&c, bit)| u8::from(c == color) << bit).sum();
        char::from(63 + bits)
    };
    let columns: Vec<char> = (0..width).map(sixel).collect();
    let mut out = String::new();
    for run in columns.chunk_by(|a, b| a == b) {
        match run.len() {
            n @ 0..4 => out.extend(std::iter::repeat_n(run[0], n)),
            n => out += &format!("!{n}{}", run[0]),
        }
    }
    out
}

/// Five bits a channel: shades that nobody tells apart are one colour.
fn coarse(color: Rgb) -> Rgb {
    color.map(|c| (c & 0xf8) | (c >> 5))
}

/// The most frequent colours, the rarest left out.
fn palette(pixels: &[Rgb]) -> Vec<Rgb> {
    let mut counts: HashMap<Rgb, usize> = HashMap::new();
    for &color in pixels {
        *counts.entry(color).or_default() += 1;
    }
    let mut colors: Vec<(usize, Rgb)> = counts.into_iter().map(|(color, count)| (count, color)).collect();
    colors.sort_unstable_by(|a, b| b.cmp(a));
    colors.into_iter().take(COLORS).map(|(_, color)| color).collect()
}

/// The colour of the palette that is least different.
fn near(palette: &[Rgb], color: Rgb) -> usize {
    let distance = |other: &Rgb| other.iter().zip(color).map(|(&a, b)| u32::from(a.abs_diff(b)).pow(2)).sum::<u32>();
    (0..palette.len()).min_by_key(|&index| distance(&palette[index])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHITE: Rgb = [255; 3];
    const BLACK: Rgb = [0; 3];

    fn picture(width: u32, rows: &[&[Rgb]]) -> Pixels {
        let rgb = rows.iter().flat_map(|row| row.iter().flatten().copied()).collect();
        Pixels { rgb, width, height: rows.len() as u32 }
    }

    #[test]
    fn a_pixel_is_a_bit_of_its_column() {
        let text = encode(&picture(2, &[&[WHITE, BLACK], &[WHITE, WHITE]]));
        // White covers both rows on the left and the lower one on the right; black the upper one on the right.
        assert_eq!(text, "\x1bPq\"1;1;2;2#0;2;100;100;100#1;2;0;0;0#0BA$#1?@$-\x1b\\");
    }

    #[test]
    fn runs_are_counted_and_bands_end() {
        let line = [BLACK; 10];
        let text = encode(&picture(10, &[line.as_slice(); 7]));
        assert_eq!(text, "\x1bPq\"1;1;10;7#0;2;0;0;0#0!10~$-#0!10@$-\x1b\\");
    }

    #[test]
    fn many_colours_become_few() {
        let shades: Vec<Rgb> = (0..=255u8).map(|i| [i, i.wrapping_mul(37), i / 2]).collect();
        let text = encode(&picture(256, &[&shades]));
        assert_eq!(text.matches(";2;").count(), COLORS);
        assert_eq!(near(&[[0; 3], [250; 3]], [200; 3]), 1);
        assert_eq!(encode(&picture(0, &[])), "\x1bPq\"1;1;0;0\x1b\\");
    }
}
