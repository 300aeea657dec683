//! Notebooks (`.ipynb`, nbformat 4) run without Jupyter: their code cells, and what is shown as their outputs.
//!
//! Source: the schema of nbformat 4.5; parameters as papermill injects them.

mod parameters;
mod recorder;

use std::path::Path;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::{files, language};

pub use recorder::Recorder;

/// A notebook. What this program does not know in it stays as it is.
#[derive(Debug, Clone)]
pub struct Notebook {
    document: Map<String, Value>,
    cells: Vec<Map<String, Value>>,
    /// The cell that tells the parameters of this run, which are in force without it.
    injected: Option<usize>,
}

impl Notebook {
    /// Reads the text of a notebook; `name` is for errors.
    ///
    /// # Errors
    /// [`crate::error::Kind::Format`] if it is not JSON or not nbformat 4; [`crate::error::Kind::Unsupported`] if it
    /// belongs to another language.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let broken = |what: String| Error::format(format!("{name} is not a notebook: {what}"));
        let mut document: Map<String, Value> =
            serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| broken(e.to_string()))?;
        match document.get("nbformat").and_then(Value::as_u64) {
            None => return Err(broken("it has no nbformat".to_owned())),
            Some(4) => {}
            Some(format) => {
                return Err(Error::format(format!("{name} has nbformat {format}, and 4 is what can be read"))
                    .hint(format!("jupyter nbconvert --to notebook --nbformat 4 --inplace {name}")));
            }
        }
        if let Some(other) = language_of(&document).filter(|&other| other != "loralab") {
            return Err(Error::unsupported(format!("{name} is a notebook for {other}, not for loralab"))
                .hint("choose the kernel loralab for it, or begin a new one"));
        }
        let Some(Value::Array(cells)) = document.get_mut("cells").map(Value::take) else {
            return Err(broken("it has no list of cells".to_owned()));
        };
        let check = |(index, cell): (usize, Value)| match cell {
            Value::Object(cell) if cell.contains_key("cell_type") && source(&cell).is_some() => Ok(cell),
            _ => Err(broken(format!("cell {} has no cell_type or no source of text", index + 1))),
        };
        let cells = cells.into_iter().enumerate().map(check).collect::<Result<_>>()?;
        Ok(Self { document, cells, injected: None })
    }

    /// The notebook of a script: a code cell for each of its cells.
    #[must_use]
    pub fn from_cells(cells: &[language::Cell<'_>]) -> Self {
        let metadata = json!({
            "kernelspec": {"display_name": "loralab", "language": "loralab", "name": "loralab"},
            "language_info": {
                "name": "loralab",
                "file_extension": ".lora",
                "codemirror_mode": "shell",
                "pygments_lexer": "bash",
            },
        });
        let mut document = Map::new();
        document.insert("cells".to_owned(), Value::Null);
        document.insert("metadata".to_owned(), metadata);
        document.insert("nbformat".to_owned(), 4.into());
        document.insert("nbformat_minor".to_owned(), 5.into());
        let title = |cell: &language::Cell| cell.title.map_or_else(String::new, |title| format!("# {title}\n"));
        let cell = |(index, cell): (usize, &language::Cell)| {
            code_cell(Some(&format!("cell-{}", index + 1)), &(title(cell) + cell.text.trim_end()), json!({}))
        };
        Self { document, cells: cells.iter().enumerate().map(cell).collect(), injected: None }
    }

    /// The code cells that are to be run: their index among all cells, and their source.
    #[must_use]
    pub fn code_cells(&self) -> Vec<(usize, String)> {
        let is_run =
            |index: usize, cell: &Map<String, Value>| cell["cell_type"] == "code" && Some(index) != self.injected;
        let cells = self.cells.iter().enumerate().filter(|(index, cell)| is_run(*index, cell));
        cells.filter_map(|(index, cell)| Some((index, source(cell)?))).collect()
    }

    /// Takes the outputs of an earlier run away.
    pub fn clear_outputs(&mut self) {
        for cell in self.cells.iter_mut().filter(|cell| cell["cell_type"] == "code") {
            cell.insert("execution_count".to_owned(), Value::Null);
            cell.insert("outputs".to_owned(), json!([]));
        }
    }

    /// Gives the cell at `index` its number and its outputs.
    pub fn set_outputs(&mut self, index: usize, count: usize, outputs: Vec<Value>) {
        if let Some(cell) = self.cells.get_mut(index) {
            cell.insert("execution_count".to_owned(), count.into());
            cell.insert("outputs".to_owned(), Value::Array(outputs));
        }
    }

    /// Writes the notebook as Jupyter does: whole or not at all, indented by one blank.
    ///
    /// # Errors
    /// [`crate::error::Kind::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut document = self.document.clone();
        document.insert("cells".to_owned(), self.cells.iter().cloned().map(Value::Object).collect());
        files::write(path, |out| {
            document.serialize(&mut Serializer::with_formatter(&mut *out, PrettyFormatter::with_indent(b" ")))?;
            out.write_all(b"\n")
        })
    }
}

/// The language a notebook says it is in.
fn language_of(document: &Map<String, Value>) -> Option<&str> {
    let metadata = document.get("metadata")?;
    let language = metadata.pointer("/language_info/name").or_else(|| metadata.pointer("/kernelspec/language"));
    language.and_then(Value::as_str)
}

/// The source of a cell, which is a string or a list of strings.
fn source(cell: &Map<String, Value>) -> Option<String> {
    match cell.get("source")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(lines) => lines.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Text as notebooks hold it: a list of lines with their ends.
fn lines(text: &str) -> Value {
    text.split_inclusive('\n').collect()
}

fn code_cell(id: Option<&str>, source: &str, metadata: Value) -> Map<String, Value> {
    let mut cell = Map::new();
    cell.insert("cell_type".to_owned(), "code".into());
    cell.insert("execution_count".to_owned(), Value::Null);
    if let Some(id) = id {
        cell.insert("id".to_owned(), id.into());
    }
    cell.insert("metadata".to_owned(), metadata);
    cell.insert("outputs".to_owned(), json!([]));
    cell.insert("source".to_owned(), lines(source));
    cell
}

#[cfg(test)]
mod tests;
