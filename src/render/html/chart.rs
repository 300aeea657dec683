//! A chart as SVG inside a page, in the page's own colours and font.

use std::convert::Infallible;
use std::fmt::Write as _;

use super::{SVG_ALONE, best, series, text};
use crate::event::Chart;
use crate::render::chart::describe;
use crate::render::picture::{self, Anchor, Color, Paint, Pen, Point, WIDTH, Words, height};

/// Points of a line: enough for a page's width, few enough for an update.
const MOST_POINTS: usize = 400;

/// The chart without its title, which stands above it, described in words.
pub(super) fn chart(chart: &Chart) -> String {
    let untitled = Chart { title: String::new(), ..chart.clone() };
    let mut pen = Inline(String::new());
    let Ok(()) = picture::draw(&mut pen, &untitled, MOST_POINTS);
    let height = height(&untitled);
    let words = text(&describe(chart));
    format!(
        "{SVG_ALONE}<svg viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{words}\" \
         style=\"display:block;max-width:100%;height:auto;font-family:inherit\" fill=\"none\" stroke-linejoin=\"round\">\n\
         <title>{words}</title>\n{}</svg></div>\n",
        pen.0
    )
}

struct Inline(String);

impl Inline {
    fn line(&mut self, points: &[Point], thickness: f64, paint: Paint, more: &str) {
        let place = |&(x, y): &Point| format!("{x:.1},{y:.1}");
        let places: Vec<String> = points.iter().map(place).collect();
        let opacity = opacity("stroke-opacity", paint);
        let _ = writeln!(
            self.0,
            "<polyline points=\"{}\" style=\"stroke:{}\" stroke-width=\"{thickness}\"{opacity}{more}/>",
            places.join(" "),
            color(paint)
        );
    }
}

impl Pen for Inline {
    type Error = Infallible;

    fn path(&mut self, points: &[Point], thickness: f64, paint: Paint) -> Result<(), Infallible> {
        self.line(points, thickness, paint, "");
        Ok(())
    }

    fn dashed(&mut self, points: &[Point], thickness: f64, paint: Paint) -> Result<(), Infallible> {
        self.line(points, thickness, paint, " stroke-dasharray=\"5 4\"");
        Ok(())
    }

    fn dot(&mut self, (x, y): Point, radius: f64, paint: Paint) -> Result<(), Infallible> {
        let _ =
            writeln!(self.0, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" style=\"fill:{}\"/>", color(paint));
        Ok(())
    }

    fn words(&mut self, words: &Words<'_>, paint: Paint) -> Result<(), Infallible> {
        let anchor = match words.anchor {
            Anchor::Left => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::Right => " text-anchor=\"end\"",
        };
        let weight = if words.bold { " font-weight=\"600\"" } else { "" };
        // The base line that centres digits and capitals.
        let (x, y) = (words.at.0, words.at.1 + 0.36 * words.size);
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{}\"{anchor}{weight} style=\"fill:{}\"{}>{}</text>",
            words.size,
            color(paint),
            opacity("fill-opacity", paint),
            text(words.text)
        );
        Ok(())
    }
}

fn color(paint: Paint) -> String {
    match paint.color {
        Color::Text => "currentColor".to_owned(),
        Color::Series(index) => series(index),
        Color::Best => best(),
    }
}

fn opacity(attribute: &str, paint: Paint) -> String {
    if paint.opacity < 1.0 { format!(" {attribute}=\"{}\"", paint.opacity) } else { String::new() }
}
