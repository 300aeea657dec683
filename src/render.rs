//! Events as text, HTML, SVG and PNG: the one place that decides what a result looks like.
//!
//! Front ends hand over an [`Event`](crate::event::Event) and get text with or without colour ([`Plain`]), a picture
//! ([`svg`], [`png`]), the outputs of a notebook's cell ([`Screen`]), or let [`Terminal`] print everything as it comes.
//! Nothing here knows a session, a notebook's file or a tensor. The same content stands in the same order everywhere: a
//! bold heading, the picture, the table, the sentence that says the result, what was kept, what to type next.

mod ansi;
mod ascii;
mod base64;
mod board;
mod braille;
mod chart;
mod draw;
mod drawing;
mod evaluations;
mod failure;
mod font;
mod heat;
mod html;
mod memory;
mod number;
mod output;
mod palette;
mod picture;
mod plain;
mod png;
mod rows;
mod screen;
mod shade;
mod svg;
mod table;
mod terminal;
mod tokens;

pub use ansi::{Ink, fit};
pub use ascii::ascii;
pub use base64::base64;
pub use board::Board;
pub use braille::braille;
pub use chart::{Theme, describe};
pub use drawing::Drawing;
pub use failure::failure;
pub use memory::memory;
pub use number::{cell, is_numeric};
pub use output::{Bundle, Output};
pub use plain::Plain;
pub use png::png;
pub use screen::Screen;
pub use svg::svg;
pub use table::table;
pub use terminal::{Terminal, TerminalOptions};
pub use tokens::tokens;

#[cfg(test)]
mod tests;
