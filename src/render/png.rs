//! A chart as PNG at twice the page's size, for sharp pictures on fine screens.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::{env, fs, process};

use plotters::prelude::*;

use super::chart::Theme;
use super::draw::{SCALE, Stroke, draw};
use super::picture::{Pictured, WIDTH};
use crate::error::{Error, Kind, Result};
use crate::event::Chart;

/// Pixels of the picture for one of the page.
const SHARPNESS: u32 = 2;

/// A chart as a PNG file of 1400 pixels width.
///
/// # Errors
/// [`Kind::Io`] if the folder for temporary files cannot be written.
pub fn png(chart: &Chart, theme: Theme) -> Result<Vec<u8>> {
    file(chart, theme)
}

/// As [`png`], of anything that has a picture.
///
/// # Errors
/// As [`png`].
pub(super) fn file(picture: &impl Pictured, theme: Theme) -> Result<Vec<u8>> {
    let Pixels { rgb, width, height } = Pixels::of(picture, theme, SHARPNESS)?;
    encode(&rgb, (width, height))
}

/// A picture, three bytes a pixel.
pub(super) struct Pixels {
    pub(super) rgb: Vec<u8>,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Pixels {
    /// A chart in the page's own size.
    ///
    /// # Errors
    /// [`Kind::Bug`] if plotters refuses.
    pub(super) fn of_page(chart: &Chart, theme: Theme) -> Result<Self> {
        Self::of(chart, theme, 1)
    }

    /// A picture with so many pixels for one of the page.
    fn of(picture: &impl Pictured, theme: Theme, sharpness: u32) -> Result<Self> {
        let height = picture.height();
        let canvas = (WIDTH * SCALE, height * SCALE);
        let mut pixels = vec![0; (canvas.0 * canvas.1 * 3) as usize];
        let area = BitMapBackend::with_buffer(&mut pixels, canvas).into_drawing_area();
        draw(&area, picture, theme, Stroke::Segments)?;
        drop(area);
        let rgb = shrink(&pixels, canvas.0, SCALE / sharpness);
        Ok(Self { rgb, width: WIDTH * sharpness, height: height * sharpness })
    }
}

/// The mean of each square of `factor` × `factor` pixels, three bytes each: smooth edges for lines drawn without.
fn shrink(pixels: &[u8], width: u32, factor: u32) -> Vec<u8> {
    let (row, factor) = (width as usize * 3, factor as usize);
    let mut out = Vec::with_capacity(pixels.len() / (factor * factor));
    for band in pixels.chunks_exact(row * factor) {
        for x in (0..row).step_by(3 * factor) {
            for channel in 0..3 {
                let square = (0..factor).flat_map(|i| (0..factor).map(move |j| i * row + x + 3 * j + channel));
                let sum: usize = square.map(|at| usize::from(band[at])).sum();
                out.push((sum / (factor * factor)) as u8);
            }
        }
    }
    out
}

/// `pixels` as a PNG file. plotters encodes into files only, so this goes through one in a folder of its own.
fn encode(pixels: &[u8], size: (u32, u32)) -> Result<Vec<u8>> {
    let folder = Folder::new()?;
    let path = folder.0.join("chart.png");
    let mut backend = BitMapBackend::new(&path, size);
    backend
        .blit_bitmap((0, 0), size, pixels)
        .and_then(|()| backend.present())
        .map_err(|e| Error::new(Kind::Io, format!("cannot write the chart to {}: {e}", path.display())))?;
    drop(backend);
    fs::read(&path).map_err(|e| Error::io("read", &path, e))
}

/// A temporary folder that goes away with its content.
struct Folder(PathBuf);

impl Folder {
    /// Making a folder fails if the name is taken, so nobody else's file can stand in for it.
    fn new() -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut tries = 0;
        loop {
            let name = format!("loralab-chart-{}-{}", process::id(), NEXT.fetch_add(1, Relaxed));
            let path = env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && tries < 100 => tries += 1,
                Err(e) => return Err(Error::io("make the folder", &path, e)),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that cannot be removed is left to the system's own tidying.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shrinking_takes_means() {
        let two_by_two = [0, 0, 0, 100, 100, 100, 0, 0, 8, 100, 100, 108];
        assert_eq!(shrink(&two_by_two, 2, 2), [50, 50, 54]);
        assert_eq!(shrink(&two_by_two, 2, 1), two_by_two);
        assert!(shrink(&[], 2, 2).is_empty());
    }
}
