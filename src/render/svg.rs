//! A chart as SVG, with its content in words for those who cannot see it.

use plotters::prelude::*;

use super::chart::Theme;
use super::draw::{SCALE, Stroke, draw};
use super::picture::{Pictured, WIDTH};
use crate::event::Chart;

/// A chart as an SVG document of 700 pixels width that scales down with its page.
///
/// `<title>` is the chart's title, `<desc>` tells first, last and lowest value of each line. Should drawing fail, the
/// picture is empty but for those two.
#[must_use]
pub fn svg(chart: &Chart, theme: Theme) -> String {
    document(chart, theme)
}

/// As [`svg`], of anything that has a picture.
pub(super) fn document(picture: &impl Pictured, theme: Theme) -> String {
    let (width, height) = (WIDTH, picture.height());
    let size = (width * SCALE, height * SCALE);
    let mut body = String::new();
    let drawn = draw(&SVGBackend::with_string(&mut body, size).into_drawing_area(), picture, theme, Stroke::Path);
    // plotters opens the document by itself, at canvas size: the first line gives way to one with the page's size.
    let shapes = match (drawn, body.split_once('\n')) {
        (Ok(()), Some((_, shapes))) => shapes.replace(" opacity=\"1\"", ""),
        _ => "</svg>\n".to_owned(),
    };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {} {}\" stroke-linejoin=\"round\" style=\"max-width:100%;height:auto\">\n\
         <title>{}</title>\n<desc>{}</desc>\n{shapes}",
        size.0,
        size.1,
        escape(&picture.title()),
        escape(&picture.describe()),
    )
}

/// Text as XML holds it; characters that XML forbids are left out.
fn escape(text: &str) -> String {
    let allowed = |c: &char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let text: String = text.chars().filter(allowed).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
