//! Files and cells to raw rows: JSON lines, a JSON array, CSV, running text.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Content, DataSet, Format, Row, csv, row};
use crate::error::{Error, Kind, Result};

/// How rows are written down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    JsonLines,
    JsonArray,
    Csv,
    Text,
}

impl DataSet {
    /// Reads a file. Its name without the ending becomes the name of the data set.
    ///
    /// `.jsonl`, `.ndjson`, `.json`, `.csv`, `.txt` and `.md` are told by their ending, anything else by what it holds.
    ///
    /// # Errors
    /// [`Kind::NotFound`] or [`Kind::Io`] if it cannot be read, else as [`DataSet::parse`].
    pub fn read(path: &Path, format: Format) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        let origin = path.display().to_string();
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        if extension == "parquet" || bytes.starts_with(b"PAR1") {
            return Err(Error::unsupported(format!("{origin} is a Parquet file")).hint(
                "write it as JSON lines, in Python: pandas.read_parquet(FILE).to_json(\"data.jsonl\", orient=\"records\", lines=True)",
            ));
        }
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            let at = e.valid_up_to();
            let line = bytes[..at].iter().filter(|&&b| b == b'\n').count() + 1;
            Error::format(format!("{origin} is not UTF-8: byte {at} (line {line}) is {:#04x}", bytes[at]))
                .hint(format!("iconv -f LATIN1 -t UTF-8 \"{origin}\" > converted, if it is Latin-1"))
        })?;
        let layout = match extension.as_str() {
            "jsonl" | "ndjson" => Layout::JsonLines,
            "json" => json_layout(text),
            "csv" => Layout::Csv,
            "txt" | "md" => Layout::Text,
            _ => layout_of(text, format),
        };
        let name = path.file_stem().map_or_else(|| origin.clone(), |stem| stem.to_string_lossy().into_owned());
        build(name, origin, text, layout, format)
    }

    /// Takes the text of a cell: JSON lines, a JSON array or running text.
    ///
    /// # Errors
    /// [`Kind::Format`] with the origin, the line and the key that is wrong; for no rows at all too.
    pub fn parse(name: &str, text: &str, format: Format) -> Result<Self> {
        build(name.to_owned(), name.to_owned(), text, layout_of(text, format), format)
    }
}

fn layout_of(text: &str, format: Format) -> Layout {
    let start = without_mark(text).trim_start();
    let in_brackets = start.strip_prefix('[').map(str::trim_start);
    match format {
        Format::Text | Format::Auto if start.starts_with('{') => Layout::JsonLines,
        Format::Text | Format::Auto if in_brackets.is_some_and(|s| s.starts_with('{')) => Layout::JsonArray,
        Format::Text | Format::Auto => Layout::Text,
        _ => json_layout(text),
    }
}

/// A `.json` file is an array, or, as often, JSON lines under the wrong name, or a single object over several lines.
fn json_layout(text: &str) -> Layout {
    let start = without_mark(text).trim_start();
    let whole = || serde_json::from_str::<Map<String, Value>>(start).is_ok();
    if start.starts_with('[') || (start.starts_with('{') && whole()) { Layout::JsonArray } else { Layout::JsonLines }
}

/// The text without a byte order mark.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn build(name: String, origin: String, text: &str, layout: Layout, format: Format) -> Result<DataSet> {
    let text = without_mark(text);
    let empty = || Error::format(format!("{origin} has no rows")).hint("one JSON object a line, or running text");
    if text.trim().is_empty() {
        return Err(empty());
    }
    if layout == Layout::Text && matches!(format, Format::Auto | Format::Text) {
        let rows = vec![Row { number: 1, content: Content::Text(text.to_owned()) }];
        return Ok(DataSet { name, origin, format: Format::Text, unit: "line", rows });
    }
    let unit = if layout == Layout::JsonArray { "row" } else { "line" };
    let objects = match layout {
        Layout::JsonArray => json_array(&origin, text)?,
        Layout::Csv => csv::read(&origin, text)?,
        Layout::JsonLines | Layout::Text => json_lines(&origin, text)?,
    };
    let (first_number, first) = objects.first().ok_or_else(empty)?;
    let format = match format {
        Format::Auto => row::detect(first).map_err(|e| e.context(format!("{origin}, {unit} {first_number}")))?,
        chosen => chosen,
    };
    let row = |(number, object)| match row::content(&object, format) {
        Ok(content) => Ok(Row { number, content }),
        Err(e) => Err(e.context(format!("{origin}, {unit} {number}"))),
    };
    let rows = objects.into_iter().map(row).collect::<Result<_>>()?;
    Ok(DataSet { name, origin, format, unit, rows })
}

/// JSON objects with the line or row each stands in.
type Objects = Vec<(usize, Map<String, Value>)>;

fn json_lines(origin: &str, text: &str) -> Result<Objects> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(index, line): (usize, &str)| {
        let place = format!("{origin}, line {}", index + 1);
        let value = serde_json::from_str(line).map_err(|e| broken(&place, &e, false))?;
        Ok((index + 1, object(&place, value)?))
    };
    lines.map(parse).collect()
}

fn json_array(origin: &str, text: &str) -> Result<Objects> {
    let elements = match serde_json::from_str(text).map_err(|e| broken(origin, &e, true))? {
        Value::Array(elements) => elements,
        single => vec![single],
    };
    let numbered = elements.into_iter().enumerate();
    numbered.map(|(i, value)| Ok((i + 1, object(&format!("{origin}, row {}", i + 1), value)?))).collect()
}

fn object(place: &str, value: Value) -> Result<Map<String, Value>> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(Error::format(format!("{place}: a row must be a JSON object, found {}", row::kind_of(&other)))),
    }
}

/// serde's message with the place in the words of all other messages.
fn broken(place: &str, error: &serde_json::Error, whole_file: bool) -> Error {
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or(&message);
    let line = if whole_file { format!(", line {}", error.line()) } else { String::new() };
    Error::new(Kind::Format, format!("{place}{line}, column {}: broken JSON: {what}", error.column()))
        .hint("--format text takes the file as running text, if that is what it is")
}
