//! What a word is made of, and how bare text becomes a typed literal.

use std::ops::Range;

use serde_json::{Number, Value};

/// A word of a statement: parts that stand together without a blank, as in `--prompt="Hi $name"`.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// In the order of the text; never empty in a parsed word.
    pub parts: Vec<Part>,
    pub span: Range<usize>,
}

/// A piece of a word and the bytes it was written with, quotes included.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub kind: PartKind,
    pub span: Range<usize>,
}

/// The pieces a word can have.
#[derive(Debug, Clone, PartialEq)]
pub enum PartKind {
    /// Text as it stands: a name, a number, a regex.
    Bare(String),
    /// Text that stood in quotes, escapes resolved. `"$name"` is an empty one followed by a variable.
    Quoted(String),
    /// `$name`, `${name}`, `$last.loss`.
    Variable(Reference),
    /// `(8 16 32)` or `[8, 16]`.
    List(Vec<Word>),
    /// A value that came from outside the text: `-p name=value`.
    Constant(Value),
}

/// A variable and the way into its value: object keys and list indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub name: String,
    pub path: Vec<String>,
    /// Whether it was written `${…}`, so that the whole path is meant; of `$file.jsonl` the suffix may be text.
    pub braced: bool,
}

/// A piece of a shell command.
#[derive(Debug, Clone, PartialEq)]
pub enum ShellPart {
    /// Left to the shell.
    Text(String),
    /// Replaced if there is such a variable, else left to the shell as `source`.
    Variable { reference: Reference, source: String, in_quotes: bool, span: Range<usize> },
}

impl Word {
    /// The text of a word that is plain: without quotes, variables and lists.
    #[must_use]
    pub fn bare(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part { kind: PartKind::Bare(text), .. }] => Some(text),
            _ => None,
        }
    }

    /// The text of a word that does not depend on variables.
    #[must_use]
    pub fn fixed_text(&self) -> Option<String> {
        self.parts
            .iter()
            .map(|part| match &part.kind {
                PartKind::Bare(text) | PartKind::Quoted(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// `--name=` at the start of the word, and the parts behind it.
    pub(super) fn split_flag(&self) -> (&str, Vec<Part>) {
        let mut parts = self.parts.clone();
        let Some(Part { kind: PartKind::Bare(text), .. }) = self.parts.first() else { return ("", parts) };
        let length = flag_prefix(text);
        if length > 0 {
            let first = &mut parts[0];
            first.kind = PartKind::Bare(text[length..].to_string());
            first.span.start += length;
            if length == text.len() && parts.len() > 1 {
                parts.remove(0);
            }
        }
        (&text[..length], parts)
    }
}

/// The length of `--name=` at the start of `text`, 0 if it does not start so.
pub(super) fn flag_prefix(text: &str) -> usize {
    let Some(equals) = text.find('=') else { return 0 };
    let name = text[..equals].strip_prefix("--").unwrap_or_default();
    let is_flag = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
    if is_flag { equals + 1 } else { 0 }
}

/// `parts` cut at the commas of bare text that stand outside brackets; `{1,2}` of a regex is not cut.
pub(super) fn split_commas(parts: &[Part]) -> Vec<Vec<Part>> {
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    let mut brackets = Brackets::default();
    for part in parts {
        let PartKind::Bare(text) = &part.kind else {
            piece.push(part.clone());
            continue;
        };
        let mut start = 0;
        for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
            let is_cut = c == ',' && brackets.is_outside();
            brackets.step(c);
            if (is_cut || at == text.len()) && start < at {
                let span = part.span.start + start..part.span.start + at;
                piece.push(Part { kind: PartKind::Bare(text[start..at].to_string()), span });
            }
            if is_cut {
                pieces.push(std::mem::take(&mut piece));
                start = at + 1;
            }
        }
    }
    pieces.push(piece);
    pieces
}

/// How many brackets of bare text stand open.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Brackets(usize);

impl Brackets {
    pub(super) fn step(&mut self, c: char) {
        match c {
            '(' | '[' | '{' => self.0 += 1,
            ')' | ']' | '}' => self.0 = self.0.saturating_sub(1),
            _ => {}
        }
    }

    pub(super) fn is_outside(self) -> bool {
        self.0 == 0
    }
}

/// Whether `text` can name a variable: a letter or `_`, then letters, digits and `_`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && name_length(text) == text.len()
}

/// The length of the name at the start of `text`, 0 if there is none.
pub(super) fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_alphabetic() || c == '_') { segment_length(text) } else { 0 }
}

/// The length of the letters, digits and `_` at the start of `text`.
pub(super) fn segment_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Bare text as a value: a number, `true`, `false`, `null` (or Julia's `nothing`), else the text itself.
pub(super) fn literal(text: &str) -> Value {
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "null" | "nothing" => Value::Null,
        _ => number(text).map_or_else(|| Value::from(text), Value::Number),
    }
}

/// `text` as a decimal number. What would not come back whole stays text: leading zeros, overflow, digits beyond 64 bits.
pub(super) fn number(text: &str) -> Option<Number> {
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).map_or((unsigned, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let digits = whole.len() + fraction.map_or(0, str::len);
    if digits == 0
        || !all_digits(whole)
        || !fraction.is_none_or(all_digits)
        || (whole.len() > 1 && whole.starts_with('0'))
    {
        return None;
    }
    let Some(exponent) = exponent else {
        return match fraction {
            None => text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from)).ok(),
            Some(_) => Number::from_f64(text.parse().ok()?),
        };
    };
    let power = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if power.is_empty() || !all_digits(power) {
        return None;
    }
    Number::from_f64(text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bare_text_becomes_the_value_it_looks_like() {
        let cases = [
            ("16", json!(16)),
            ("-3", json!(-3)),
            ("+3", json!(3)),
            ("2e-4", json!(2e-4)),
            ("1E3", json!(1000.0)),
            (".5", json!(0.5)),
            ("5.", json!(5.0)),
            ("18446744073709551615", json!(u64::MAX)),
            ("true", json!(true)),
            ("false", json!(false)),
            ("null", json!(null)),
            ("nothing", json!(null)),
        ];
        for (text, value) in cases {
            assert_eq!(literal(text), value, "{text}");
        }
    }

    #[test]
    fn what_is_no_number_stays_text() {
        for text in [
            "1_000",
            "007",
            "1e",
            "e5",
            "1e+",
            ".",
            "-",
            "",
            "1.2.3",
            "0x10",
            "1e999",
            "99999999999999999999",
            "inf",
            "NaN",
            "²",
        ] {
            assert_eq!(literal(text), json!(text));
        }
    }

    #[test]
    fn names_are_letters_digits_and_underscores() {
        assert!(is_name("lr") && is_name("_x1") && is_name("größe"));
        assert!(!is_name("") && !is_name("1x") && !is_name("a-b") && !is_name("a b"));
    }

    #[test]
    fn only_a_long_flag_with_a_value_has_a_prefix() {
        assert_eq!(flag_prefix("--rank=8"), 7);
        for text in ["--rank", "-r=8", "rank=8", "--=8", "--a b=1", ""] {
            assert_eq!(flag_prefix(text), 0, "{text}");
        }
    }
}
