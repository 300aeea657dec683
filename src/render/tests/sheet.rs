//! A sheet: a chart above its table, both of which fill.

use super::golden;
use crate::event::{Cell, Chart, Event, Series, Sheet, Style, Table};
use crate::render::{Output, Plain, Screen, Theme, svg};

fn series(name: &str, points: &[(f64, f64)], style: Style) -> Series {
    Series { name: name.into(), points: points.to_vec(), style }
}

/// A sweep over ranks of which so many are done.
fn sheet(done: usize, ends: bool) -> Sheet {
    let losses = [(2.0, 1.52), (4.0, 1.44), (8.0, 1.385), (16.0, 1.352), (32.0, 1.356), (64.0, 1.351)];
    let losses = &losses[..done];
    let bars: Vec<_> = losses.iter().flat_map(|(x, y)| [(*x, y - 0.02), (*x, y + 0.02)]).collect();
    let front: Vec<_> = losses.iter().copied().filter(|(x, _)| *x != 32.0).collect();
    let chosen: Vec<_> = losses.iter().copied().filter(|(x, _)| *x == 16.0 && ends).collect();
    let chart = Chart {
        title: "sweep on demo · NF4 · 12 trials, 2 seeds".into(),
        x: "rank",
        y: "held-out loss",
        series: vec![
            series("", &bars, Style::Bars),
            series("", &front, Style::Dots),
            series("", losses, Style::Points),
            series("chosen", &chosen, Style::Best),
        ],
        x_max: None,
    };
    let row = |rank: &(f64, f64)| vec![Cell::Count(rank.0 as u64), Cell::Number(rank.1, 3)];
    let table = Table {
        columns: vec!["rank", "held out"],
        rows: losses.iter().map(row).collect(),
        best: ends.then_some(3),
        ..Table::default()
    };
    Sheet { chart, table, spare: vec!["held out"], ends }
}

#[test]
fn it_looks_as_it_should() {
    let plain = Plain { width: 80, color: false };
    assert_eq!(plain.render(&Event::Sheet(sheet(3, false).into())), "", "what fills is shown at its end");
    let sheet = sheet(6, true);
    golden::check("sheet.txt", &plain.render(&Event::Sheet(sheet.clone().into())));
    golden::check("sheet.svg", &svg(&sheet.chart, Theme::Light));
    let words = crate::render::describe(&sheet.chart);
    assert!(words.contains("A line: fell from 1.520 at 2 to 1.351 at 64"), "{words}");
    assert!(words.contains("chosen: 1.352 at 16."), "{words}");
}

#[test]
fn in_a_notebook_it_stays_in_one_place() {
    let mut screen = Screen::new("cell");
    assert!(screen.apply(&Event::Sheet(sheet(0, false).into())).is_empty());
    let [Output::Display(first)] = &screen.due()[..] else { panic!("no display") };
    assert!(first.data["text/html"].as_str().unwrap().contains("no rows"));
    assert!(screen.due().is_empty(), "nothing has moved");
    screen.apply(&Event::Sheet(sheet(2, false).into()));
    let [Output::Update(second)] = &screen.due()[..] else { panic!("no update") };
    assert_eq!(first.display_id, second.display_id);
    // What is said meanwhile stands below it.
    let [Output::Display(said)] = &screen.apply(&Event::Text("so it is".into()))[..] else { panic!("no display") };
    assert_ne!(said.display_id, first.display_id);
    let [Output::Update(last), Output::Display(picture)] = &screen.apply(&Event::Sheet(sheet(6, true).into()))[..]
    else {
        panic!("no end")
    };
    assert_eq!(last.display_id, first.display_id);
    assert!(picture.data.contains_key("image/png") && picture.data.contains_key("image/svg+xml"));
    assert!(super::is_well_formed(last.data["text/html"].as_str().unwrap().split_once("</style>").unwrap().1));
    assert!(screen.finish().is_empty());

    // One that does not come to its end is shown as far as it came.
    let mut screen = Screen::new("cell");
    screen.apply(&Event::Sheet(sheet(3, false).into()));
    assert!(matches!(&screen.finish()[..], [Output::Display(_)]));
}
