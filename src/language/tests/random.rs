//! Laws that hold for every text, tried on random ones.

use super::*;

/// A small generator of pseudo-random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn text(&mut self, pieces: usize) -> String {
        (0..self.below(pieces + 1)).map(|_| self.pick(&PIECES)).collect()
    }
}

const PIECES: [&str; 60] = [
    " ",
    " ",
    " ",
    "  ",
    "\n",
    "\n",
    "\n  ",
    "\n    ",
    "\r\n",
    "\t",
    "\r",
    "\\",
    "\\\n",
    "\\ \r\n",
    "\"",
    "\"",
    "\"\"\"",
    "'",
    "(",
    "(",
    ")",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ",",
    "=",
    " = ",
    "$",
    "$rank",
    "$last.loss",
    "${file}",
    "${",
    "$ranks",
    ".",
    ":",
    ": ",
    "#",
    "# ",
    "%%",
    "%%data x\n",
    "%%rust\n",
    "!",
    "?",
    "for ",
    "for d in ",
    "in",
    "help ",
    "load",
    "--rank=",
    "-x",
    "8",
    "2e-4",
    "é",
    "日本",
    "🦀",
    "\u{feff}",
    "\u{a0}",
];

fn check_span(text: &str, span: &Range<usize>, outer: &Range<usize>, what: &str) {
    assert!(text.get(span.clone()).is_some(), "{what} {span:?} is no part of {text:?}");
    assert!(outer.start <= span.start && span.end <= outer.end, "{what} {span:?} leaves {outer:?} in {text:?}");
}

fn check_words(text: &str, words: &[Word], outer: &Range<usize>) {
    let mut from = outer.start;
    for word in words {
        check_span(text, &word.span, &(from..outer.end), "word");
        assert!(!word.span.is_empty() && !word.parts.is_empty(), "{word:?} in {text:?}");
        from = word.span.end;
        let mut at = word.span.start;
        for part in &word.parts {
            assert_eq!(part.span.start, at, "{word:?} in {text:?}");
            check_span(text, &part.span, &word.span, "part");
            at = part.span.end;
            match &part.kind {
                PartKind::Bare(bare) => assert_eq!(bare, &text[part.span.clone()]),
                PartKind::List(words) => check_words(text, words, &part.span),
                _ => {}
            }
        }
        assert_eq!(at, word.span.end, "{word:?} in {text:?}");
    }
}

fn check_statements(text: &str, statements: &[Statement], outer: &Range<usize>) {
    let mut from = outer.start;
    for statement in statements {
        check_span(text, &statement.span, &(from..outer.end), "statement");
        assert!(!statement.source(text).is_empty(), "{statement:?} in {text:?}");
        from = statement.span.end;
        match &statement.kind {
            StatementKind::Command { words } => {
                assert!(!words.is_empty());
                check_words(text, words, &statement.span);
                if let Ok(arguments) = expand(words, &variables()) {
                    assert_eq!(arguments.len(), words.len());
                }
            }
            StatementKind::Assign { value, .. } => {
                check_words(text, std::slice::from_ref(value), &statement.span);
            }
            StatementKind::For { values, body, .. } => {
                check_words(text, values, &statement.span);
                check_statements(text, body, &statement.span);
            }
            StatementKind::Block { body, body_span, .. } => assert_eq!(&text[body_span.clone()], body),
            StatementKind::Shell { command } => {
                for part in command {
                    if let ShellPart::Variable { span, source, .. } = part {
                        assert_eq!(&text[span.clone()], source);
                    }
                }
            }
            StatementKind::Help { topic } => assert!(topic.as_ref().is_none_or(|topic| text.contains(topic.as_str()))),
        }
    }
}

fn check(text: &str) {
    let whole = 0..text.len();
    let (statements, errors) = parse_recovering(text);
    check_statements(text, &statements, &whole);
    for error in &errors {
        check_span(text, &error.span().unwrap(), &whole, "error");
        assert!(error.kind() == Kind::Usage && error.hint_text().is_some(), "{error:?}");
    }
    assert_eq!(parse(text).is_ok(), errors.is_empty());
    let mut from = 0;
    for (span, class) in highlight(text) {
        assert!(!span.is_empty());
        check_span(text, &span, &(from..text.len()), &format!("{class:?}"));
        from = span.end;
    }
    match completeness(text) {
        Completeness::Complete => assert!(errors.is_empty(), "{text:?}"),
        Completeness::Invalid(error) => assert_eq!(Some(error.message()), errors.first().map(Error::message)),
        Completeness::Incomplete { indent } => assert!(indent < 1000),
    }
    let mut from = 0;
    for cell in split_cells(text) {
        assert!(cell.offset >= from && &text[cell.offset..cell.offset + cell.text.len()] == cell.text);
        from = cell.offset + cell.text.len();
    }
    assert!(!text.trim().is_empty() || parse_value(text) == json!(""));
}

#[test]
fn the_laws_hold_for_random_pieces_of_the_language() {
    let mut random = Random(1);
    for _ in 0..30_000 {
        let text = random.text(24);
        check(&text);
    }
}

#[test]
fn the_laws_hold_for_random_characters() {
    let mut random = Random(2);
    for _ in 0..5_000 {
        let length = random.below(40);
        let text: String = (0..length).filter_map(|_| char::from_u32(random.below(0x3100) as u32)).collect();
        check(&text);
    }
}

#[test]
fn the_laws_hold_for_every_beginning_of_a_cell() {
    let cell = "\u{feff}# é\r\nx = [8, \"a $rank\",\n 'ß']\nfor d in (a b):\n    train $d --lr=2e-4 \\\n  --sample \"\"\"日\n本\"\"\"\n!ls $x\n%%data n\nrow\n%%\n?e";
    for (end, _) in cell.char_indices().chain([(cell.len(), ' ')]) {
        check(&cell[..end]);
    }
}

#[test]
fn quoting_a_random_text_gives_it_back() {
    let mut random = Random(3);
    for _ in 0..5_000 {
        let text = random.text(12);
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$").replace('\r', "\\r");
        for quoted in [format!("\"{escaped}\""), format!("\"\"\"{escaped}\"\"\"")] {
            assert_eq!(value(&format!("x = {quoted}")), json!(text), "{quoted}");
            assert_eq!(arguments(&format!("e {quoted}")), [text.as_str()], "{quoted}");
        }
    }
}

#[test]
fn random_lists_come_back_from_their_text() {
    let mut random = Random(4);
    for _ in 0..5_000 {
        let items: Vec<String> = (0..random.below(5)).map(|_| random.text(6)).collect();
        assert_eq!(split_items(&join_items(&items)), items);
    }
}
