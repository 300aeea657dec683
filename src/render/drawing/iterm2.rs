//! iTerm2's inline images: a PNG as base64 in an operating system command.

use crate::render::base64::base64;

/// The picture, `columns` wide and as high as that makes it.
pub(super) fn encode(png: &[u8], columns: usize) -> String {
    let size = png.len();
    format!("\x1b]1337;File=inline=1;size={size};width={columns};preserveAspectRatio=1:{}\x07", base64(png))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_one_command() {
        assert_eq!(encode(b"foobar", 80), "\x1b]1337;File=inline=1;size=6;width=80;preserveAspectRatio=1:Zm9vYmFy\x07");
    }
}
