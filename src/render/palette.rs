//! The colours of charts and marks: Okabe and Ito's palette for all kinds of colour vision, darker on light pages and
//! lighter on dark ones.

/// Colours as 0xRRGGBB.
pub(super) struct Palette {
    pub(super) background: u32,
    pub(super) text: u32,
    pub(super) series: [u32; 8],
    pub(super) best: u32,
}

pub(super) const LIGHT: Palette = Palette {
    background: 0xFF_FFFF,
    text: 0x21_2121,
    series: [0x00_72B2, 0xD5_5E00, 0x00_7A59, 0xB0_5C8C, 0xB0_7A00, 0x3A_93C4, 0x5B_4B9E, 0x6B_6B6B],
    best: 0x00_7A59,
};

pub(super) const DARK: Palette = Palette {
    background: 0x11_1111,
    text: 0xDE_DEDE,
    series: [0x56_B4E9, 0xFF_8C42, 0x2B_D4A4, 0xE3_9CC3, 0xF0_E442, 0x8F_A8FF, 0xFF_6B6B, 0xB0_B0B0],
    best: 0x2B_D4A4,
};

/// The parts of a bar, on pages of either kind. The last is for what is not the user's.
pub(super) const PARTS: [u32; 8] =
    [0x00_72B2, 0x56_B4E9, 0x00_9E73, 0xE6_9F00, 0xF0_E442, 0xD5_5E00, 0xCC_79A7, 0x99_9999];
