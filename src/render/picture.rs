//! What a chart looks like, whoever draws it: no frame, no legend box, names at the ends of the lines.

use super::chart::{Line, Plot, describe, push_apart};
use super::font::text_width;
use crate::event::{Chart, Style};

/// Size of a chart on the page in pixels, and the height that a title adds.
pub(super) const WIDTH: u32 = 700;
const HEIGHT: u32 = 260;
const TITLE: u32 = 24;

/// The words at the best point reach this many pixels to either side.
const NEAR: f64 = 34.0;

/// Marks stand at least this many pixels apart.
const MARK: f64 = 12.0;

/// Across and downwards, in pixels of the page.
pub(super) type Point = (f64, f64);

/// What a shape is drawn in.
#[derive(Clone, Copy)]
pub(super) struct Paint {
    pub(super) color: Color,
    pub(super) opacity: f64,
}

#[derive(Clone, Copy)]
pub(super) enum Color {
    Text,
    Series(usize),
    Best,
}

impl Color {
    const fn at(self, opacity: f64) -> Paint {
        Paint { color: self, opacity }
    }
}

/// Words on a picture: `at` is their middle upwards, and their left end, middle or right end across.
pub(super) struct Words<'a> {
    pub(super) text: &'a str,
    pub(super) at: Point,
    pub(super) size: f64,
    pub(super) bold: bool,
    pub(super) anchor: Anchor,
}

#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Left,
    Middle,
    Right,
}

/// Who puts shapes on a page.
pub(super) trait Pen {
    type Error;
    fn path(&mut self, points: &[Point], thickness: f64, paint: Paint) -> Result<(), Self::Error>;
    fn dashed(&mut self, points: &[Point], thickness: f64, paint: Paint) -> Result<(), Self::Error>;
    fn dot(&mut self, at: Point, radius: f64, paint: Paint) -> Result<(), Self::Error>;
    fn words(&mut self, words: &Words<'_>, paint: Paint) -> Result<(), Self::Error>;
}

/// What has a picture.
pub(super) trait Pictured {
    fn title(&self) -> String;
    /// In words, for those who cannot see it.
    fn describe(&self) -> String;
    /// Whether there is nothing to see.
    fn is_empty(&self) -> bool;
    /// Height on the page in pixels; the width is [`WIDTH`].
    fn height(&self) -> u32;
    /// Draws it on such a page, no line of more than `most` points.
    fn draw<P: Pen>(&self, pen: &mut P, most: usize) -> Result<(), P::Error>;
}

impl Pictured for Chart {
    fn title(&self) -> String {
        if self.title.is_empty() { format!("{} over {}", self.y, self.x) } else { self.title.clone() }
    }

    fn describe(&self) -> String {
        describe(self)
    }

    fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }

    fn height(&self) -> u32 {
        height(self)
    }

    fn draw<P: Pen>(&self, pen: &mut P, most: usize) -> Result<(), P::Error> {
        draw(pen, self, most)
    }
}

/// Height of the picture of `chart` on the page, in pixels.
pub(super) fn height(chart: &Chart) -> u32 {
    if chart.title.is_empty() { HEIGHT } else { HEIGHT + TITLE }
}

/// Draws `chart` on a page of [`WIDTH`] × [`height`] pixels, no line of more than `most` points.
pub(super) fn draw<P: Pen>(pen: &mut P, chart: &Chart, most: usize) -> Result<(), P::Error> {
    let plot = Plot::new(chart, 6, 5);
    let above = if chart.title.is_empty() { 0.0 } else { f64::from(TITLE) };
    let ticks = plot.y.ticks.iter().map(|t| text_width(&t.1, 11.0)).fold(20.0, f64::max);
    let left = ticks + 14.0;
    let names = plot.names().map(|(line, _)| text_width(&line.name, 11.5)).fold(0.0, f64::max);
    let width = f64::from(WIDTH);
    let room = if names > 0.0 { plot.margin(width, left, names + 14.0) } else { 0.0 };
    // Half of the last number below stands beyond the plot.
    let beyond = plot.x.ticks.last().map_or(0.0, |t| text_width(&t.1, 11.0) / 2.0 + 2.0);
    let bottom = f64::from(height(chart)) - 36.0;
    let frame = Frame { left, right: width - room.max(beyond).clamp(14.0, width / 2.0), top: above + 22.0, bottom };

    let mut picture = Picture { pen, plot, frame };
    if above > 0.0 {
        let title = super::ansi::clean(&chart.title);
        picture.text(&title, (4.0, 12.0), (13.0, true), Anchor::Left, Color::Text.at(1.0))?;
    }
    picture.axes(chart, above)?;
    picture.lines(most)?;
    picture.best()?;
    picture.names()
}

/// Where the plot lies on the page, in pixels.
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Frame {
    fn at(&self, plot: &Plot, (x, y): (f64, f64)) -> Point {
        let across = self.left + plot.x.place(x) * (self.right - self.left);
        (across, self.bottom - plot.y.place(y) * (self.bottom - self.top))
    }
}

struct Picture<'a, P> {
    pen: &'a mut P,
    plot: Plot,
    frame: Frame,
}

impl<P: Pen> Picture<'_, P> {
    fn axes(&mut self, chart: &Chart, above: f64) -> Result<(), P::Error> {
        let (grid, text) = (Color::Text.at(0.13), Color::Text.at(0.65));
        let Frame { left, right, top, bottom } = self.frame;
        for (value, label) in std::mem::take(&mut self.plot.y.ticks) {
            let y = bottom - self.plot.y.place(value) * (bottom - top);
            self.pen.path(&[(left, y), (right, y)], 1.0, grid)?;
            self.text(&label, (left - 7.0, y), (11.0, false), Anchor::Right, text)?;
        }
        for (value, label) in std::mem::take(&mut self.plot.x.ticks) {
            let x = left + self.plot.x.place(value) * (right - left);
            self.text(&label, (x, bottom + 13.0), (11.0, false), Anchor::Middle, text)?;
        }
        self.text(chart.x, (right, bottom + 27.0), (11.0, false), Anchor::Right, text)?;
        self.text(chart.y, (4.0, above + 8.0), (11.0, false), Anchor::Left, text)
    }

    fn lines(&mut self, most: usize) -> Result<(), P::Error> {
        let (faint, rest): (Vec<&Line>, Vec<&Line>) =
            self.plot.lines.iter().partition(|line| line.style == Style::Faint);
        for line in faint.into_iter().chain(rest) {
            let color = Color::Series(line.color);
            let points: Vec<Point> = line.points.iter().map(|&p| self.frame.at(&self.plot, p)).collect();
            let path = thin_out(&points, most);
            match line.style {
                Style::Faint => self.pen.path(&path, 1.0, color.at(0.38))?,
                Style::Bold => self.pen.path(&path, 2.4, color.at(1.0))?,
                Style::Marked => self.pen.dashed(&path, 1.6, color.at(1.0))?,
            }
            // A line of one point needs a mark to be seen.
            if line.style == Style::Marked || points.len() == 1 {
                apart(&points).try_for_each(|at| self.pen.dot(at, 3.6, color.at(1.0)))?;
            }
        }
        Ok(())
    }

    fn best(&mut self) -> Result<(), P::Error> {
        let Some(best) = self.plot.best else { return Ok(()) };
        let (x, y) = self.frame.at(&self.plot, best);
        self.pen.dot((x, y), 5.0, Color::Best.at(1.0))?;
        let x = x.max(self.frame.left + NEAR);
        // The words stand below everything drawn near the point, or above if that is too low.
        let near = self.plot.lines.iter().flat_map(|line| &line.points).map(|&p| self.frame.at(&self.plot, p));
        let near = near.filter(|p| (p.0 - x).abs() <= NEAR).map(|p| p.1);
        let (highest, lowest) = near.fold((y, y), |(high, low), at| (at.min(high), at.max(low)));
        let below = lowest.max(y + 5.0) + 11.0;
        let at =
            if below < self.frame.bottom - 5.0 { below } else { (highest.min(y - 5.0) - 11.0).max(self.frame.top) };
        let label = format!("best {}", super::number::number(best.1, 2));
        self.text(&label, (x, at), (11.5, true), Anchor::Middle, Color::Best.at(1.0))
    }

    fn names(&mut self) -> Result<(), P::Error> {
        let Frame { left, right, top, bottom } = self.frame;
        let wanted: Vec<f64> = self.plot.names().map(|(_, y)| bottom - y * (bottom - top)).collect();
        let x = left + self.plot.end() * (right - left) + 9.0;
        let places = push_apart(&wanted, 15.0, top, bottom);
        let names: Vec<(String, usize)> = self.plot.names().map(|(line, _)| (line.name.clone(), line.color)).collect();
        for ((name, color), y) in names.into_iter().zip(places) {
            self.text(&name, (x, y), (11.5, true), Anchor::Left, Color::Series(color).at(1.0))?;
        }
        Ok(())
    }

    fn text(
        &mut self,
        text: &str,
        at: Point,
        (size, bold): (f64, bool),
        anchor: Anchor,
        paint: Paint,
    ) -> Result<(), P::Error> {
        if text.is_empty() { Ok(()) } else { self.pen.words(&Words { text, at, size, bold, anchor }, paint) }
    }
}

/// The points of a line that are marked: each, or every so many where marks would touch each other.
fn apart(points: &[Point]) -> impl Iterator<Item = Point> {
    let span = match points {
        [first, .., last] => last.0 - first.0,
        _ => 0.0,
    };
    let every = if span > 0.0 { (MARK * (points.len() - 1) as f64 / span).ceil() as usize } else { 1 };
    points.iter().copied().step_by(every.max(1))
}

/// The same line with at most about `most` points: of each column of pixels the first, lowest, highest and last.
fn thin_out(points: &[Point], most: usize) -> Vec<Point> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    if points.len() <= most {
        return points.to_vec();
    }
    let wide = (last.0 - first.0).max(1.0) / (most / 4).max(1) as f64;
    points
        .chunk_by(|a, b| (a.0 / wide).floor() == (b.0 / wide).floor())
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::event::loss_chart;

    /// Keeps the places of marks and how far words reach.
    #[derive(Default)]
    struct Notes {
        dots: Vec<Point>,
        words: Vec<(String, f64, f64)>,
    }

    impl Pen for Notes {
        type Error = Infallible;

        fn path(&mut self, _: &[Point], _: f64, _: Paint) -> Result<(), Infallible> {
            Ok(())
        }

        fn dashed(&mut self, _: &[Point], _: f64, _: Paint) -> Result<(), Infallible> {
            Ok(())
        }

        fn dot(&mut self, at: Point, _: f64, _: Paint) -> Result<(), Infallible> {
            self.dots.push(at);
            Ok(())
        }

        fn words(&mut self, words: &Words<'_>, _: Paint) -> Result<(), Infallible> {
            let (x, width) = (words.at.0, text_width(words.text, words.size));
            let left = match words.anchor {
                Anchor::Left => x,
                Anchor::Middle => x - width / 2.0,
                Anchor::Right => x - width,
            };
            self.words.push((words.text.to_owned(), left, left + width));
            Ok(())
        }
    }

    #[test]
    fn words_stay_on_the_page_and_marks_apart() {
        for (at, steps, evaluations) in
            [(500usize, 500, 10), (260, 5000, 13), (90_000, 100_000, 900), (2000, 10_000_000, 5)]
        {
            let losses: Vec<(usize, f64)> =
                (1..=at).step_by(at.div_ceil(1000)).map(|s| (s, 1.0 + 1.0 / s as f64)).collect();
            let evals: Vec<(usize, f64)> = (0..=evaluations).map(|i| (i * at / evaluations, 1.5)).collect();
            let mut notes = Notes::default();
            let Ok(()) = draw(&mut notes, &loss_chart("", &losses, &evals, steps), 480);
            for (text, left, right) in &notes.words {
                assert!(*left >= 0.0 && *right <= f64::from(WIDTH), "{text} reaches from {left} to {right}");
            }
            let gaps = notes.dots.windows(2).map(|pair| pair[1].0 - pair[0].0);
            assert!(gaps.clone().all(|gap| gap == 0.0 || gap.abs() >= MARK - 0.01), "{:?}", notes.dots);
            assert!(!notes.dots.is_empty());
        }
    }

    #[test]
    fn thinning_keeps_ends_and_extremes() {
        let mut points: Vec<_> = (0..7000).map(|i| (f64::from(i) / 10.0, f64::from(i % 7))).collect();
        points[3333].1 = -50.0;
        let thin = thin_out(&points, 600);
        assert!(thin.len() <= 604 && thin.len() >= 300, "{}", thin.len());
        assert_eq!((thin[0], thin[thin.len() - 1]), (points[0], points[6999]));
        assert!(thin.contains(&points[3333]));
        assert_eq!(thin_out(&points[..10], 600), points[..10]);
        assert!(thin_out(&[], 600).is_empty());
    }
}
