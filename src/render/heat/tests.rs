//! Heat maps as text of any width, and as pictures.

use super::*;
use crate::event::Cell;
use crate::render::picture::Pictured;
use crate::render::{Theme, png, svg};

fn map(rows: usize, columns: usize, scale: HeatScale) -> Heat {
    let value = |r: usize, c: usize| match scale {
        HeatScale::Amount => 0.05 + (r * columns + c) as f64 * 0.001,
        HeatScale::Signed => ((r + c) % 5) as f64 * 0.01 - 0.02,
    };
    Heat {
        title: "error of <NF4>".to_owned(),
        row: "layer",
        rows: (0..rows).map(|r| r.to_string()).collect(),
        columns: (0..columns).map(|c| ["q_proj", "k_proj", "down_proj"][c % 3].to_owned()).collect(),
        values: (0..rows).map(|r| (0..columns).map(|c| value(r, c)).collect()).collect(),
        scale,
        cell: Cell::Share,
        note: "a remark".to_owned(),
    }
}

#[test]
fn numbers_stand_beside_shades() {
    let mut amounts = map(2, 3, HeatScale::Amount);
    amounts.values[1][1] = f64::NAN;
    assert_eq!(
        heat(&amounts, 60, Ink::PLAIN),
        "error of <NF4>\n\
         layer    q_proj    k_proj down_proj\n    \
             0     5.0 %    ░5.1 %    ▒5.2 %\n    \
             1    ▒5.3 %         ·    █5.5 %\n\
         5.0 % to █ 5.5 %\na remark\n"
    );
}

#[test]
fn every_width_holds_its_lines() {
    for scale in [HeatScale::Amount, HeatScale::Signed] {
        for columns in [1, 7, 40] {
            for width in [100, 60, 48] {
                let text = heat(&map(3, columns, scale), width, Ink::PLAIN);
                assert!(text.lines().all(|l| ansi::width(l) <= width), "{columns} in {width}:\n{text}");
                assert!(text.contains(['░', '▒', '▓', '█']), "{text}");
            }
        }
    }
    assert!(heat(&map(3, 7, HeatScale::Signed), 60, Ink::PLAIN).contains(['-', '=', '≡']));
}

#[test]
fn colours_carry_the_same_numbers() {
    let text = heat(&map(2, 3, HeatScale::Signed), 80, Ink::COLOR);
    assert!(text.contains("48;5;166") && !text.contains('░'), "{text}");
    assert!(text.contains("−2.0 %") && text.contains(" 0 %"), "{text}");
}

#[test]
fn nothing_is_said_to_be_nothing() {
    assert!(heat(&map(0, 3, HeatScale::Amount), 60, Ink::PLAIN).contains("no numbers"));
    assert!(heat(&map(3, 0, HeatScale::Amount), 60, Ink::PLAIN).contains("no numbers"));
    assert!(map(3, 0, HeatScale::Amount).is_empty());
}

#[test]
fn pictures_hold_every_cell_and_say_what_they_show() {
    for scale in [HeatScale::Amount, HeatScale::Signed] {
        let map = map(30, 7, scale);
        let text = svg::document(&map, Theme::Light);
        assert!(crate::render::tests::is_well_formed(&text), "{text}");
        assert!(text.contains("<title>error of &lt;NF4&gt;</title>") && text.contains("30 rows by 7 columns."));
        assert!(text.matches("<text").count() > 30 * 7, "{}", text.matches("<text").count());
        assert!(png::file(&map, Theme::Dark).is_ok_and(|file| file.starts_with(b"\x89PNG")));
    }
    assert!(describe(&map(2, 2, HeatScale::Amount)).ends_with("layer 0, q_proj; highest 5.3 % at layer 1, k_proj."));
}
