use super::*;
use crate::event::{Cell, Chart, Evaluated, Series, Step, Style, Table, Unit};
use crate::render::tests::fixtures;

fn screen() -> Screen {
    Screen { patience: Duration::ZERO, ..Screen::new("cell") }
}

/// What every output does: `+id` a new display, `~id` an update, its text's first line.
fn brief(outputs: &[Output]) -> Vec<String> {
    let first =
        |bundle: &Bundle| bundle.data["text/plain"].as_str().unwrap_or_default().lines().next().map(str::to_owned);
    let shown = |sign: char, bundle: &Bundle| {
        let id = bundle.display_id.as_deref().unwrap_or("none");
        format!("{sign}{id} {}", first(bundle).unwrap_or_default())
    };
    let one = |output: &Output| match output {
        Output::Stream { error, text } => format!("{} {}", if *error { "err" } else { "out" }, text.trim_end()),
        Output::Display(bundle) => shown('+', bundle),
        Output::Update(bundle) => shown('~', bundle),
        Output::Value(bundle) => shown('=', bundle),
        Output::Page(bundle) => shown('?', bundle),
        Output::Clear => "clear".to_owned(),
    };
    outputs.iter().map(one).collect()
}

fn progress(done: u64) -> Event {
    Event::Progress(Progress { label: "loading".into(), detail: String::new(), done, total: 4, unit: Unit::Items })
}

fn said(adapter: &str, text: &str, begins: bool, ends: bool) -> Event {
    Event::Generated { adapter: adapter.into(), text: text.into(), begins, ends }
}

fn run() -> Vec<Event> {
    fixtures().into_iter().skip_while(|event| !matches!(event, Event::RunStarted(_))).collect()
}

fn text(text: &str) -> Event {
    Event::Text(text.into())
}

#[test]
fn a_run_is_one_display_and_the_picture_of_its_end() {
    let mut screen = screen();
    let mut seen = Vec::new();
    for event in run() {
        let now = screen.apply(&event);
        assert!(now.is_empty() || matches!(event, Event::RunEnded(_)));
        seen.extend(now);
        seen.extend(screen.due());
        assert!(screen.due().is_empty());
    }
    seen.extend(screen.finish());
    let title = "r16 on demo · NF4";
    let mut expected = vec![format!("+cell-1 {title}")];
    expected.extend(vec![format!("~cell-1 {title}"); run().len() - 1]);
    assert_eq!(brief(&seen[..seen.len() - 1]), expected);
    let [.., Output::Update(end), Output::Display(picture)] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(end.data.keys().collect::<Vec<_>>(), ["text/plain", "text/html"]);
    assert_eq!(picture.data.keys().collect::<Vec<_>>(), ["text/plain", "image/svg+xml", "image/png"]);
    assert_eq!(picture.metadata["needs_background"], "light");
    assert!(picture.data["image/png"].as_str().is_some_and(|png| png.starts_with("iVBORw0KGgo")));
    assert!(picture.data["text/plain"].as_str().is_some_and(|text| text.starts_with("loss over step. train 1.")));
    let html = end.data["text/html"].as_str().unwrap_or_default();
    assert!(html.contains("display:none") && html.contains("class=\"loralab-chart\""));
}

#[test]
fn a_run_told_at_once_shows_its_end_alone() {
    let mut screen = screen();
    let seen: Vec<Output> = run().iter().flat_map(|event| screen.apply(event)).collect();
    assert_eq!(brief(&seen)[0], "+cell-1 r16 on demo · NF4");
    assert_eq!(seen.len(), 2);
    let Output::Display(end) = &seen[0] else { panic!("{seen:?}") };
    let board_text = end.data["text/plain"].as_str().unwrap_or_default();
    let printed: String = run().iter().map(|event| TEXT.render(event)).collect();
    assert_eq!(board_text, printed.trim_end_matches('\n'));
    assert!(screen.due().is_empty() && screen.finish().is_empty());
}

#[test]
fn what_comes_during_a_run_stands_below_it_and_hides_no_neighbour() {
    let mut screen = screen();
    let mut seen = Vec::new();
    for event in run() {
        if matches!(event, Event::RunEnded(_)) {
            seen.extend(screen.apply(&Event::Warning("careful".into())));
        }
        seen.extend(screen.apply(&event));
    }
    let seen_brief = brief(&seen);
    assert_eq!(seen_brief[..3], ["+cell-1 r16 on demo · NF4", "+cell-2 warning: careful", "~cell-1 r16 on demo · NF4"]);
    let Output::Update(end) = &seen[2] else { panic!("{seen:?}") };
    assert!(!end.data["text/html"].as_str().unwrap_or_default().contains("display:none"));
}

#[test]
fn a_run_that_does_not_end_says_that_it_stopped() {
    let mut screen = screen();
    run().iter().filter(|event| !matches!(event, Event::RunEnded(_))).for_each(|event| drop(screen.apply(event)));
    let end = screen.finish();
    let [Output::Display(bundle)] = &end[..] else { panic!("{end:?}") };
    assert!(bundle.data["text/plain"].as_str().is_some_and(|text| text.contains("stopped at 1/60")));
    assert!(bundle.data["text/html"].as_str().is_some_and(|html| html.contains("<b>stopped</b> at 1 of 60")));
    assert!(screen.finish().is_empty());
}

#[test]
fn odd_orders_of_a_run_are_shown_too() {
    let mut screen = screen();
    assert!(screen.apply(&Event::Evaluated(Evaluated { step: 0, loss: f64::NAN, best: false })).is_empty());
    let ended = run().pop().expect("a run ends");
    assert_eq!(screen.apply(&ended).len(), 2);
    assert_eq!(screen.apply(&ended).len(), 2);
    let step = run().into_iter().find(|event| matches!(event, Event::Step(Step { .. }))).expect("there is a step");
    screen.apply(&step);
    assert_eq!(brief(&screen.apply(&run()[0])).len(), 1);
    assert_eq!(brief(&screen.apply(&Event::Sampled { step: 1, text: "x".into() })).len(), 0);
}

#[test]
fn the_next_display_takes_the_place_of_a_bar() {
    let mut screen = screen();
    screen.apply(&progress(1));
    assert_eq!(brief(&screen.due()), ["+cell-1 loading ━━━━━╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ 25 % · 1 of 4"]);
    assert!(screen.due().is_empty());
    screen.apply(&progress(3));
    assert_eq!(brief(&screen.due()), ["~cell-1 loading ━━━━━━━━━━━━━━━╌╌╌╌╌ 75 % · 3 of 4"]);
    assert!(screen.apply(&progress(4)).is_empty() && screen.due().is_empty());
    assert_eq!(brief(&screen.apply(&text("loaded"))), ["~cell-1 loaded"]);
    assert_eq!(brief(&screen.apply(&text("more"))), ["+cell-2 more"]);
    assert!(screen.finish().is_empty());
}

#[test]
fn a_bar_leaves_nothing_behind() {
    for end in [vec![progress(4)], vec![]] {
        let mut screen = screen();
        screen.apply(&progress(1));
        screen.due();
        end.iter().for_each(|event| assert!(screen.apply(event).is_empty()));
        assert_eq!(brief(&screen.finish()), ["~cell-1 "]);
    }
    let mut streamed = screen();
    streamed.apply(&progress(1));
    streamed.due();
    streamed.apply(&progress(4));
    let stream = Event::Stream { text: "x\n".into(), error: false };
    assert_eq!(brief(&streamed.apply(&stream)), ["~cell-1 ", "out x"]);
    let mut buried = screen();
    buried.apply(&progress(1));
    buried.due();
    assert_eq!(brief(&buried.apply(&text("below"))), ["+cell-2 below"]);
    assert_eq!(brief(&buried.apply(&progress(4))), ["~cell-1 "]);
}

#[test]
fn what_is_quick_shows_no_bar() {
    let mut screen = Screen { patience: Duration::MAX, ..Screen::new("cell") };
    screen.apply(&progress(1));
    assert!(screen.due().is_empty());
    screen.apply(&progress(4));
    assert_eq!(brief(&screen.apply(&text("done"))), ["+cell-1 done"]);
}

#[test]
fn an_evaluation_between_steps_is_told_by_the_run() {
    let mut screen = screen();
    screen.apply(&run()[0]);
    screen.apply(&progress(1));
    let outputs = screen.due();
    let [Output::Display(bundle)] = &outputs[..] else { panic!("{outputs:?}") };
    assert!(bundle.data["text/html"].as_str().is_some_and(|html| html.contains("<b>0</b> of 60 · 0 % · loading 25 %")));
    screen.apply(&progress(4));
    assert!(!format!("{:?}", screen.due()).contains("loading"));
}

#[test]
fn generated_rows_share_a_display_until_something_else_comes() {
    let mut screen = screen();
    screen.apply(&said("base", "a ", true, false));
    assert_eq!(brief(&screen.due()), ["+cell-1 base"]);
    screen.apply(&said("base", "b", false, true));
    screen.apply(&said("r16", "a c", true, true));
    let last = screen.due();
    let [Output::Update(bundle)] = &last[..] else { panic!("{last:?}") };
    assert_eq!(
        bundle.data["text/plain"],
        "base\na b\nr16\na ▸‹c›\n▸ departs from base · ‹…›: what base does not say there"
    );
    // Another round of the same rows begins a display of its own.
    assert!(screen.apply(&said("base", "x", true, true)).is_empty());
    assert_eq!(brief(&screen.apply(&text("end"))), ["+cell-2 base", "+cell-3 end"]);
    screen.apply(&said("r16", "cut o", true, false));
    assert_eq!(brief(&screen.finish()), ["+cell-4 r16"]);
}

#[test]
fn streams_values_and_pages_are_what_jupyter_calls_them() {
    let mut screen = screen();
    let page = Event::Page(Page { text: "help".into(), markdown: "# help".into() });
    let table = Table { columns: vec!["a"], rows: vec![vec![Cell::Count(7)]], ..Table::default() };
    let events = [
        Event::Stream { text: "one\n".into(), error: false },
        Event::Stream { text: String::new(), error: false },
        Event::Stream { text: "two\n".into(), error: true },
        Event::Value("0.0002".into()),
        page,
        Event::Next(vec![]),
        Event::Table(table),
    ];
    let seen: Vec<Output> = events.iter().flat_map(|event| screen.apply(event)).collect();
    assert_eq!(brief(&seen), ["out one", "err two", "=none 0.0002", "?none help", "+cell-1 a"]);
    let Output::Page(page) = &seen[3] else { panic!("{seen:?}") };
    assert_eq!(page.data["text/markdown"], "# help");
}

#[test]
fn what_goes_on_is_shown_again_after_clearing() {
    let mut screen = screen();
    screen.apply(&run()[0]);
    screen.due();
    assert_eq!(brief(&screen.apply(&Event::Clear)), ["clear"]);
    assert_eq!(brief(&screen.due()), ["+cell-2 r16 on demo · NF4"]);
}

/// A chart stands once, though a bar stood below it for a while.
#[test]
fn the_picture_of_a_sheet_follows_it_where_a_bar_has_been() {
    let mut screen = screen();
    let sheet = |ends| {
        let points = vec![(0.0, 2.0), (1.0, 1.0)];
        let series = vec![Series { name: "a".into(), points, style: Style::Bold }];
        let chart = Chart { title: "losses".into(), x: "step", y: "loss", series, x_max: None };
        Event::Sheet(Box::new(Sheet { chart, ends, ..Sheet::default() }))
    };
    // Whether the sheet leaves its chart to a picture, and whether there is one.
    let pictures = |outputs: &[Output]| {
        let has = |output: &Output, kind: &str, what: &str| match output {
            Output::Display(bundle) | Output::Update(bundle) => {
                bundle.data.get(kind).and_then(|data| data.as_str()).is_some_and(|data| data.contains(what))
            }
            _ => false,
        };
        let any = |kind, what| outputs.iter().any(|output| has(output, kind, what));
        (any("text/html", "loralab-chart"), any("image/svg+xml", "<svg"))
    };
    screen.apply(&sheet(false));
    assert_eq!(pictures(&screen.due()), (false, false));
    for done in [1, 3, 4] {
        screen.apply(&progress(done));
        screen.due();
    }
    assert_eq!(pictures(&screen.apply(&sheet(true))), (true, true));
}
