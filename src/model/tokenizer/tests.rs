use serde_json::{Value, json};

use super::{Message, Tokenizer};
use crate::error::Kind;

const JSON: &[u8] = include_bytes!("../../../tests/golden/llama/model/tokenizer.json");
const CONFIG: &str = include_str!("../../../tests/golden/llama/model/tokenizer_config.json");

fn config() -> Value {
    serde_json::from_str(CONFIG).unwrap()
}

fn bytes() -> Tokenizer {
    Tokenizer::from_files(JSON, &config(), None).unwrap()
}

fn with_template(source: &str) -> Tokenizer {
    Tokenizer::from_files(JSON, &config(), Some(source.to_owned())).unwrap()
}

fn render(source: &str, messages: &[Message]) -> String {
    with_template(source).render_chat(messages, true).unwrap()
}

fn hello() -> Vec<Message> {
    vec![Message::new("user", " Hi "), Message::new("assistant", "Hello!")]
}

#[test]
fn nothing_is_added_and_everything_comes_back() {
    let tokenizer = bytes();
    let text = "naïve “quotes” 🦀\n\0 end";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(ids.len(), text.len());
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    assert_eq!(tokenizer.encode_with_special(text).unwrap(), ids);
    assert!(tokenizer.encode("").unwrap().is_empty());
    assert_eq!(tokenizer.encode("a<eos>").unwrap().last(), Some(&258));
    assert_eq!(tokenizer.config(), &config());
}

#[test]
fn the_tokenizers_own_rule_may_add_begin_and_end() {
    let mut json: Value = serde_json::from_slice(JSON).unwrap();
    let token = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
    json["post_processor"]["single"] = json!([token("<bos>"), {"Sequence": {"id": "A", "type_id": 0}}, token("<eos>")]);
    json["post_processor"]["special_tokens"] = json!({
        "<bos>": {"id": "<bos>", "ids": [257], "tokens": ["<bos>"]},
        "<eos>": {"id": "<eos>", "ids": [258], "tokens": ["<eos>"]},
    });
    json["truncation"] = json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 256,
                             "pad_type_id": 0, "pad_token": "<pad>"});
    let tokenizer = Tokenizer::from_files(json.to_string().as_bytes(), &config(), None).unwrap();
    assert_eq!(tokenizer.encode("abcdef").unwrap().len(), 6, "neither cut nor padded");
    let ids = tokenizer.encode_with_special("ab").unwrap();
    assert_eq!((ids.len(), ids[0], ids[3]), (4, 257, 258));
    assert_eq!(tokenizer.encode_start("ab").unwrap(), ids[..3]);
    assert_eq!(tokenizer.encode_start("ab<eos>").unwrap().len(), 5);
    assert_eq!(tokenizer.encode_start("").unwrap(), [257]);
}

#[test]
fn special_tokens_are_strings_or_objects() {
    let tokenizer = bytes();
    assert_eq!(tokenizer.bos().map(|t| (t.id, t.text)), Some((257, "<bos>".to_owned())));
    let config =
        json!({"eos_token": {"content": "<eos>", "lstrip": false}, "bos_token": null, "pad_token": "<nowhere>"});
    let tokenizer = Tokenizer::from_files(JSON, &config, None).unwrap();
    assert_eq!(tokenizer.eos().map(|t| t.id), Some(258));
    assert_eq!((tokenizer.bos(), tokenizer.pad()), (None, None));
    assert!(tokenizer.is_special(258) && tokenizer.is_special(256) && !tokenizer.is_special(65));
    assert_eq!(Tokenizer::from_files(JSON, &Value::Null, None).unwrap().eos(), None);
}

#[test]
fn bytes_that_are_no_tokenizer_are_refused() {
    for bad in [&b""[..], b"{}", b"\xff\xfe", b"[1, 2]", &JSON[..JSON.len() / 2]] {
        let error = Tokenizer::from_files(bad, &Value::Null, None).err().unwrap();
        assert_eq!(error.kind(), Kind::Format);
        assert!(error.message().starts_with("tokenizer.json is no tokenizer"), "{error}");
    }
}

#[test]
fn a_vocabulary_beyond_the_embedding_is_found() {
    let tokenizer = bytes();
    assert_eq!(tokenizer.vocab_size(), 259);
    assert!(tokenizer.check_vocab(259).is_ok() && tokenizer.check_vocab(320).is_ok());
    let error = tokenizer.check_vocab(256).unwrap_err();
    assert_eq!(error.kind(), Kind::Shape);
    assert!(error.message().contains("258") && error.message().contains("256 rows"), "{error}");
}

#[test]
fn a_stream_never_splits_characters() {
    let tokenizer = bytes();
    let text = "a🦀b é";
    let mut stream = tokenizer.stream(false);
    let pieces: Vec<String> = tokenizer.encode(text).unwrap().into_iter().map(|id| stream.push(id).unwrap()).collect();
    assert_eq!(pieces, ["a", "", "", "", "🦀", "b", " ", "", "é"]);
    assert_eq!(stream.finish().unwrap(), "");

    let crab = tokenizer.encode("x🦀").unwrap();
    let broken = [&crab[..3], &tokenizer.encode("yz").unwrap(), &crab[1..2]].concat();
    let mut stream = tokenizer.stream(false);
    let mut told: String = broken.iter().map(|&id| stream.push(id).unwrap()).collect();
    told += &stream.finish().unwrap();
    assert_eq!(told, tokenizer.decode(&broken, false).unwrap());
    assert_eq!(told, "x\u{fffd}yz\u{fffd}");
}

#[test]
fn a_stream_skips_special_tokens_if_asked() {
    let tokenizer = bytes();
    let ids = tokenizer.encode("a<eos>b").unwrap();
    let told = |skip| {
        let mut stream = tokenizer.stream(skip);
        ids.iter().map(|&id| stream.push(id).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(told(true), ["a", "", "b"]);
    assert_eq!(told(false), ["a", "<eos>", "b"]);
}

#[test]
fn a_stream_keeps_the_spaces_of_sentencepiece() {
    let json = json!({
        "version": "1.0", "added_tokens": [], "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "WordLevel", "vocab": {"▁Hello": 0, "▁world": 1, "[UNK]": 2}, "unk_token": "[UNK]"},
    });
    let tokenizer = Tokenizer::from_files(json.to_string().as_bytes(), &Value::Null, None).unwrap();
    let ids = tokenizer.encode("Hello world world").unwrap();
    assert_eq!(ids, [0, 1, 1]);
    let mut stream = tokenizer.stream(false);
    let told: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(told, ["Hello", " world", " world"]);
    assert_eq!(tokenizer.token_text(1), " world");
}

#[test]
fn single_tokens_have_a_text() {
    let tokenizer = bytes();
    assert_eq!(tokenizer.token_text(tokenizer.encode(" ").unwrap()[0]), " ");
    assert_eq!(tokenizer.token_text(257), "<bos>");
    assert_eq!(tokenizer.token_text(9999), "<9999>");
    assert_eq!(tokenizer.token_id("<eos>"), Some(258));
}

#[test]
fn chatml_with_a_default_system_prompt() {
    let source = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
        {{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}\
        {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    assert_eq!(
        render(source, &hello()[..1]),
        "<|im_start|>system\nYou are kind.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn a_template_in_the_manner_of_llama_3() {
    let source = "{% set loop_messages = messages %}{% for message in loop_messages %}\
        {% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}\
        {% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
    assert_eq!(
        render(source, &hello()),
        "<bos><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    );
}

#[test]
fn blocks_are_trimmed_as_transformers_does() {
    let source = "  {% for m in messages %}\n    {# a remark #}\n{{ m.role }}:\n    {%- if m.content %} {{ m.content }}\n    {% endif %}\n{% endfor %}\nend\n";
    assert_eq!(render(source, &hello()), "user:  Hi \nassistant: Hello!\nend");
}

#[test]
fn templates_may_use_what_python_has() {
    let cases = [
        ("{{ messages[0].content.strip() }}|{{ messages[-1]['content'].rstrip('!') }}", "Hi|Hello"),
        ("{{ 'a b'.split(' ')[-1] }}{{ '</t>x</t>y'.split('</t>')[-1].lstrip('\\n') }}", "by"),
        ("{{ 'a-b-c'.split('-', 1) | join('|') }} {{ 'a-b-c'.rsplit('-', 1) | join('|') }}", "a|b-c a-b|c"),
        ("{{ messages[0].content.startswith(' H') and 'abc'.endswith(('x', 'bc')) }}", "True"),
        ("{{ 'aB'.upper() ~ 'aB'.lower() ~ 'hello world'.title() ~ 'hELLO'.capitalize() }}", "ABabHello WorldHello"),
        ("{{ 'abcb'.replace('b', 'x') ~ 'äbc'.find('c') ~ 'abc'.find('z') ~ 'abcb'.count('b') }}", "axcx2-12"),
        ("{{ messages[0].get('name', 'none') ~ messages[0].get('role') }}", "noneuser"),
        ("{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}", "role=user;content= Hi ;"),
        ("{{ messages[0] | tojson }}", "{\"role\": \"user\", \"content\": \" Hi \"}"),
        ("{{ {'a': [1, 2], 'b': '<&>ü'} | tojson }}", "{\"a\": [1, 2], \"b\": \"<&>ü\"}"),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        ("{% for m in messages[::-1] %}{{ m.role }} {% endfor %}", "assistant user "),
        ("{% for m in messages %}{%- generation %} {{ m.role }} {% endgeneration -%}{% endfor %}", " user  assistant "),
        ("{% if tools is none and m is not defined and messages[0].tool_calls is not defined %}ok{% endif %}", "ok"),
        ("{% if tools is iterable and tools | length > 0 %}no{% elif messages is iterable %}ok{% endif %}", "ok"),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(eos_token) }}", "<<eos>>"),
        ("{% if 'role' in messages[0] and 'tool_calls' not in messages[0] %}ok{% endif %}", "ok"),
        ("{{ strftime_now('%Y') | int > 2020 }}", "True"),
        ("{% for m in messages if m.role == 'user' %}{{ loop.length }}{% endfor %}", "1"),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source, &hello()), expected, "{source}");
    }
}

#[test]
fn a_wrong_template_names_its_line() {
    let cases = [
        ("a\nb\n{% frobnicate %}", "line 3"),
        ("a\n{{ messages[0].content.frobnicate() }}", "line 2"),
        ("{% for m in messages %}", "line 1"),
        ("a\n\n{{ 'x' + 1 }}", "line 3"),
        ("\n{{ 'x'.split('') }}", "line 2"),
        ("\n\n\n{{ nowhere.nothing }}", "line 4"),
    ];
    for (source, place) in cases {
        let error = with_template(source).render_chat(&hello(), false).unwrap_err();
        assert_eq!(error.kind(), Kind::Format);
        assert!(error.message().contains(place), "{source}: {error}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("--template")));
    }
    let refusing = with_template("{{ raise_exception('roles must alternate') }}");
    let error = refusing.render_chat(&hello(), false).unwrap_err();
    assert_eq!(error.message(), "chat template, line 1: refused: roles must alternate");
    assert_eq!(bytes().render_chat(&hello(), false).unwrap_err().kind(), Kind::State);
}

#[test]
fn chat_templates_come_from_several_places() {
    let named = json!([{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]);
    for (config, file, expected) in [
        (json!({"chat_template": "C"}), None, Some("C")),
        (json!({"chat_template": named}), None, Some("D")),
        (json!({"chat_template": [{"name": "rag", "template": "R"}]}), None, Some("R")),
        (json!({"chat_template": "C"}), Some("F".to_owned()), Some("F")),
        (json!({"chat_template": 7}), None, None),
        (json!({"chat_template": []}), None, None),
    ] {
        let tokenizer = Tokenizer::from_files(JSON, &config, file).unwrap();
        assert_eq!(tokenizer.chat_template(), expected);
    }
}

#[test]
fn a_doubled_begin_of_text_is_dropped() {
    let tokenizer = bytes();
    assert_eq!(tokenizer.encode_rendered("<bos><bos>a").unwrap(), (tokenizer.encode("<bos>a").unwrap(), true));
    assert_eq!(tokenizer.encode_rendered("<bos>a").unwrap(), (tokenizer.encode("<bos>a").unwrap(), false));
}
