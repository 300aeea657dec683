use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::error::{Kind, Result};
use crate::event::Mark;
use crate::model::tokenizer::Tokenizer;

mod real;

const JSON: &[u8] = include_bytes!("../../tests/golden/llama/model/tokenizer.json");
const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// One token a byte, `<pad>` 256, `<bos>` 257, `<eos>` 258, then these.
fn tokenizer(more: &[&str], template: Option<&str>) -> Tokenizer {
    let mut json: Value = serde_json::from_slice(JSON).unwrap();
    for (i, content) in more.iter().enumerate() {
        json["added_tokens"].as_array_mut().unwrap().push(json!({
            "id": 259 + i, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        }));
    }
    let config = json!({"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"});
    Tokenizer::from_files(json.to_string().as_bytes(), &config, template.map(str::to_owned)).unwrap()
}

fn chat_tokenizer() -> Tokenizer {
    tokenizer(&["<|im_start|>", "<|im_end|>"], Some(CHATML))
}

fn options() -> TokenizeOptions {
    TokenizeOptions::default()
}

fn parse(text: &str) -> DataSet {
    DataSet::parse("cell", text, Format::Auto).unwrap()
}

fn fail(text: &str, format: Format) -> String {
    let error = DataSet::parse("cell", text, format).unwrap_err();
    assert_eq!(error.kind(), Kind::Format, "{error}");
    error.message().to_owned()
}

/// The trained text of a sample; masked tokens are left out.
fn trained(sample: &Sample, tokenizer: &Tokenizer) -> String {
    let ids: Vec<u32> = sample.labels.iter().filter(|&&label| label != IGNORED).map(|&label| label as u32).collect();
    tokenizer.decode(&ids, false).unwrap()
}

fn text(sample: &Sample, tokenizer: &Tokenizer) -> String {
    tokenizer.decode(&sample.ids, false).unwrap()
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

#[test]
fn text_is_cut_into_windows() {
    let tokenizer = tokenizer(&[], None);
    let data = parse(&"a".repeat(21));
    let made = tokenize(&data, &tokenizer, &TokenizeOptions { max_seq_len: 10, ..options() }).unwrap();
    assert_eq!(
        made.samples.iter().map(|s| s.ids.len()).collect::<Vec<_>>(),
        [10, 10],
        "a window of one token is dropped"
    );
    assert_eq!((made.tokens(), made.scored(), made.packs.len()), (20, 18, 2));
    assert!(made.samples.iter().all(|s| s.labels.iter().zip(&s.ids).all(|(&l, &id)| l == id as i32)));
    assert!(check(&data, &made).is_empty());
}

#[test]
fn packed_documents_are_joined_by_an_end_of_text() {
    let tokenizer = tokenizer(&[], None);
    let data = parse("{\"text\": \"abc\"}\n{\"text\": \"\"}\n{\"text\": \"de<eos>\"}\n{\"text\": \"f\"}");
    let packed = TokenizeOptions { pack: true, max_seq_len: 4, ..options() };
    let made = tokenize(&data, &tokenizer, &packed).unwrap();
    let texts: Vec<String> = made.samples.iter().map(|sample| text(sample, &tokenizer)).collect();
    assert_eq!(texts, ["abc<eos>", "de<eos>f"]);
    assert!(made.untrained.is_empty());
    let made = tokenize(&data, &tokenizer, &options()).unwrap();
    assert_eq!((made.samples.len(), made.untrained.clone()), (2, vec![2, 4]));
    assert_eq!(check(&data, &made), ["2 rows of 4 have no trained token: lines 2, 4."]);
}

#[test]
fn prompts_without_a_template_end_in_the_end_of_text() {
    let tokenizer = tokenizer(&[], None);
    let data = parse("{\"prompt\": \"Hi \", \"response\": \"you\"}\n{\"prompt\": \"a\", \"response\": \"b<eos>\"}");
    let made = tokenize(&data, &tokenizer, &options()).unwrap();
    assert_eq!(made.rendering.source(), None);
    assert_eq!(text(&made.samples[0], &tokenizer), "Hi you<eos>");
    assert_eq!(trained(&made.samples[0], &tokenizer), "you<eos>");
    assert_eq!(trained(&made.samples[1], &tokenizer), "b<eos>");
    assert_eq!((made.ended, made.samples[0].scored()), (2, 4));
    let prompt = made.rendering.prompt_ids(&tokenizer, &[Message::new("user", "Hi ")]).unwrap();
    assert_eq!(prompt, made.samples[0].ids[..3]);
    assert!(made.rendering.prompt_ids(&tokenizer, &[]).is_err());
}

#[test]
fn the_tokenizers_chat_template_is_the_default() {
    let tokenizer = chat_tokenizer();
    let data = parse(r#"{"prompt": "Hi", "response": "Hello\n\nyou"}"#);
    let made = tokenize(&data, &tokenizer, &options()).unwrap();
    let sample = &made.samples[0];
    let prompt = made.rendering.prompt_ids(&tokenizer, &[Message::new("user", "Hi")]).unwrap();
    assert_eq!(sample.ids[..prompt.len()], prompt);
    assert!(sample.labels[..prompt.len()].iter().all(|&label| label == IGNORED));
    assert_eq!(
        text(sample, &tokenizer),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello\n\nyou<|im_end|>\n"
    );
    assert_eq!(trained(sample, &tokenizer), "Hello\n\nyou<|im_end|>");
    let none = tokenize(&data, &tokenizer, &TokenizeOptions { template: Template::None, ..options() }).unwrap();
    assert_eq!(text(&none.samples[0], &tokenizer), "HiHello\n\nyou<eos>");
    let all = tokenize(&data, &tokenizer, &TokenizeOptions { train_on_prompt: true, ..options() }).unwrap();
    assert_eq!(all.samples[0].scored(), all.samples[0].ids.len() - 1);
}

#[test]
fn every_answer_of_a_conversation_is_trained() {
    let tokenizer = chat_tokenizer();
    let row = json!({"messages": [
        {"role": "system", "content": "s"}, {"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "q2"}, {"role": "assistant", "content": "a2"}, {"role": "user", "content": "q3"}]});
    let data = parse(&row.to_string());
    for template in [Template::Auto, Template::Chatml] {
        let made = tokenize(&data, &tokenizer, &TokenizeOptions { template, ..options() }).unwrap();
        assert_eq!(trained(&made.samples[0], &tokenizer), "a1<|im_end|>a2<|im_end|>");
        assert_eq!(made.last_turn_only, 0);
    }
    let alpaca = TokenizeOptions { template: Template::Alpaca, ..options() };
    let made = tokenize(&data, &tokenizer, &alpaca).unwrap();
    assert_eq!(trained(&made.samples[0], &tokenizer), "a1<eos>a2<eos>");
}

#[test]
fn a_template_that_forgets_trains_the_last_answer() {
    let forgetting = "{% for m in messages %}<{{ m.role }}>{% if m.role != 'assistant' or loop.last %}{{ m.content }}<eos>{% endif %}\
        {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let thinking = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>{% endfor %}\
        {% if add_generation_prompt %}<assistant><think>{% endif %}";
    let changing = "{% for m in messages %}<{{ m.role }}>{{ m.content | upper }}<eos>{% endfor %}\
        {% if add_generation_prompt %}<assistant><think>{% endif %}";
    let row = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "one"},
        {"role": "user", "content": "r"}, {"role": "assistant", "content": "two"}]}"#;
    let data = parse(&row.replace('\n', " "));

    let by_forgetting = tokenizer(&[], Some(forgetting));
    let made = tokenize(&data, &by_forgetting, &options()).unwrap();
    assert_eq!(text(&made.samples[0], &by_forgetting), "<user>q<eos><assistant><user>r<eos><assistant>two<eos>");
    assert_eq!((trained(&made.samples[0], &by_forgetting).as_str(), made.last_turn_only), ("two<eos>", 1));
    assert!(check(&data, &made)[0].contains("only the last answer"));

    let by_thinking = tokenizer(&[], Some(thinking));
    let made = tokenize(&data, &by_thinking, &options()).unwrap();
    assert!(text(&made.samples[0], &by_thinking).ends_with("<user>r<eos><assistant><think>two<eos>"));
    assert_eq!(trained(&made.samples[0], &by_thinking), "two<eos>");

    let silent = "{% for m in messages %}<{{ m.role }}>{% for part in m.content if part is mapping %}{{ part.text }}{% endfor %}<eos>\
        {% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    assert!(tokenize(&data, &tokenizer(&[], Some(silent)), &options()).is_err());
    let error = tokenize(&data, &tokenizer(&[], Some(changing)), &options()).unwrap_err();
    assert!(error.message().starts_with("cell, line 1: the chat template leaves out or changes"), "{error}");
}

#[test]
fn the_prompts_ids_do_not_depend_on_the_answer() {
    let json = json!({
        "version": "1.0", "added_tokens": [], "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "pre_tokenizer": null, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, ":": 2, ":b": 3}, "merges": [[":", "b"]]},
    });
    let merging = Tokenizer::from_files(json.to_string().as_bytes(), &Value::Null, None).unwrap();
    assert_eq!(merging.encode("a:b").unwrap(), [0, 3]);
    let data = parse(r#"{"prompt": "a:", "response": "b"}"#);
    let made = tokenize(&data, &merging, &options()).unwrap();
    assert_eq!(
        (made.samples[0].ids.as_slice(), made.samples[0].labels.as_slice()),
        (&[0, 2, 1][..], &[-100, -100, 1][..])
    );
    assert_eq!(
        check(&data, &made),
        ["No trained answer ends with a special token, so the model cannot learn to stop."]
    );
}

#[test]
fn alpaca_rows_have_stanfords_wording() {
    let tokenizer = tokenizer(&[], None);
    let data = parse(
        "{\"instruction\": \"Add.\", \"input\": \"1 + 1\", \"output\": \"2\"}\n{\"instruction\": \"Sing.\", \"input\": \"\", \"output\": \"La\"}",
    );
    let made = tokenize(&data, &tokenizer, &options()).unwrap();
    assert_eq!(
        text(&made.samples[0], &tokenizer),
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that \
         appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 + 1\n\n### Response:\n2<eos>"
    );
    assert_eq!(
        text(&made.samples[1], &tokenizer),
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\
         ### Instruction:\nSing.\n\n### Response:\nLa<eos>"
    );
    assert_eq!(trained(&made.samples[1], &tokenizer), "La<eos>");
    let again = Rendering::from_source(made.rendering.source(), &tokenizer);
    assert_eq!(again.conversation(&data.rows[0].content), made.rendering.conversation(&data.rows[0].content));
    let chat = tokenize(&data, &chat_tokenizer(), &options()).unwrap();
    assert!(text(&chat.samples[0], &chat_tokenizer()).contains("user\nAdd.\n\n1 + 1<|im_end|>"));
}

#[test]
fn built_in_templates_write_what_their_models_read() {
    let tokenizer = tokenizer(&["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], None);
    let data = parse(r#"{"messages": [{"role": "user", "content": " q "}, {"role": "assistant", "content": "a"}]}"#);
    let made = tokenize(&data, &tokenizer, &options()).unwrap();
    assert_eq!(made.rendering.name(), "llama3");
    assert_eq!(
        text(&made.samples[0], &tokenizer),
        "<bos><|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\na<|eot_id|>"
    );
    assert_eq!(trained(&made.samples[0], &tokenizer), "a<|eot_id|>");
    let refuse = |format, template| Rendering::choose(template, format, &tokenizer).unwrap_err().kind();
    assert_eq!(refuse(Format::Messages, Template::None), Kind::Usage);
    assert_eq!(refuse(Format::Text, Template::Chatml), Kind::Usage);
    assert_eq!(refuse(Format::Tokens, Template::Alpaca), Kind::Usage);
}

#[test]
fn a_doubled_begin_of_text_is_dropped_and_told() {
    let source = "{{ bos_token }}{% for m in messages %}{{ bos_token if loop.first }}{{ m.content }}{% endfor %}\
        {{ eos_token if not add_generation_prompt }}";
    let tokenizer = tokenizer(&[], Some(source));
    let data = parse(r#"{"prompt": "q", "response": "a"}"#);
    let made = tokenize(&data, &tokenizer, &options()).unwrap();
    assert_eq!(text(&made.samples[0], &tokenizer), "<bos>qa<eos>");
    assert_eq!(made.rendering.prompt_ids(&tokenizer, &[Message::new("user", "q")]).unwrap(), made.samples[0].ids[..2]);
    assert_eq!(check(&data, &made), ["1 row begins with two begin-of-text tokens; one of them was dropped."]);
    let tokens = parse("{\"input_ids\": [257, 257, 65, 66]}");
    let made = tokenize(&tokens, &tokenizer, &options()).unwrap();
    assert_eq!(made.samples[0].ids, [257, 257, 65, 66]);
    assert_eq!(check(&tokens, &made), ["1 row begins with two begin-of-text tokens; they are used verbatim."]);
}

#[test]
fn tokens_are_used_verbatim() {
    let tokenizer = tokenizer(&[], None);
    let data = parse(
        "{\"input_ids\": [5, 6, 7], \"labels\": [-100, 9, -100]}\n{\"input_ids\": [1, 2], \"labels\": [1, -100]}",
    );
    let made = tokenize(&data, &tokenizer, &options()).unwrap();
    assert_eq!((made.samples[0].labels.as_slice(), made.samples[0].scored()), (&[-100, 9, -100][..], 1));
    assert_eq!(made.untrained, [2], "the first label is never scored");
    for (rows, message) in [
        (
            "{\"input_ids\": [1, 2]}\n{\"input_ids\": [1, 259]}",
            "cell, line 2: token 259 is beyond the vocabulary, whose last id is 258",
        ),
        (
            "{\"input_ids\": [1, 2], \"labels\": [1, 300]}",
            "cell, line 1: token 300 is beyond the vocabulary, whose last id is 258",
        ),
        ("{\"input_ids\": [1, 2], \"labels\": [1, -100]}", "no row of cell has a token to train on"),
    ] {
        assert_eq!(tokenize(&parse(rows), &tokenizer, &options()).unwrap_err().message(), message);
    }
    let padded = TokenizeOptions { vocabulary: Some(320), ..options() };
    assert!(tokenize(&parse("{\"input_ids\": [1, 259]}"), &tokenizer, &padded).is_ok());
}

#[test]
fn long_samples_are_cut_and_counted() {
    let tokenizer = tokenizer(&[], None);
    let data = parse(
        "{\"prompt\": \"abcd\", \"response\": \"ef\"}\n{\"prompt\": \"a\", \"response\": \"b\"}\n{\"prompt\": \"abcdefg\", \"response\": \"h\"}",
    );
    let made = tokenize(&data, &tokenizer, &TokenizeOptions { max_seq_len: 5, ..options() }).unwrap();
    assert_eq!((made.truncated, made.untrained.clone()), (2, vec![3]));
    assert_eq!(
        check(&data, &made),
        [
            "1 row of 3 has no trained token: line 3.",
            "2 rows were cut to 5 tokens; --max-seq-len 9 keeps the longest whole.",
        ]
    );
    let error = tokenize(&data.split(0.3, 0).unwrap().0, &tokenizer, &TokenizeOptions { max_seq_len: 1, ..options() });
    assert_eq!(error.unwrap_err().kind(), Kind::Usage);
    let only_prompts = parse(r#"{"prompt": "abcdefg", "response": "h"}"#);
    let error = tokenize(&only_prompts, &tokenizer, &TokenizeOptions { max_seq_len: 5, ..options() }).unwrap_err();
    assert!(error.hint_text().unwrap().contains("raise --max-seq-len to 9"));
}

#[test]
fn packed_samples_fit_the_longest_sequence() {
    let tokenizer = tokenizer(&[], None);
    let rows: Vec<String> = (1..8).map(|n| json!({"prompt": "p", "response": "r".repeat(n)}).to_string()).collect();
    let data = parse(&rows.join("\n"));
    let made = tokenize(&data, &tokenizer, &TokenizeOptions { pack: true, max_seq_len: 10, ..options() }).unwrap();
    let mut seen: Vec<usize> = made.packs.iter().flat_map(|pack| pack.samples.clone()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..7).collect::<Vec<_>>());
    assert!(made.packs.iter().all(|p| p.samples.iter().map(|&i| made.samples[i].ids.len()).sum::<usize>() <= 10));
    assert!(made.packs.len() < 7);
}

#[test]
fn samples_are_shown_token_by_token() {
    let tokenizer = tokenizer(&[], None);
    let data = parse(r#"{"prompt": "é?", "response": "🦀!ab"}"#);
    let made = tokenize(&data, &tokenizer, &TokenizeOptions { max_seq_len: 9, ..options() }).unwrap();
    let shown = show(&made.samples[0], &tokenizer, "cell, sample 1 of 1");
    let tokens: Vec<(&str, Mark)> = shown.tokens.iter().map(|(text, mark)| (text.as_str(), *mark)).collect();
    assert_eq!(
        tokens,
        [
            ("é", Mark::Masked),
            ("?", Mark::Masked),
            ("🦀", Mark::Trained),
            ("!", Mark::Trained),
            ("a", Mark::Trained),
            ("b", Mark::Padding),
            ("<eos>", Mark::Padding),
        ]
    );
    assert_eq!(shown.title, "cell, sample 1 of 1");
    let whole = tokenize(&parse("abc"), &tokenizer, &options()).unwrap();
    let marks: Vec<Mark> = show(&whole.samples[0], &tokenizer, "").tokens.iter().map(|(_, mark)| *mark).collect();
    assert_eq!(marks, [Mark::Masked, Mark::Trained, Mark::Trained]);
}

#[test]
fn repeated_rows_are_noticed() {
    let data = parse("{\"text\": \"ab\"}\n{\"text\": \"ab\"}\n{\"text\": \"cd\"}");
    let made = tokenize(&data, &tokenizer(&[], None), &options()).unwrap();
    assert_eq!(check(&data, &made), ["1 row repeats an earlier one word by word."]);
    assert!(made.bytes() >= 6 * 8);
}
