//! A heat map: a table whose cells have grounds.

use super::{HAIRLINE, heading, muted, text};
use crate::event::{Heat, HeatScale};
use crate::render::heat::number;
use crate::render::shade::ground;

const CELL: &str = "border:0;padding:1px 7px;text-align:right;white-space:nowrap";

/// The map with its title, what its shades mean and its note.
pub(super) fn heat(map: &Heat) -> String {
    let mut out = if map.title.is_empty() { String::new() } else { heading(&map.title) };
    if map.rows.is_empty() || map.columns.is_empty() {
        return out + &muted("no numbers");
    }
    out += "<div style=\"overflow-x:auto\"><table style=\"border-collapse:separate;border-spacing:1px;border:0;\
            margin:6px 0;font-size:12px;font-variant-numeric:tabular-nums\">\n<thead><tr style=\"background:none\">";
    for name in std::iter::once(map.row).chain(map.columns.iter().map(String::as_str)) {
        out += &format!(
            "<th scope=\"col\" align=\"right\" style=\"{CELL};font-weight:600;border-bottom:1.5px solid {HAIRLINE}\">{}</th>",
            text(name)
        );
    }
    out += "</tr></thead>\n<tbody>\n";
    for (name, values) in map.rows.iter().zip(&map.values) {
        let name = text(name);
        out += &format!(
            "<tr style=\"background:none\"><th scope=\"row\" align=\"right\" style=\"{CELL};font-weight:400\">{name}</th>"
        );
        for &value in values {
            let color = map.shade(value).map_or_else(|| "none".to_owned(), ground);
            let number = text(&number(map, value));
            out += &format!("<td align=\"right\" style=\"{CELL};background:{color}\">{number}</td>");
        }
        out += "</tr>\n";
    }
    out += "</tbody></table></div>\n";
    out += &muted(&legend(map));
    if map.note.is_empty() { out } else { out + &muted(&map.note) }
}

fn legend(map: &Heat) -> String {
    let (low, high) = map.range();
    match map.scale {
        HeatScale::Amount => {
            format!("the stronger the blue, the higher: {} to {}", number(map, low), number(map, high))
        }
        HeatScale::Signed => {
            format!("blue is positive, orange negative: {} to {}", number(map, low), number(map, high))
        }
    }
}
