//! A chart on a plotters canvas: no frame, no legend box, names at the ends of the lines.

use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use super::chart::{Line, Plot, Theme, push_apart};
use crate::error::{Error, Kind, Result};
use crate::event::{Chart, Style};

/// Size of a chart on the page in pixels, and the height that a title adds.
pub(super) const WIDTH: u32 = 700;
const HEIGHT: u32 = 260;
const TITLE: u32 = 24;
/// Canvas units a pixel: plotters draws at whole units, so the canvas is finer than the page.
pub(super) const SCALE: u32 = 4;

/// The words at the best point reach this many pixels to either side.
const NEAR: f64 = 34.0;

/// How thick lines are put on the canvas.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stroke {
    /// As one path: for formats that join its segments themselves.
    Path,
    /// Segment by segment with round joints: plotters' own joints tear in sharp bends.
    Segments,
}

/// Height of the picture of `chart` on the page, in pixels.
pub(super) fn height(chart: &Chart) -> u32 {
    if chart.title.is_empty() { HEIGHT } else { HEIGHT + TITLE }
}

struct Colors {
    background: RGBColor,
    text: RGBColor,
    series: [RGBColor; 6],
    best: RGBColor,
}

/// Okabe and Ito's palette for all kinds of colour vision, darker on light pages and lighter on dark ones.
fn colors(theme: Theme) -> Colors {
    let rgb = |hex: u32| RGBColor((hex >> 16) as u8, (hex >> 8) as u8, hex as u8);
    match theme {
        Theme::Light => Colors {
            background: rgb(0xFF_FFFF),
            text: rgb(0x21_2121),
            series: [0x0072B2, 0xD55E00, 0x00_7A59, 0xB0_5C8C, 0xB07A00, 0x3A93C4].map(rgb),
            best: rgb(0x00_7A59),
        },
        Theme::Dark => Colors {
            background: rgb(0x11_1111),
            text: rgb(0xDE_DEDE),
            series: [0x56B4E9, 0xFF8C42, 0x2BD4A4, 0xE39CC3, 0xF0E442, 0x8FA8FF].map(rgb),
            best: rgb(0x2B_D4A4),
        },
    }
}

/// Registers the embedded font. Without one plotters draws nothing, SVG included.
fn fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A font that is refused shows as an error of the first text drawn.
        let _ = register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
        let _ = register_font("sans-serif", FontStyle::Bold, dejavu::sans::bold());
    });
}

/// Draws `chart` on a canvas of [`WIDTH`] × [`height`] pixels times [`SCALE`].
///
/// # Errors
/// [`Kind::Bug`] if plotters refuses.
pub(super) fn draw<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    chart: &Chart,
    theme: Theme,
    stroke: Stroke,
) -> Result<()> {
    fonts();
    let canvas = Canvas { area, colors: colors(theme), stroke };
    canvas
        .chart(chart)
        .and_then(|()| area.present())
        .map_err(|e| Error::new(Kind::Bug, format!("cannot draw the chart: {e}")))
}

type Drawn<B> = std::result::Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

struct Canvas<'a, B: DrawingBackend> {
    area: &'a DrawingArea<B, Shift>,
    colors: Colors,
    stroke: Stroke,
}

/// Where the plot lies on the page, in pixels.
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Frame {
    fn at(&self, plot: &Plot, (x, y): (f64, f64)) -> (f64, f64) {
        let across = self.left + plot.x.place(x) * (self.right - self.left);
        (across, self.bottom - plot.y.place(y) * (self.bottom - self.top))
    }
}

impl<B: DrawingBackend> Canvas<'_, B> {
    fn chart(&self, chart: &Chart) -> Drawn<B> {
        self.area.fill(&self.colors.background)?;
        let plot = Plot::new(chart, 6, 5);
        let above = if chart.title.is_empty() { 0.0 } else { f64::from(TITLE) };
        let ticks = plot.y.ticks.iter().map(|t| self.text_width(&t.1, 11.0)).fold(20.0, f64::max);
        let left = ticks + 14.0;
        let names = plot.names().map(|(line, _)| self.text_width(&line.name, 11.5)).fold(0.0, f64::max);
        let width = f64::from(WIDTH);
        let room = if names > 0.0 { plot.margin(width, left, names + 14.0) } else { 0.0 };
        let bottom = f64::from(height(chart)) - 36.0;
        let frame = Frame { left, right: width - room.clamp(14.0, width / 2.0), top: above + 22.0, bottom };

        if above > 0.0 {
            self.text(&super::ansi::clean(&chart.title), (4.0, 12.0), 13.0, true, self.colors.text, HPos::Left)?;
        }
        self.axes(chart, &plot, &frame, above)?;
        for faint in [true, false] {
            for line in plot.lines.iter().filter(|line| (line.style == Style::Faint) == faint) {
                self.line(line, &plot, &frame)?;
            }
        }
        self.best(&plot, &frame)?;
        self.names(&plot, &frame)
    }

    fn axes(&self, chart: &Chart, plot: &Plot, frame: &Frame, above: f64) -> Drawn<B> {
        let (grid, text) = (self.faded(self.colors.text, 0.13), self.faded(self.colors.text, 0.65));
        for (value, label) in &plot.y.ticks {
            let y = frame.bottom - plot.y.place(*value) * (frame.bottom - frame.top);
            self.path(&[(frame.left, y), (frame.right, y)], 1.0, grid)?;
            self.text(label, (frame.left - 7.0, y), 11.0, false, text, HPos::Right)?;
        }
        for (value, label) in &plot.x.ticks {
            let x = frame.left + plot.x.place(*value) * (frame.right - frame.left);
            self.text(label, (x, frame.bottom + 13.0), 11.0, false, text, HPos::Center)?;
        }
        self.text(chart.x, (frame.right, frame.bottom + 27.0), 11.0, false, text, HPos::Right)?;
        self.text(chart.y, (4.0, above + 8.0), 11.0, false, text, HPos::Left)
    }

    fn line(&self, line: &Line, plot: &Plot, frame: &Frame) -> Drawn<B> {
        let color = self.series_color(line);
        let points: Vec<_> = line.points.iter().map(|&p| frame.at(plot, p)).collect();
        let path = thin_out(&points);
        match line.style {
            Style::Faint => self.path(&path, 1.0, self.faded(color, 0.38))?,
            Style::Bold => self.path(&path, 2.4, color)?,
            Style::Marked => {
                for dash in dashes(&path, 5.0, 4.0) {
                    self.path(&dash, 1.6, color)?;
                }
            }
        }
        // Marks that would touch each other say nothing; a line of one point needs one to be seen.
        let marks = line.style == Style::Marked && points.len() <= 60;
        let shown = if marks { &points[..] } else { &points[..usize::from(points.len() == 1)] };
        shown.iter().try_for_each(|&at| self.dot(at, 3.6, color))
    }

    fn best(&self, plot: &Plot, frame: &Frame) -> Drawn<B> {
        let Some(best) = plot.best else { return Ok(()) };
        let (x, y) = frame.at(plot, best);
        self.dot((x, y), 5.0, self.colors.best)?;
        let x = x.max(frame.left + NEAR);
        // The words stand below everything drawn near the point, or above if that is too low.
        let near = plot.lines.iter().flat_map(|line| &line.points).map(|&p| frame.at(plot, p));
        let near = near.filter(|p| (p.0 - x).abs() <= NEAR).map(|p| p.1);
        let (highest, lowest) = near.fold((y, y), |(high, low), at| (at.min(high), at.max(low)));
        let below = lowest.max(y + 5.0) + 11.0;
        let at = if below < frame.bottom - 5.0 { below } else { (highest.min(y - 5.0) - 11.0).max(frame.top) };
        let label = format!("best {}", super::number::number(best.1, 2));
        self.text(&label, (x, at), 11.5, true, self.colors.best, HPos::Center)
    }

    fn names(&self, plot: &Plot, frame: &Frame) -> Drawn<B> {
        let wanted: Vec<f64> = plot.names().map(|(_, y)| frame.bottom - y * (frame.bottom - frame.top)).collect();
        let x = frame.left + plot.end() * (frame.right - frame.left) + 9.0;
        for ((line, _), y) in plot.names().zip(push_apart(&wanted, 15.0, frame.top, frame.bottom)) {
            self.text(&line.name, (x, y), 11.5, true, self.series_color(line), HPos::Left)?;
        }
        Ok(())
    }

    fn series_color(&self, line: &Line) -> RGBColor {
        self.colors.series[line.color % self.colors.series.len()]
    }

    /// `color` as it looks with this opacity on the background: opaque, so that crossings do not darken.
    fn faded(&self, color: RGBColor, opacity: f64) -> RGBColor {
        let mix = |c: u8, b: u8| (f64::from(c) * opacity + f64::from(b) * (1.0 - opacity)).round() as u8;
        let b = self.colors.background;
        RGBColor(mix(color.0, b.0), mix(color.1, b.1), mix(color.2, b.2))
    }

    fn path(&self, points: &[(f64, f64)], thickness: f64, color: RGBColor) -> Drawn<B> {
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

    fn dot(&self, at: (f64, f64), radius: f64, color: RGBColor) -> Drawn<B> {
        self.area.draw(&Circle::new(units(at), scaled(radius), color.filled()))
    }

    fn text(&self, text: &str, at: (f64, f64), size: f64, bold: bool, color: RGBColor, side: HPos) -> Drawn<B> {
        if text.is_empty() {
            return Ok(());
        }
        let style = TextStyle::from(font(size, bold)).color(&color).pos(Pos::new(side, VPos::Center));
        // plotters centres small letters, its bitmaps higher still; digits and capitals are what stands here.
        let down = if self.stroke == Stroke::Path { 0.09 } else { 0.24 };
        self.area.draw(&Text::new(text.to_owned(), units((at.0, at.1 + down * size)), style))
    }

    /// Width of bold text in pixels, the wider of the two.
    fn text_width(&self, text: &str, size: f64) -> f64 {
        font(size, true).box_size(text).map_or(0.0, |(w, _)| f64::from(w) / f64::from(SCALE))
    }
}

/// The font at a size in pixels as browsers understand it; plotters' sizes are 1.24 times that.
fn font(size: f64, bold: bool) -> FontDesc<'static> {
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    FontDesc::new(FontFamily::SansSerif, size * 1.24 * f64::from(SCALE), style)
}

fn scaled(pixels: f64) -> i32 {
    (pixels * f64::from(SCALE)).round() as i32
}

fn units((x, y): (f64, f64)) -> (i32, i32) {
    (scaled(x), scaled(y))
}

/// The same line with at most four points a pixel column: first, lowest, highest and last of each.
fn thin_out(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * WIDTH as usize {
        return points.to_vec();
    }
    points
        .chunk_by(|a, b| a.0.floor() == b.0.floor())
        .flat_map(|column| {
            let by_height = |a: &&usize, b: &&usize| column[**a].1.total_cmp(&column[**b].1);
            let indices: Vec<usize> = (0..column.len()).collect();
            let extremes = [indices.iter().min_by(by_height), indices.iter().max_by(by_height)];
            let mut kept: Vec<usize> = extremes.into_iter().flatten().copied().chain([0, column.len() - 1]).collect();
            kept.sort_unstable();
            kept.dedup();
            kept.into_iter().map(|i| column[i])
        })
        .collect()
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

    #[test]
    fn thinning_keeps_ends_and_extremes() {
        let mut points: Vec<_> = (0..7000).map(|i| (f64::from(i) / 10.0, f64::from(i % 7))).collect();
        points[3333].1 = -50.0;
        let thin = thin_out(&points);
        assert!(thin.len() <= 4 * 700 && thin.len() >= 700);
        assert_eq!((thin[0], thin[thin.len() - 1]), (points[0], points[6999]));
        assert!(thin.contains(&points[3333]));
        assert_eq!(thin_out(&points[..10]), points[..10]);
    }
}
