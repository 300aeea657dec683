//! The embedded font: how plotters gets it, how wide text is in it.

use std::sync::Once;

use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

/// The font at a size in pixels as browsers understand it; plotters' sizes are 1.24 times that.
pub(super) fn font(size: f64, bold: bool) -> FontDesc<'static> {
    static ONCE: Once = Once::new();
    // Without a font plotters draws nothing, SVG included. One that is refused shows as an error of the first text drawn.
    ONCE.call_once(|| {
        let _ = register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
        let _ = register_font("sans-serif", FontStyle::Bold, dejavu::sans::bold());
    });
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    FontDesc::new(FontFamily::SansSerif, size * 1.24, style)
}

/// Width of bold text in pixels: no browser's own font is much wider.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    // Measured large, since plotters counts whole pixels.
    font(size * 8.0, true).box_size(text).map_or(0.0, |(width, _)| f64::from(width) / 8.0)
}
