//! CSV as RFC 4180 has it: a header, commas, `"` around fields that hold commas, line ends or doubled quotes.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The records as objects of texts by the header's names, with the line each begins in. Empty lines are skipped.
///
/// # Errors
/// [`crate::error::Kind::Format`] with the line, for an open quote, text after a closing one, a name that comes twice, or a
/// record with more or fewer fields than the header.
pub(super) fn read(origin: &str, text: &str) -> Result<Vec<(usize, Map<String, Value>)>> {
    let mut records = records(origin, text)?.into_iter();
    let Some((line, header)) = records.next() else { return Ok(Vec::new()) };
    for (i, name) in header.iter().enumerate() {
        if header[..i].contains(name) {
            return Err(Error::format(format!("{origin}, line {line}: the header has “{name}” twice")));
        }
    }
    let row = |(line, fields): (usize, Vec<String>)| {
        if fields.len() != header.len() {
            return Err(Error::format(format!(
                "{origin}, line {line}: {} fields, the header has {}",
                fields.len(),
                header.len()
            ))
            .hint("fields with commas or line ends need quotes: \"a, b\""));
        }
        Ok((line, header.iter().cloned().zip(fields.into_iter().map(Value::String)).collect()))
    };
    records.map(row).collect()
}

fn records(origin: &str, text: &str) -> Result<Vec<(usize, Vec<String>)>> {
    let mut records = Vec::new();
    let mut chars = text.chars().peekable();
    let mut line = 1;
    while chars.peek().is_some() {
        let first_line = line;
        let mut fields = Vec::new();
        loop {
            let mut field = String::new();
            if chars.next_if_eq(&'"').is_some() {
                let opened = line;
                loop {
                    match chars.next() {
                        Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                        Some('"') => break,
                        Some(c) => {
                            line += usize::from(c == '\n');
                            field.push(c);
                        }
                        None => return Err(Error::format(format!("{origin}, line {opened}: a quote is never closed"))),
                    }
                }
            } else {
                while let Some(c) = chars.next_if(|c| !matches!(c, ',' | '\r' | '\n')) {
                    field.push(c);
                }
            }
            fields.push(field);
            chars.next_if(|&c| c == '\r');
            match chars.next() {
                Some(',') => {}
                None => break,
                Some('\n') => {
                    line += 1;
                    break;
                }
                Some(c) => {
                    return Err(Error::format(format!("{origin}, line {line}: “{c}” after the end of a field")));
                }
            }
        }
        if fields != [""] {
            records.push((first_line, fields));
        }
    }
    Ok(records)
}
