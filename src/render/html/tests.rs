//! Displays as HTML: against golden files, and what must hold of all of them.

use std::time::Duration;

use super::*;
use crate::event::{Chart, Evaluated, Mark, Progress, RunEnded, RunInfo, Step, Table, TokenSample, Unit};
use crate::render::board::Board;
use crate::render::rows::Row;
use crate::render::tests::{fixtures, golden, is_well_formed, noisy};

fn started(steps: usize) -> Event {
    Event::RunStarted(RunInfo {
        run: "0007".into(),
        title: "r16 on demo · NF4".into(),
        subtitle: "rank 16, alpha 32, all linear layers · 4.88 M trainable (3.5 %) · CPU, bf16".into(),
        first_step: 1,
        steps,
        ..RunInfo::default()
    })
}

/// A run after `at` of `steps` steps, evaluated `evaluations` times.
fn board(at: usize, steps: usize, evaluations: usize) -> Board {
    let mut board = Board::default();
    board.apply(&started(steps));
    let mut seed = 7u64;
    for step in 1..=at {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let noise = (seed >> 33) as f64 / (1u64 << 31) as f64 - 0.5;
        board.apply(&Event::Step(Step {
            step,
            loss: 1.28 + 1.35 * (-7.0 * step as f64 / steps as f64).exp() + 0.4 * noise,
            grad_norm: 1.0,
            learning_rate: 2e-4,
            tokens: 1024,
            elapsed: Duration::from_secs_f64(step as f64 * 1024.0 / 612.0),
            resident_bytes: 483_200_000,
        }));
        if step.is_multiple_of(at / evaluations) {
            let loss = 1.33 + 1.25 * (-7.0 * step as f64 / steps as f64).exp();
            board.apply(&Event::Evaluated(Evaluated { step, loss, best: true }));
            board.apply(&Event::Sampled { step, text: format!("It is <a> thing after {step} steps. ").repeat(3) });
        }
    }
    board
}

fn ended(interrupted: bool) -> Board {
    let mut board = board(100, 100, 5);
    board.apply(&Event::RunEnded(RunEnded {
        sentence: "r16: 100 steps in 2:47. Held-out loss 1.64 → 1.33 ± 0.03.".into(),
        kept: "runs/0007 · adapter, metrics, chart".into(),
        interrupted,
        chart: board.chart(),
    }));
    board
}

fn stopped() -> Board {
    let mut board = board(67, 100, 3);
    board.stop();
    board
}

fn row(adapter: &str, text: &str) -> Row {
    Row { adapter: adapter.into(), text: text.into(), ended: true }
}

/// Every kind of display by its name.
fn all() -> Vec<(&'static str, String)> {
    let mut out = vec![
        ("running", dashboard(&board(67, 100, 3), false)),
        ("before-the-first-step", {
            let mut board = Board::default();
            board.apply(&started(100));
            dashboard(&board, false)
        }),
        ("ended", dashboard(&ended(false), true)),
        ("interrupted", dashboard(&ended(true), true)),
        ("stopped", dashboard(&stopped(), false)),
        ("one-row", rows(&[row("r16", "A sample\nname.\n")])),
        ("three-rows", {
            let said = [("base", "Nobody knows what it is."), ("r16", "Nobody <knows> it."), ("r32", "A name.")];
            rows(&said.map(|(adapter, text)| row(adapter, text)))
        }),
    ];
    for event in fixtures() {
        let name = match event {
            Event::Text(_) => "text",
            Event::Warning(_) => "warning",
            Event::Next(_) => "next",
            Event::Table(_) => "table",
            Event::Memory(_) => "memory",
            Event::Tokens(_) => "tokens",
            Event::Sampled { .. } => "sample",
            Event::Progress(now) => {
                out.push(("progress", progress(&now)));
                continue;
            }
            other => {
                assert!(html(&other).is_none(), "{other:?}");
                continue;
            }
        };
        out.push((name, html(&event).expect("it has a form of its own")));
    }
    out
}

#[test]
fn every_display_is_as_it_should_look() {
    for (name, html) in all() {
        golden::check(&format!("{name}.html"), &html);
    }
}

#[test]
fn every_display_is_well_formed_and_fetches_nothing() {
    for (name, html) in all() {
        assert!(is_well_formed(&html), "{name}: {html}");
        for foreign in ["<script", "http", "url(", "@import", "<img", " onload", "<link"] {
            assert!(!html.contains(foreign), "{name} has {foreign}");
        }
    }
}

#[test]
fn colours_are_those_of_light_and_dark_pages() {
    let html = dashboard(&ended(false), false);
    assert!(html.contains("[data-jp-theme-light=false] .loralab") && html.contains("--ll-0:#56B4E9"), "{html}");
    assert!(
        html.contains("stroke:var(--ll-0,#0072B2)") && html.contains("color:var(--jp-ui-font-color1,currentColor)")
    );
}

#[test]
fn what_colour_says_is_said_in_words_too() {
    let all = all();
    let html = |name: &str| &all.iter().find(|(n, _)| *n == name).expect("it is shown").1;
    assert!(html("ended").contains("<b>best</b>") && html("ended").contains("stroke-dasharray"));
    assert!(html("ended").contains("aria-label=\"loss over step. train 1."), "{}", html("ended"));
    assert!(html("running").contains("role=\"progressbar\"") && html("running").contains("aria-valuenow=\"67\""));
    assert!(
        html("running").contains("<b>67</b> of 100 · 67 % · 612 tok/s · 55 s left · 483 MB"),
        "{}",
        html("running")
    );
    assert!(html("stopped").contains("<b>stopped</b> at 67 of 100 · 67 % · 612 tok/s · 483 MB"), "{}", html("stopped"));
    assert!(html("memory").contains("<title>NF4 weights 53.1 MB, constants 1.7 MB"));
    assert!(html("tokens").contains("<ins ") && html("tokens").contains("<del "));
    assert!(
        html("table").contains("<th scope=\"col\" align=\"right\"") && html("table").contains("<td align=\"right\"")
    );
    assert!(html("three-rows").contains("<u>"));
}

#[test]
fn an_update_is_small_however_long_the_run() {
    for (steps, evaluations) in [(100, 5), (1400, 60), (100_000, 1000)] {
        let board = board(steps, steps + 1, evaluations);
        let html = dashboard(&board, false);
        let text = board.page(100, crate::render::Ink::PLAIN);
        assert!(html.len() + text.len() <= 30_000, "{} + {} bytes after {steps} steps", html.len(), text.len());
    }
}

#[test]
fn what_users_write_stays_text() {
    let hostile = "</div><script>alert(1)</script>\"'&\u{0}\u{1b}[2J\u{202e} $x$";
    let events = [
        Event::Text(hostile.into()),
        Event::Warning(hostile.into()),
        Event::Next(vec![hostile.into()]),
        Event::Table(Table {
            title: hostile.into(),
            columns: vec!["<b>"],
            rows: vec![vec![hostile.into()]],
            best: Some(0),
            note: hostile.into(),
        }),
        Event::Tokens(TokenSample { title: hostile.into(), tokens: vec![(hostile.into(), Mark::Trained)] }),
        Event::Sampled { step: 1, text: hostile.into() },
    ];
    let progress = Progress { label: hostile.into(), detail: hostile.into(), done: 1, total: 2, unit: Unit::Items };
    let mut board = Board::default();
    let mut chart = noisy(30);
    chart.series[1].name = hostile.into();
    board.apply(&Event::RunEnded(RunEnded {
        sentence: hostile.into(),
        kept: hostile.into(),
        interrupted: true,
        chart: Chart { title: hostile.into(), ..chart },
    }));
    let more = [self::progress(&progress), dashboard(&board, true), rows(&[row(hostile, hostile), row("a", hostile)])];
    for html in events.iter().filter_map(html).chain(more) {
        assert!(is_well_formed(&html), "{html}");
        assert!(!html.contains("<script") && !html.contains(['\u{0}', '\u{1b}', '\u{202e}', '$']), "{html}");
        assert!(html.contains("&lt;/div&gt;&lt;script&gt;"), "{html}");
    }
}

#[test]
fn nothing_is_shown_for_nothing() {
    assert!(html(&Event::Text(" \n".into())).is_none());
    assert!(html(&Event::Next(vec![])).is_none());
    assert!(html(&Event::Table(Table::default())).is_some_and(|html| html.contains("no rows")));
    assert!(!dashboard(&Board::default(), false).contains("<svg"));
    assert!(rows(&[row("base", "same"), row("r16", "same")]).matches("same").count() == 2);
}
