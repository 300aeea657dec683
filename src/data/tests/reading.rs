//! Files and cells to rows, and rows held out.

use std::path::{Path, PathBuf};

use super::*;
use crate::error::Result;

fn fail(text: &str, format: Format) -> String {
    let error = DataSet::parse("cell", text, format).unwrap_err();
    assert_eq!(error.kind(), Kind::Format, "{error}");
    error.message().to_owned()
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("loralab-data-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn read(name: &str, bytes: &[u8]) -> Result<DataSet> {
    DataSet::read(&file(name, bytes), Format::Auto)
}

#[test]
fn the_format_is_told_by_the_first_row() {
    for (row, format) in [
        (r#"{"text": "a"}"#, Format::Text),
        (r#"{"prompt": "a", "response": "b"}"#, Format::Prompt),
        (r#"{"prompt": "a", "completion": "b"}"#, Format::Prompt),
        (r#"{"question": "a", "answer": "b"}"#, Format::Prompt),
        (r#"{"instruction": "a", "response": "b"}"#, Format::Prompt),
        (r#"{"instruction": "a", "output": "b", "input": null}"#, Format::Alpaca),
        (r#"{"messages": [{"role": "user", "content": "a"}]}"#, Format::Messages),
        (r#"{"conversations": [{"from": "human", "value": "a"}]}"#, Format::Sharegpt),
        (r#"{"input_ids": [1, 2]}"#, Format::Tokens),
        ("just text\nover lines", Format::Text),
        ("[not JSON] but text", Format::Text),
    ] {
        let data = parse(row);
        assert_eq!((data.format, data.rows.len()), (format, 1), "{row}");
        assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
    }
    assert_eq!("yaml".parse::<Format>().unwrap_err().message(), "unknown format “yaml”");
    assert_eq!("x".parse::<Template>().unwrap_err().hint_text(), Some("--template auto|chatml|llama3|alpaca|none"));
}

#[test]
fn rows_know_their_lines() {
    let data = parse("\u{feff}{\"text\": \"a\"}\r\n\r\n{\"text\": \"b\"}\n\n");
    assert_eq!(data.rows.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(data.place(&data.rows[1]), "cell, line 3");
    let array = parse(" [{\"text\": \"a\"},\n {\"text\": \"b\"}]");
    assert_eq!(array.place(&array.rows[1]), "cell, row 2");
}

#[test]
fn speakers_have_the_names_of_transformers() {
    let sharegpt = parse(
        r#"{"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}"#,
    );
    let messages = parse(
        r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]},
            {"role": "assistant", "content": "a"}]}"#
            .replace('\n', " ")
            .as_str(),
    );
    assert_eq!(sharegpt.rows[0].content, messages.rows[0].content);
}

#[test]
fn wrong_rows_name_line_and_key() {
    let pair = r#"{"prompt": "a", "response": "b"}"#;
    for (text, format, expected) in [
        ("", Format::Auto, "cell has no rows"),
        (" \n\n", Format::Text, "cell has no rows"),
        ("[]", Format::Prompt, "cell has no rows"),
        ("{\"prompt\": \"a\"", Format::Auto, "cell, line 1, column 14: broken JSON: EOF while parsing an object"),
        (
            &format!("{pair}\n\n{{\"prompt\" \"a\"}}"),
            Format::Auto,
            "cell, line 3, column 11: broken JSON: expected `:`",
        ),
        (
            &format!("{pair}\n{{\"text\": \"b\"}}"),
            Format::Auto,
            "cell, line 2: no \"prompt\", which a row of format prompt needs; it has \"text\"",
        ),
        (
            r#"{"prompt": 12, "response": "b"}"#,
            Format::Auto,
            "cell, line 1: \"prompt\" must be text, found the number 12",
        ),
        (r#"{"prompt": "a", "response": null}"#, Format::Auto, "cell, line 1: \"response\" must be text, found null"),
        (r#"{"a": 1, "b": 2}"#, Format::Auto, "cell, line 1: no known format has the keys \"a\", \"b\""),
        ("{}", Format::Auto, "cell, line 1: no known format has the keys no keys"),
        ("7", Format::Prompt, "cell, line 1: a row must be a JSON object, found the number 7"),
        ("[{\"text\": \"a\"}, 3]", Format::Auto, "cell, row 2: a row must be a JSON object, found the number 3"),
        ("[{\"text\": \"a\"},\n {\"text\" 3}]", Format::Auto, "cell, line 2, column 10: broken JSON: expected `:`"),
        (r#"{"messages": []}"#, Format::Auto, "cell, line 1: \"messages\" has no messages"),
        (r#"{"messages": "hi"}"#, Format::Auto, "cell, line 1: \"messages\" must be a list of messages, found text"),
        (
            r#"{"messages": [{"role": "user"}]}"#,
            Format::Auto,
            "cell, line 1: \"messages\", message 1: no \"content\", which a row of format messages needs; it has \"role\"",
        ),
        (
            r#"{"conversations": [{"from": "cat", "value": "miau"}]}"#,
            Format::Auto,
            "cell, line 1: \"conversations\", message 1: \"from\" is “cat”, which is no known speaker",
        ),
        (r#"{"input_ids": []}"#, Format::Auto, "cell, line 1: \"input_ids\" is empty"),
        (
            r#"{"input_ids": [1, -1]}"#,
            Format::Auto,
            "cell, line 1: element 2: \"input_ids\" must be a list of token ids, found the number -1",
        ),
        (
            r#"{"input_ids": [1, 2], "labels": [1]}"#,
            Format::Auto,
            "cell, line 1: \"input_ids\" has 2 elements, \"labels\" has 1",
        ),
        (
            r#"{"input_ids": [1, 2], "labels": [1, -1]}"#,
            Format::Auto,
            "cell, line 1: \"labels\" has -1, which is neither a token id nor -100",
        ),
    ] {
        assert_eq!(fail(text, format), expected);
    }
}

#[test]
fn files_are_told_by_their_ending() {
    assert_eq!(read("a.txt", b"{\"text\": 1}\n").unwrap().rows[0].content, Content::Text("{\"text\": 1}\n".to_owned()));
    let csv = read("b.csv", b"prompt,response\r\n\"a, \"\"b\"\"\nc\",d\r\n\r\ne,\n").unwrap();
    assert_eq!((csv.name.as_str(), csv.format), ("b", Format::Prompt));
    assert_eq!(csv.rows[0].content, Content::Prompt { prompt: "a, \"b\"\nc".to_owned(), response: "d".to_owned() });
    assert_eq!(csv.rows[1].number, 5);
    assert_eq!(read("c.json", b"{\n \"text\": \"a\"\n}").unwrap().rows.len(), 1);
    assert_eq!(read("d.json", b"{\"text\": \"a\"}\n{\"text\": \"b\"}\n").unwrap().rows.len(), 2);
    assert_eq!(read("e.json", b"[{\"text\": \"a\"}, {\"text\": \"b\"}]").unwrap().rows.len(), 2);
    assert_eq!(read("f.jsonl", b"{\"text\": \"a\"}\n").unwrap().format, Format::Text);
    assert_eq!(read("noending", b"{\"text\": \"a\"}\n").unwrap().rows[0].content, Content::Text("a".to_owned()));
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let missing = DataSet::read(Path::new("/nowhere/x.jsonl"), Format::Auto).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    assert_eq!(DataSet::read(&std::env::temp_dir(), Format::Auto).unwrap_err().kind(), Kind::Io);
    assert_eq!(read("x.parquet", b"PAR1").unwrap_err().kind(), Kind::Unsupported);
    for (name, bytes, expected) in [
        ("latin.txt", &b"ab\nc\xe9"[..], "is not UTF-8: byte 4 (line 2) is 0xe9"),
        ("empty.jsonl", b"", "has no rows"),
        ("header.csv", b"prompt,response\n", "has no rows"),
        ("open.csv", b"prompt,response\n\"a,b\n", "line 2: a quote is never closed"),
        ("fields.csv", b"prompt,response\na,b,c\n", "line 2: 3 fields, the header has 2"),
        ("twice.csv", b"prompt,prompt\na,b\n", "line 1: the header has “prompt” twice"),
        ("behind.csv", b"prompt,response\n\"a\"b,c\n", "line 2: “b” after the end of a field"),
        ("text.jsonl", b"hello\n", "line 1, column 1: broken JSON: expected value"),
    ] {
        let error = read(name, bytes).unwrap_err();
        assert_eq!(error.kind(), Kind::Format);
        assert!(error.message().contains(expected), "{name}: {error}");
    }
}

#[test]
fn held_out_rows_are_drawn_by_the_seed() {
    let lines: Vec<String> = (0..20).map(|i| format!("{{\"text\": \"{i}\"}}")).collect();
    let data = parse(&lines.join("\n"));
    let (train, valid) = data.split(0.2, 1).unwrap();
    assert_eq!((train.rows.len(), valid.rows.len(), valid.name.as_str()), (16, 4, "cell.valid"));
    assert_eq!(data.split(0.2, 1).unwrap().1.rows, valid.rows);
    assert_ne!(data.split(0.2, 2).unwrap().1.rows, valid.rows);
    let mut numbers: Vec<usize> = train.rows.iter().chain(&valid.rows).map(|row| row.number).collect();
    assert!(train.rows.is_sorted_by_key(|row| row.number));
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    assert_eq!(leakage(&train, &valid), 0);
    assert_eq!(leakage(&data, &valid), 4);
    assert_eq!((data.split(0.001, 1).unwrap().1.rows.len(), data.split(0.999, 1).unwrap().0.rows.len()), (1, 1));
    for bad in [0.0, 1.0, -0.1, f64::NAN] {
        assert_eq!(data.split(bad, 1).unwrap_err().kind(), Kind::Usage);
    }
    assert_eq!(parse(r#"{"prompt": "a", "response": "b"}"#).split(0.5, 1).unwrap_err().kind(), Kind::Format);
}

#[test]
fn the_end_of_a_single_text_is_held_out() {
    let (train, valid) = parse("one\ntwo\nthree\nfour\n").split(0.3, 1).unwrap();
    assert_eq!(train.rows[0].content, Content::Text("one\ntwo\nthree\n".to_owned()));
    assert_eq!((valid.rows[0].number, &valid.rows[0].content), (4, &Content::Text("four\n".to_owned())));
    let (train, valid) = parse("äöüß").split(0.4, 1).unwrap();
    assert_eq!([train, valid].map(|d| d.rows[0].content.clone()), ["äö", "üß"].map(|t| Content::Text(t.to_owned())));
    assert!(parse("x").split(0.5, 1).is_err());
}
