//! Events as HTML for notebooks: readable in light and dark, in a trusted notebook and in one whose styles are taken away.
//!
//! Styles stand at their elements. One rule goes beyond: it gives the colours of dark pages, which only a page itself
//! can tell. There are no scripts and nothing is fetched.

mod chart;
mod dashboard;
mod heat;
mod memory;
mod progress;
mod rows;
mod table;
mod tokens;

use super::ansi;
use super::palette::{DARK, LIGHT};
use crate::event::{Event, units};

pub(super) use dashboard::dashboard;
pub(super) use progress::progress;
pub(super) use rows::rows;

/// Pixels of a line of text, a bar, a chart.
const WIDTH: u32 = 700;
/// Text that matters less.
const MUTED: &str = "opacity:.72";
/// Lines and grounds that are seen on light and dark pages.
const HAIRLINE: &str = "rgba(128,128,128,.5)";
const CODE: &str = "font-family:var(--jp-code-font-family,var(--vscode-editor-font-family,monospace));font-size:12px";

/// Around SVG: where it is taken away its words would stay, without their places.
const SVG_ALONE: &str = "<div style=\"font-size:0px\">";

/// The HTML of an event that is shown once; nothing for one that has no other form than its text.
pub(super) fn html(event: &Event) -> Option<String> {
    let body = match event {
        Event::Text(text) if !text.trim().is_empty() => paragraph("", &lines(text)),
        Event::Warning(text) => paragraph(
            &format!("border-left:3px solid {};padding-left:9px", series(1)),
            &format!("<b>warning:</b> {}", lines(text)),
        ),
        Event::Next(commands) if !commands.is_empty() => next(commands),
        Event::Sampled { step, text } => paragraph("", &sample(*step, text)),
        Event::Table(sheet) => table::table(sheet),
        Event::Heat(map) => heat::heat(map),
        Event::Memory(report) => memory::memory(report),
        Event::Tokens(sample) => tokens::tokens(sample),
        _ => return None,
    };
    Some(page(&body))
}

/// A display: its content in the notebook's font.
fn page(body: &str) -> String {
    let colors = |name: &str, color: u32| format!("--ll-{name}:{};", hex(color));
    let dark: String = DARK.series.iter().enumerate().map(|(i, &color)| colors(&i.to_string(), color)).collect();
    format!(
        "<style>[data-jp-theme-light=false] .loralab,.vscode-dark .loralab,.vscode-high-contrast .loralab{{{dark}{}}}\
         </style>\n<div class=\"loralab\" style=\"font:13px/1.45 var(--jp-ui-font-family,var(--vscode-font-family,\
         system-ui,sans-serif));color:var(--jp-ui-font-color1,currentColor);margin:2px 0\">\n\
         {body}</div>\n",
        colors("best", DARK.best),
    )
}

/// Lines no longer than is read with ease.
fn paragraph(style: &str, html: &str) -> String {
    format!("<div style=\"margin:2px 0;max-width:{WIDTH}px;{style}\">{html}</div>\n")
}

/// A heading, which stays bold without styles.
fn heading(text: &str) -> String {
    format!("<div style=\"margin:8px 0 2px;max-width:{WIDTH}px\"><b>{}</b></div>\n", lines(text))
}

fn muted(text: &str) -> String {
    paragraph(MUTED, &lines(text))
}

/// What to type next.
fn next(commands: &[String]) -> String {
    let command = |command: &String| {
        let look =
            "background:rgba(128,128,128,.14);border-radius:3px;padding:1px 5px;color:inherit;white-space:pre-wrap";
        format!("<code style=\"{CODE};{look}\">{}</code>", text(command))
    };
    let commands: Vec<String> = commands.iter().map(command).collect();
    paragraph(
        "margin-top:4px;line-height:1.8",
        &format!("<span style=\"{MUTED}\">next:</span> {}", commands.join(" · ")),
    )
}

/// What an adapter says after this many steps.
fn sample(step: usize, said: &str) -> String {
    let step = units::count(step as u64);
    format!("<span style=\"{MUTED};font-variant-numeric:tabular-nums\">step {step}:</span> {}", lines(said.trim()))
}

/// The colour of the line or part with this index: of the dark palette where the page says that it is dark.
fn series(index: usize) -> String {
    let index = index % LIGHT.series.len();
    format!("var(--ll-{index},{})", hex(LIGHT.series[index]))
}

fn best() -> String {
    format!("var(--ll-best,{})", hex(LIGHT.best))
}

fn hex(color: u32) -> String {
    format!("#{color:06X}")
}

/// Text as HTML and XML hold it, on one line.
fn text(text: &str) -> String {
    escape(&text.replace(['\n', '\r'], " "))
}

/// Text as HTML holds it, its line breaks kept.
fn lines(text: &str) -> String {
    escape(text.trim_end_matches('\n')).replace('\n', "<br>")
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in ansi::clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML forbids these.
            '\u{fffe}' | '\u{ffff}' => {}
            // Jupyter's pages look for formulas between dollars.
            '$' => out.push_str("&#36;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
