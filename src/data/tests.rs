use serde_json::{Value, json};

use super::*;
use crate::error::Kind;
use crate::event::Mark;
use crate::model::tokenizer::Tokenizer;

mod reading;
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

/// The trained text of a sample; masked tokens are left out.
fn trained(sample: &Sample, tokenizer: &Tokenizer) -> String {
    let ids: Vec<u32> = sample.labels.iter().filter(|&&label| label != IGNORED).map(|&label| label as u32).collect();
    tokenizer.decode(&ids, false).unwrap()
}

fn text(sample: &Sample, tokenizer: &Tokenizer) -> String {
    tokenizer.decode(&sample.ids, false).unwrap()
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
    assert!(check(&data, &made, 1 << 20).is_empty());
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
    assert_eq!(
        check(&data, &made, 1 << 20),
        [
            "2 rows of 4 have no trained token: lines 2, 4; they teach nothing: drop them, or raise --max-seq-len where the prompt fills it."
        ]
    );
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
    assert!(check(&data, &made, 1 << 20)[0].contains("only the last answer"));

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
        check(&data, &made, 1 << 20),
        ["No trained answer ends with a special token; the model cannot learn to stop."]
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
    assert_eq!(check(&data, &made, 1 << 20), ["1 row begins with two begin-of-text tokens; one of them was dropped."]);
    let tokens = parse("{\"input_ids\": [257, 257, 65, 66]}");
    let made = tokenize(&tokens, &tokenizer, &options()).unwrap();
    assert_eq!(made.samples[0].ids, [257, 257, 65, 66]);
    assert_eq!(check(&tokens, &made, 1 << 20), ["1 row begins with two begin-of-text tokens; they are used verbatim."]);
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
        check(&data, &made, 1 << 20),
        [
            "1 row of 3 has no trained token: line 3; they teach nothing: drop them, or raise --max-seq-len where the prompt fills it.",
            "2 rows were cut to 5 tokens; --max-seq-len 9 keeps the longest whole.",
        ]
    );
    assert!(check(&data, &made, 7)[1].ends_with("the longest has 9, and --max-seq-len can go up to 7."));
    assert!(check(&data, &made, 5)[1].ends_with("the longest has 9, the model's context holds no more."));
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
    assert_eq!(
        check(&data, &made, 1 << 20),
        [
            "1 row repeats an earlier one word by word, as line 2; what is repeated weighs more: drop it unless that is wanted."
        ]
    );
    assert!(made.bytes() >= 6 * 8);
}
