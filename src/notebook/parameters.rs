//! The cell that tells with which parameters a notebook was run, as papermill places it.

use serde_json::{Map, Value, json};

use super::{Notebook, code_cell};

/// The tag of the cell with the defaults.
const DEFAULTS: &str = "parameters";
/// The tag of the cell with the values of a run.
const INJECTED: &str = "injected-parameters";

impl Notebook {
    /// Puts the values of this run into a cell behind the one tagged `parameters`, or at the top; the cell of an earlier
    /// run gives way. The cell is a record: it is not among [`Notebook::code_cells`], because the session sets the values.
    pub fn inject(&mut self, parameters: &Map<String, Value>) {
        if parameters.is_empty() {
            return;
        }
        let source = parameters.iter().map(|(name, value)| format!("{name} = {}", literal(value)));
        let source = format!("# Parameters\n{}", source.collect::<Vec<_>>().join("\n"));
        let tagged = |cells: &[Map<String, Value>], tag: &str| cells.iter().position(|cell| has_tag(cell, tag));
        if let Some(earlier) = tagged(&self.cells, INJECTED) {
            self.cells.remove(earlier);
        }
        let index = tagged(&self.cells, DEFAULTS).map_or(0, |index| index + 1);
        let id = self.new_id();
        self.cells.insert(index, code_cell(id.as_deref(), &source, json!({"tags": [INJECTED]})));
        self.injected = Some(index);
    }

    /// An id no other cell has, for notebooks whose cells have ids.
    fn new_id(&self) -> Option<String> {
        if self.document.get("nbformat_minor").and_then(Value::as_u64).is_none_or(|minor| minor < 5) {
            return None;
        }
        let is_free = |id: &String| self.cells.iter().all(|cell| cell.get("id").and_then(Value::as_str) != Some(id));
        std::iter::once(INJECTED.to_owned()).chain((2..).map(|n| format!("{INJECTED}-{n}"))).find(is_free)
    }
}

fn has_tag(cell: &Map<String, Value>, tag: &str) -> bool {
    let tags = cell.get("metadata").and_then(|metadata| metadata.get("tags")).and_then(Value::as_array);
    tags.is_some_and(|tags| tags.iter().any(|t| t == tag))
}

/// A value as the language writes it in an assignment.
fn literal(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::String(text) => quoted(text),
        other => quoted(&other.to_string()),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' | '$' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::{StatementKind, evaluate, parse};

    #[test]
    fn literals_come_back_as_they_were() {
        for value in [
            json!(8),
            json!(2e-4),
            json!(-1.5),
            json!(true),
            json!("8"),
            json!("true"),
            json!(""),
            json!("a \"b\" $c \\ 'd' # \n\t,x"),
            json!([4, 8, "a b", [1, 2]]),
            json!([]),
        ] {
            let text = format!("x = {}", literal(&value));
            let statements = parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            let StatementKind::Assign { value: word, .. } = &statements[0].kind else { panic!("{text}") };
            assert_eq!(evaluate(word, &Map::new()).unwrap(), value, "{text}");
        }
    }
}
