//! `-p name=value`: a script's variables set from outside.

use serde_json::{Map, Value};

use super::expand::evaluate;
use super::lexer::{Lexer, Place};
use super::word::{Part, PartKind, Word};
use super::{Statement, StatementKind};

/// The value that `text` stands for, by the rules of an assignment: `8` a number, `(8 16)` and `8,16` lists. What would be
/// no single value there is text here, because the user's shell has seen to the quotes already: `a b` and `it's` are texts.
#[must_use]
pub fn parse_value(text: &str) -> Value {
    let text = text.trim();
    let mut lexer = Lexer::new(text);
    if text.is_empty() || text.starts_with('#') {
        return Value::from(text);
    }
    let word = lexer.word(Place::Statement);
    let is_whole = lexer.problems.is_empty() && word.span == (0..text.len());
    match evaluate(&word, &Map::new()) {
        Ok(value) if is_whole => value,
        _ => Value::from(text),
    }
}

/// Lets `parameters` win over a script: each replaces the value of the first assignment of its name, in loops too, and is
/// taken out of `parameters`. Those that remain are to be set before the first statement. For a script of several cells
/// call it once a cell, in order.
pub fn override_assignments(statements: &mut [Statement], parameters: &mut Map<String, Value>) {
    for statement in statements {
        match &mut statement.kind {
            StatementKind::Assign { name, value } => {
                if let Some(parameter) = parameters.shift_remove(name) {
                    let span = value.span.clone();
                    let part = Part { kind: PartKind::Constant(parameter), span: span.clone() };
                    *value = Word { parts: vec![part], span };
                }
            }
            StatementKind::For { body, .. } => override_assignments(body, parameters),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::parse;
    use serde_json::json;

    #[test]
    fn values_from_the_command_line_follow_the_rules_of_assignments() {
        let cases = [
            ("16", json!(16)),
            ("2e-4", json!(2e-4)),
            ("true", json!(true)),
            ("(8 16 32)", json!([8, 16, 32])),
            ("[8, \"a b\"]", json!([8, "a b"])),
            ("8,16", json!([8, 16])),
            ("\"8\"", json!("8")),
            ("q_proj", json!("q_proj")),
            (" 8 ", json!(8)),
        ];
        for (text, value) in cases {
            assert_eq!(parse_value(text), value, "{text}");
        }
    }

    #[test]
    fn anything_else_is_text_as_it_stands() {
        for text in ["a b", "it's", "(8 16", "$x", "", "#1", "a # b", "\"a\" b", "(a)(b", "C:\\x\\", "a\nb", "\u{feff}"]
        {
            assert_eq!(parse_value(text), json!(text));
        }
    }

    #[test]
    fn a_parameter_takes_the_first_assignment_of_its_name() {
        let text = "rank = 8\nfor d in (a b):\n  lr = 1\nrank = 9\n";
        let mut statements = parse(text).unwrap();
        let mut parameters = Map::new();
        for (name, value) in [("lr", json!(2)), ("rank", json!([4, 8])), ("other", json!("x"))] {
            parameters.insert(name.to_string(), value);
        }
        override_assignments(&mut statements, &mut parameters);
        assert_eq!(Value::Object(parameters), json!({"other": "x"}));
        let value = |statement: &Statement| match &statement.kind {
            StatementKind::Assign { value, .. } => evaluate(value, &Map::new()).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(value(&statements[0]), json!([4, 8]));
        assert_eq!(value(&statements[2]), json!(9));
        let StatementKind::For { body, .. } = &statements[1].kind else { panic!("{:?}", statements[1]) };
        assert_eq!(value(&body[0]), json!(2));
        assert_eq!(statements[0].source(text), "rank = 8");
    }
}
