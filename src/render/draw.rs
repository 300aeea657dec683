//! A chart on a plotters canvas, for pictures that stand by themselves.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::Color as _;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::chart::Theme;
use super::font::font;
use super::palette::{self, Palette};
use super::picture::{self, Anchor, Color, Paint, Pen, Pictured, Point, Words};
use crate::error::{Error, Kind, Result};

/// Canvas units a pixel: plotters draws at whole units, so the canvas is finer than the page.
pub(super) const SCALE: u32 = 4;
/// Points of a line: two a pixel of the page's width.
const MOST_POINTS: usize = 2 * picture::WIDTH as usize;

/// How thick lines are put on the canvas.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stroke {
    /// As one path: for formats that join its segments themselves.
    Path,
    /// Segment by segment with round joints: plotters' own joints tear in sharp bends.
    Segments,
}

/// Draws `picture` on a canvas of the page's size times [`SCALE`].
///
/// # Errors
/// [`Kind::Bug`] if plotters refuses.
pub(super) fn draw<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    picture: &impl Pictured,
    theme: Theme,
    stroke: Stroke,
) -> Result<()> {
    let palette = match theme {
        Theme::Light => &palette::LIGHT,
        Theme::Dark => &palette::DARK,
    };
    area.fill(&rgb(palette.background))
        .and_then(|()| picture.draw(&mut Canvas { area, palette, stroke }, MOST_POINTS))
        .and_then(|()| area.present())
        .map_err(|e| Error::new(Kind::Bug, format!("cannot draw the chart: {e}")))
}

type Drawn<B> = std::result::Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

struct Canvas<'a, B: DrawingBackend> {
    area: &'a DrawingArea<B, Shift>,
    palette: &'static Palette,
    stroke: Stroke,
}

impl<B: DrawingBackend> Pen for Canvas<'_, B> {
    type Error = DrawingAreaErrorKind<B::ErrorType>;

    fn path(&mut self, points: &[Point], thickness: f64, paint: Paint) -> Drawn<B> {
        let color = self.color(paint);
        let style = color.stroke_width(scaled(thickness) as u32);
        let points: Vec<_> = points.iter().map(|&p| units(p)).collect();
        if self.stroke == Stroke::Path {
            return self.area.draw(&PathElement::new(points, style));
        }
        let radius = (thickness * f64::from(SCALE) / 2.0 - 0.5) as i32;
        for pair in points.windows(2).filter(|pair| pair[0] != pair[1]) {
            self.area.draw(&PathElement::new(pair.to_vec(), style))?;
            if points.len() > 2 {
                self.area.draw(&Circle::new(pair[0], radius, color.filled()))?;
            }
        }
        Ok(())
    }

    fn dashed(&mut self, points: &[Point], thickness: f64, paint: Paint) -> Drawn<B> {
        dashes(points, 5.0, 4.0).iter().try_for_each(|dash| self.path(dash, thickness, paint))
    }

    fn dot(&mut self, at: Point, radius: f64, paint: Paint) -> Drawn<B> {
        self.area.draw(&Circle::new(units(at), scaled(radius), self.color(paint).filled()))
    }

    fn words(&mut self, words: &Words<'_>, paint: Paint) -> Drawn<B> {
        let side = match words.anchor {
            Anchor::Left => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        let font = font(words.size * f64::from(SCALE), words.bold);
        let color = self.color(paint);
        let style = TextStyle::from(font).color(&color).pos(Pos::new(side, VPos::Center));
        // plotters centres small letters, its bitmaps higher still; digits and capitals are what stands here.
        let down = if self.stroke == Stroke::Path { 0.09 } else { 0.24 };
        let at = units((words.at.0, words.at.1 + down * words.size));
        self.area.draw(&Text::new(words.text.to_owned(), at, style))
    }
}

impl<B: DrawingBackend> Canvas<'_, B> {
    /// A paint as it looks on the background: opaque, so that crossings do not darken.
    fn color(&self, paint: Paint) -> RGBColor {
        let color = rgb(match paint.color {
            Color::Text => self.palette.text,
            Color::Series(index) => self.palette.series[index % self.palette.series.len()],
            Color::Best => self.palette.best,
        });
        let mix = |c: u8, b: u8| (f64::from(c) * paint.opacity + f64::from(b) * (1.0 - paint.opacity)).round() as u8;
        let ground = rgb(self.palette.background);
        RGBColor(mix(color.0, ground.0), mix(color.1, ground.1), mix(color.2, ground.2))
    }
}

fn rgb(hex: u32) -> RGBColor {
    RGBColor((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

fn scaled(pixels: f64) -> i32 {
    (pixels * f64::from(SCALE)).round() as i32
}

fn units((x, y): Point) -> (i32, i32) {
    (scaled(x), scaled(y))
}

/// A line cut into dashes of `on` with gaps of `off`, following its bends.
fn dashes(points: &[(f64, f64)], on: f64, off: f64) -> Vec<Vec<(f64, f64)>> {
    let mut all = Vec::new();
    let mut dash: Vec<(f64, f64)> = points.first().map(|&p| vec![p]).unwrap_or_default();
    let (mut drawing, mut left) = (true, on);
    for pair in points.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let length = (b.0 - a.0).hypot(b.1 - a.1);
        let mut done = 0.0;
        while length - done > left {
            done += left;
            let at = (a.0 + (b.0 - a.0) * done / length, a.1 + (b.1 - a.1) * done / length);
            if drawing {
                dash.push(at);
                all.push(std::mem::take(&mut dash));
            } else {
                dash.push(at);
            }
            drawing = !drawing;
            left = if drawing { on } else { off };
        }
        left -= length - done;
        if drawing {
            dash.push(b);
        }
    }
    if dash.len() > 1 {
        all.push(dash);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_have_their_lengths_and_follow_bends() {
        let straight = dashes(&[(0.0, 0.0), (20.0, 0.0)], 5.0, 4.0);
        assert_eq!(straight, [[(0.0, 0.0), (5.0, 0.0)], [(9.0, 0.0), (14.0, 0.0)], [(18.0, 0.0), (20.0, 0.0)]]);
        assert_eq!(dashes(&[(0.0, 0.0), (3.0, 0.0), (3.0, 1.0)], 5.0, 4.0), [[(0.0, 0.0), (3.0, 0.0), (3.0, 1.0)]]);
        assert!(dashes(&[], 5.0, 4.0).is_empty());
        assert!(dashes(&[(1.0, 1.0)], 5.0, 4.0).is_empty());
    }
}
