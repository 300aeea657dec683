//! Every event as text against golden strings, and the pictures against what must be in them.

use super::*;
use crate::event::{
    Cell, Chart, Evaluated, Event, Mark, MemoryPart, MemoryReport, Progress, RunEnded, RunInfo, Series, Step, Style,
    Table, TokenSample, Unit, loss_chart,
};

pub(super) mod golden;
mod sheet;

pub(super) fn fixtures() -> Vec<Event> {
    let text = |t: &str| Cell::Text(t.into());
    let sweep = Table {
        title: "rank sweep over one NF4 base · 4 trials, 2 seeds · 31 min".into(),
        columns: vec!["rank", "alpha", "parameters", "held out", "± seeds", "to best", "share", "adapter", "time", "remark"],
        rows: vec![
            vec![Cell::Count(4), Cell::Count(8), text("1.22 M"), Cell::Number(1.44, 3), Cell::Number(0.018, 3), Cell::Signed(0.088, 3), Cell::Share(0.009), Cell::Bytes(4_900_000), Cell::Seconds(412.0), Cell::Empty],
            vec![Cell::Count(16), Cell::Count(32), text("4.88 M"), Cell::Number(1.352, 3), Cell::Number(0.009, 3), text("chosen"), Cell::Share(0.035), Cell::Bytes(19_500_000), Cell::Seconds(430.0), text("the smallest rank within noise of the lowest")],
            vec![Cell::Count(1024), Cell::Count(2048), text("312 M"), Cell::Number(f64::NAN, 3), Cell::Empty, Cell::Signed(-0.003, 3), Cell::Share(0.7), Cell::Bytes(1_250_000_000), Cell::Seconds(4000.0), text("日本語 diverged")],
            vec![Cell::Count(64)],
        ],
        best: Some(1),
        note: "Chosen: the smallest rank within noise of the lowest (paired over 176 held-out rows); general loss grows with rank.".into(),
    };
    let part = |name: &str, bytes, why: &str| MemoryPart { name: name.into(), bytes, why: why.into() };
    let memory = MemoryReport {
        planned: false,
        parts: vec![
            part("NF4 weights", 53_100_000, "106 M weights × 4 bit"),
            part("constants", 1_700_000, "0.127 bit a weight with double quantization"),
            part("embedding, norms", 56_700_000, "16 bit, tied"),
            part("adapters", 19_500_000, "4.88 M × f32"),
            part("gradients", 19_500_000, "as adapters"),
            part("AdamW", 39_100_000, "two moments; paging would save nothing here"),
            part("activations", 246_300_000, "4 × 256 tokens, 30 layers, no logits stored"),
            part("program", 40_000_000, "code, tokenizer"),
        ],
        resident_bytes: 483_000_000,
        device_bytes: 0,
        peak_bytes: 512_000_000,
    };
    let token = |t: &str, mark| (t.to_owned(), mark);
    let mut tokens: Vec<_> =
        ["<|im_start|>", "user\n", "What", " does", " “", "foo", "”", " mean", "?", "<|im_end|>\n"]
            .map(|t| token(t, Mark::Masked))
            .to_vec();
    tokens.extend(
        ["A", " sample", " name", " for", " absolutely", " anything", ".", "<|im_end|>"]
            .map(|t| token(t, Mark::Trained)),
    );
    tokens.extend(["<pad>"; 5].map(|t| token(t, Mark::Padding)));
    let losses: Vec<(usize, f64)> =
        (1..=60).map(|s| (s, 1.3 + 1.3 * (-(s as f64) / 12.0).exp() + if s % 2 == 0 { 0.1 } else { -0.1 })).collect();
    let evals: Vec<(usize, f64)> = vec![(0, 2.61), (15, 1.8), (30, 1.42), (45, 1.36), (60, 1.38)];
    let chart = loss_chart("r16 on demo · NF4", &losses, &evals, 60);
    vec![
        Event::Text(
            "merged r16 into the original weights: held-out loss 1.362 before, 1.362 after, difference 0.000 ± 0.001"
                .into(),
        ),
        Event::Stream { text: "verbatim  <b>\n".into(), error: false },
        Event::Warning("the rows of jargon.valid were trained on; their loss says nothing about new text".into()),
        Event::Next(
            ["restore best", "eval jargon.valid --adapters base,jargon-r16", "diagnose"].map(str::to_owned).to_vec(),
        ),
        Event::Table(sweep),
        Event::Chart(chart.clone()),
        Event::Memory(memory),
        Event::Tokens(TokenSample { title: "jargon, sample 3 of 1,584".into(), tokens }),
        Event::Progress(Progress {
            label: "quantizing".into(),
            detail: "model.layers.3.mlp.down_proj".into(),
            done: 61_200_000,
            total: 135_000_000,
            unit: Unit::Bytes,
        }),
        Event::Generated { adapter: "r16".into(), text: "A sample".into(), begins: true, ends: false },
        Event::Generated { adapter: "r16".into(), text: " name.\u{1b}[2J".into(), begins: false, ends: true },
        Event::RunStarted(RunInfo {
            run: "0007".into(),
            title: "r16 on demo · NF4".into(),
            subtitle: "rank 16, alpha 32, all linear layers · 4.88 M trainable (3.5 %) · 1,584 samples · CPU, bf16"
                .into(),
            first_step: 1,
            steps: 60,
            ..RunInfo::default()
        }),
        Event::Step(Step {
            step: 1,
            loss: 2.6,
            grad_norm: 1.0,
            learning_rate: 2e-4,
            tokens: 1024,
            elapsed: std::time::Duration::from_secs(1),
            resident_bytes: 483_000_000,
        }),
        Event::Evaluated(Evaluated { step: 0, loss: 2.61, best: true }),
        Event::Sampled { step: 0, text: "A thing\n<of> any kind.\u{1b}[2J ".into() },
        Event::RunEnded(RunEnded {
            sentence:
                "r16: 60 steps in 13:57. Held-out loss 2.61 → 1.36 ± 0.03, lowest at step 45; no gain after that."
                    .into(),
            kept: "runs/0007 · adapter, optimizer state, metrics, chart".into(),
            interrupted: false,
            chart,
        }),
    ]
}

/// Every event one after the other, a line `%%` behind each.
fn all(width: usize, color: bool) -> String {
    fixtures().iter().map(|event| Plain { width, color }.render(event) + "%%\n").collect()
}

fn without_escapes(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    first + &parts.map(|part| part.split_once('m').map_or(part, |(_, rest)| rest)).collect::<String>()
}

/// A chart of training as it really looks: noise around an exponential fall.
pub(super) fn noisy(steps: usize) -> Chart {
    let mut seed = 7u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as f64 / (1u64 << 31) as f64 - 0.5
    };
    let fall = |step: usize| (-7.0 * step as f64 / steps as f64).exp();
    let noise = (1..=steps).map(|step| (step, 1.28 + 1.35 * fall(step) + 0.4 * random()));
    let losses: Vec<(usize, f64)> = noise.collect();
    let rise = |step: usize| 0.13 * (step as f64 / steps as f64 - 0.5).max(0.0);
    let evals: Vec<(usize, f64)> =
        (0..=10).map(|i| i * steps / 10).map(|step| (step, 1.33 + 1.25 * fall(step) + rise(step))).collect();
    loss_chart("r16 <on> \"demo\" & more", &losses, &evals, steps)
}

fn odd_charts() -> Vec<Chart> {
    let odd = [vec![], vec![(1.0, 2.0)], vec![(1.0, 3.0), (2.0, 3.0)], vec![(f64::NAN, 1.0), (1.0, f64::INFINITY)]];
    let style = [Style::Faint, Style::Bold, Style::Marked, Style::Bold];
    let chart = |(points, style)| Chart {
        y: "loss",
        series: vec![Series { name: "a\u{0}<b>".into(), points, style }],
        x_max: Some(f64::NAN),
        ..Chart::default()
    };
    odd.into_iter().zip(style).map(chart).chain([Chart::default()]).collect()
}

/// Whether every element is closed in turn and nothing but entities follows an ampersand.
pub(super) fn is_well_formed(xml: &str) -> bool {
    let mut open = Vec::new();
    for part in xml.split('<').skip(1) {
        let Some((tag, text)) = part.split_once('>') else { return false };
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        if let Some(closed) = tag.strip_prefix('/') {
            if open.pop() != Some(closed) {
                return false;
            }
        } else if !tag.ends_with('/') && !["br", "wbr"].contains(&name) {
            open.push(name);
        }
        let known =
            |entity: &str| ["amp;", "lt;", "gt;", "quot;", "apos;", "#36;"].iter().any(|e| entity.starts_with(e));
        if tag.matches('"').count() % 2 != 0 || text.contains('>') || !text.split('&').skip(1).all(known) {
            return false;
        }
    }
    open.is_empty()
}

#[test]
fn every_event_is_as_it_should_look_at_width_100() {
    golden::check("wide.txt", &all(100, false));
}

#[test]
fn every_event_is_as_it_should_look_at_width_60() {
    golden::check("narrow.txt", &all(60, false));
}

#[test]
fn colour_changes_the_look_and_not_the_words() {
    let (colored, plain) = (without_escapes(&all(100, true)), all(100, false));
    for words in
        ["held out 1.38", "16     32", "18 tokens", "kept: runs/0007", "next: restore best", "warning: the rows"]
    {
        assert!(colored.contains(words) && plain.contains(words), "{words}");
    }
    assert!(all(100, true).contains("\u{1b}[1;32m   16     32"));
}

#[test]
fn no_width_panics() {
    for width in [0, 1, 7, 13, 29, 500] {
        for color in [false, true] {
            assert!(all(width, color).contains("r16"));
        }
    }
}

#[test]
fn a_board_ends_as_the_events_do() {
    let mut board = Board::default();
    let (mut live, mut text) = (String::new(), String::new());
    for event in fixtures() {
        if matches!(event, Event::RunEnded(_)) {
            live = board.page(100, Ink::PLAIN);
        }
        if board.apply(&event) {
            text += &Plain { width: 100, color: false }.render(&event);
        }
    }
    assert_eq!(board.page(100, Ink::PLAIN), text);
    assert!(live.contains("1/60 · 1 % · loss 2.60 · held out 2.61 · 1024 tok/s · 59 s left · 483 MB\n"), "{live}");
    assert!(live.contains("   1   2.60         …              running\n"), "{live}");
    assert!(!board.is_running());
}

#[test]
fn charts_are_drawn_as_they_should_look() {
    golden::check("chart.svg", &svg(&noisy(120), Theme::Light));
    golden::check("chart-dark.svg", &svg(&noisy(120), Theme::Dark));
}

#[test]
fn svg_holds_its_labels_and_is_well_formed() {
    for steps in [30, 500, 5000] {
        for theme in [Theme::Light, Theme::Dark] {
            let text = svg(&noisy(steps), theme);
            assert!(is_well_formed(&text), "{text}");
            assert!(text.contains("<title>r16 &lt;on&gt; \"demo\" &amp; more</title>\n<desc>loss over step. train "));
            for label in
                ["\ntrain 1.", "\nheld out 1.40\n", "\nbest 1.36\n", "\nstep\n", "\nloss\n", "\n1.5\n", "\n0\n"]
            {
                assert!(text.contains(label), "{label:?} at {steps}");
            }
            assert!(text.len() < 60_000, "{} bytes at {steps} steps", text.len());
        }
    }
    assert!(!is_well_formed("<svg a=\"1\"><b></svg>") && !is_well_formed("<svg >&</svg>"));
}

#[test]
fn png_is_twice_the_size_of_the_page() {
    for theme in [Theme::Light, Theme::Dark] {
        let file = png(&noisy(500), theme).expect("a temporary folder");
        assert_eq!(file[..8], *b"\x89PNG\r\n\x1a\n");
        let number = |at: usize| u32::from_be_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]]);
        assert_eq!((number(16), number(20)), (2 * 700, 2 * 284));
        assert!(file.ends_with(b"IEND\xae\x42\x60\x82"));
        assert!(file.len() > 20_000, "{} bytes cannot hold the lines", file.len());
    }
}

#[test]
fn odd_charts_are_drawn() {
    for chart in odd_charts() {
        let text = svg(&chart, Theme::Light);
        assert!(is_well_formed(&text) && !text.contains('\0'), "{text}");
        assert!(png(&chart, Theme::Dark).is_ok());
        assert!(!describe(&chart).is_empty());
    }
}
