//! Lists as text: `8,16,32`, and how the items come back out of it.

use serde_json::Value;

use super::word::Brackets;

/// The items joined with commas. An item that would not come back from [`split_items`] stands in quotes, as in CSV.
#[must_use]
pub fn join_items<S: AsRef<str>>(items: &[S]) -> String {
    let quoted = |item: &S| {
        let item = item.as_ref();
        if is_plain(item) { item.to_string() } else { format!("\"{}\"", item.replace('"', "\"\"")) }
    };
    items.iter().map(quoted).collect::<Vec<_>>().join(",")
}

/// The items of a list that was written `8,16,32` or made by [`join_items`]. Blanks around an item and empty items are
/// dropped, commas inside brackets are part of their item (`[0-9]{1,2}`), and an item may stand in double quotes.
#[must_use]
pub fn split_items(text: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = match rest.strip_prefix('"').and_then(closed_quote) {
            Some((item, length)) => {
                items.push(item);
                1 + length
            }
            None => {
                let end = plain_end(rest);
                let item = rest[..end].trim();
                if !item.is_empty() {
                    items.push(item.to_string());
                }
                end
            }
        };
        rest = rest[end..].trim_start().trim_start_matches(',').trim_start();
    }
    items
}

/// The item whose opening quote was just passed, and its length with the closing quote, if a comma or the end follows it.
fn closed_quote(text: &str) -> Option<(String, usize)> {
    let mut item = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, c)) = letters.next() {
        if c != '"' {
            item.push(c);
        } else if letters.next_if(|&(_, next)| next == '"').is_some() {
            item.push('"');
        } else {
            let behind = text[at + 1..].trim_start();
            return (behind.is_empty() || behind.starts_with(',')).then_some((item, at + 1));
        }
    }
    None
}

/// Where the item at the start of `text` ends: at the first comma outside brackets.
fn plain_end(text: &str) -> usize {
    let mut brackets = Brackets::default();
    let is_end = |(_, c): &(usize, char)| {
        let is_comma = *c == ',' && brackets.is_outside();
        brackets.step(*c);
        is_comma
    };
    text.char_indices().find(is_end).map_or(text.len(), |(at, _)| at)
}

fn is_plain(item: &str) -> bool {
    let mut brackets = Brackets::default();
    item.chars().for_each(|c| brackets.step(c));
    !item.is_empty() && item.trim() == item && !item.contains([',', '"']) && brackets.is_outside()
}

/// A value as the text that stands for it in a command: strings bare, lists joined with commas, numbers as short as they go.
#[must_use]
pub fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => join_items(&values.iter().map(value_text).collect::<Vec<_>>()),
        Value::Number(number) => match number.as_f64() {
            Some(v) if number.is_f64() && v.fract() == 0.0 && v.abs() < 1e15 => format!("{v:.0}"),
            _ => number.to_string(),
        },
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_joined_comes_back() {
        let cases: [&[&str]; 10] = [
            &[],
            &[""],
            &["8", "16", "32"],
            &["a,b", "c"],
            &["say \"hi\"", "\"", "\"\"", "\","],
            &["", "", "x"],
            &[" a ", "\n"],
            &["a(", "b"],
            &[")", "(", "{,"],
            &["größe", "日本,語", "[0-9]{1,2}"],
        ];
        for items in cases {
            assert_eq!(split_items(&join_items(items)), items, "{}", join_items(items));
        }
        assert_eq!(join_items(&["8", "16"]), "8,16");
    }

    #[test]
    fn what_was_typed_is_split_as_it_was_meant() {
        let cases: [(&str, &[&str]); 8] = [
            ("8, 16 ,32,", &["8", "16", "32"]),
            ("q_proj,,v_proj", &["q_proj", "v_proj"]),
            (r"layers\.[0-9]{1,2}\.q_proj", &[r"layers\.[0-9]{1,2}\.q_proj"]),
            (r#""a,b",c"#, &["a,b", "c"]),
            (r#""a"b,c"#, &[r#""a"b"#, "c"]),
            (r#""open"#, &[r#""open"#]),
            (",", &[]),
            ("", &[]),
        ];
        for (text, items) in cases {
            assert_eq!(split_items(text), items, "{text}");
        }
    }

    #[test]
    fn values_print_short() {
        let cases = [
            (json!(16), "16"),
            (json!(16.0), "16"),
            (json!(-0.5), "-0.5"),
            (json!(2e-4), "0.0002"),
            (json!(1e-7), "1e-7"),
            (json!(1e300), "1e300"),
            (json!("a b"), "a b"),
            (json!(true), "true"),
            (json!(null), "null"),
            (json!([8, "a,b", [1, 2]]), r#"8,"a,b","1,2""#),
            (json!({"a": 1}), r#"{"a":1}"#),
        ];
        for (value, text) in cases {
            let printed = value_text(&value);
            assert!(printed == text || printed == text.replace("e300", "e+300"), "{value} printed as {printed}");
        }
    }
}
