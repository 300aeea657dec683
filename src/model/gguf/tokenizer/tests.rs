//! Tokenizers built from metadata, against what their models' own tokenizers do.

use std::collections::HashMap;

use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer};

use super::*;

/// A vocabulary with a token of each kind that is in `tokens`.
fn vocabulary(tokens: &[(&str, f64)]) -> Vocabulary {
    let (names, kinds): (Vec<String>, Vec<f64>) = tokens.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).unzip();
    let ids = names.iter().enumerate().map(|(id, name)| (name.clone(), id)).collect();
    Vocabulary { tokens: names, kinds, ids }
}

/// The tokenizer that consists of `parts`.
fn assemble(vocabulary: &Vocabulary, parts: Value, post_processor: Value) -> Tokenizer {
    let mut json =
        json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": vocabulary.added_tokens()});
    json.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    json["post_processor"] = post_processor;
    Tokenizer::from_bytes(json.to_string()).unwrap()
}

/// The words that a pre-tokenizer makes of `text`, spaces and line ends as byte-level BPE writes them.
fn words(pre: &str, text: &str) -> Vec<String> {
    let vocabulary = vocabulary(&[("a", NORMAL)]);
    let tokenizer = assemble(&vocabulary, byte_level_parts(&vocabulary, &[], pre).unwrap(), Value::Null);
    let mut split = PreTokenizedString::from(text);
    tokenizer.get_pre_tokenizer().unwrap().pre_tokenize(&mut split).unwrap();
    let splits = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
    splits.into_iter().map(|(word, ..)| word.to_owned()).collect()
}

#[test]
fn pre_tokenizers_split_as_their_models_do() {
    let text = "I'LL pay 12345  now!\n\n it's";
    assert_eq!(words("gpt-2", text), ["I", "'", "LL", "Ġpay", "Ġ12345", "Ġ", "Ġnow", "!", "ĊĊ", "Ġit", "'s"]);
    assert_eq!(words("default", text), words("gpt-2", text));
    assert_eq!(
        words("smollm", text),
        ["I", "'", "LL", "Ġpay", "Ġ", "1", "2", "3", "4", "5", "Ġ", "Ġnow", "!", "ĊĊ", "Ġit", "'s"]
    );
    assert_eq!(words("llama-bpe", text), ["I", "'LL", "Ġpay", "Ġ", "123", "45", "Ġ", "Ġnow", "!ĊĊ", "Ġit", "'s"]);
    assert_eq!(
        words("qwen2", text),
        ["I", "'LL", "Ġpay", "Ġ", "1", "2", "3", "4", "5", "Ġ", "Ġnow", "!ĊĊ", "Ġit", "'s"]
    );
}

#[test]
fn only_llama_3_ignores_merges_and_only_qwen_normalizes() {
    let vocabulary = vocabulary(&[("a", NORMAL), ("b", NORMAL), ("c", NORMAL), ("ab", NORMAL), ("abc", NORMAL)]);
    let ids = |pre: &str, text: &str| {
        let tokenizer = assemble(&vocabulary, byte_level_parts(&vocabulary, &[("a", "b")], pre).unwrap(), Value::Null);
        tokenizer.encode(text, false).unwrap().get_ids().to_vec()
    };
    assert_eq!(ids("gpt-2", "abc"), [3, 2]);
    assert_eq!(ids("llama-bpe", "abc"), [4]);
    let normalizer = |pre: &str| byte_level_parts(&vocabulary, &[], pre).unwrap()["normalizer"]["type"].clone();
    assert_eq!(normalizer("qwen2"), "NFC");
    assert_eq!(normalizer("smollm"), Value::Null);
    assert!(byte_level_parts(&vocabulary, &[], "tekken").is_err());
}

/// Pieces of a small SentencePiece model; the score of a piece is minus its place among the pieces.
fn pieces() -> (Vocabulary, Vec<f64>) {
    let mut tokens = vec![("<unk>".to_owned(), UNKNOWN), ("<s>".to_owned(), CONTROL), ("</s>".to_owned(), CONTROL)];
    tokens.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 6.0)));
    let words = [
        "▁t",
        "he",
        "in",
        "▁a",
        "er",
        "▁the",
        "▁▁",
        "re",
        "th",
        "▁th",
        "and",
        "▁an",
        "ther",
        "ere",
        "▁▁▁▁",
        "▁there",
        "ing",
        "nd",
        "an",
        "▁and",
        "▁in",
    ];
    let letters = ["▁", "t", "h", "e", "i", "n", "a", "r", "g", "d", "s", "<", ">", "/"];
    let first = tokens.len();
    tokens.extend(words.iter().chain(&letters).map(|word| ((*word).to_owned(), NORMAL)));
    tokens.push(("<|user|>".to_owned(), USER_DEFINED));
    let scores = (0..tokens.len()).map(|id| if id < first { 0.0 } else { first as f64 - id as f64 }).collect();
    let names: Vec<(&str, f64)> = tokens.iter().map(|(name, kind)| (name.as_str(), *kind)).collect();
    (vocabulary(&names), scores)
}

/// What SentencePiece does: join the two neighbours whose whole scores highest, the leftmost first, until none is left;
/// letters that are no pieces become bytes.
fn sentence_piece(text: &str, vocabulary: &Vocabulary, scores: &[f64]) -> Vec<usize> {
    let piece = |text: &str| vocabulary.ids.get(text).copied().filter(|&id| vocabulary.kinds[id] == NORMAL);
    let mut parts: Vec<String> = format!("▁{}", text.replace(' ', "▁")).chars().map(String::from).collect();
    while let Some((_, at)) = (1..parts.len())
        .filter_map(|i| Some((scores[piece(&format!("{}{}", parts[i - 1], parts[i]))?], i)))
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))
    {
        let right = parts.remove(at);
        parts[at - 1].push_str(&right);
    }
    let bytes = |part: &String| part.bytes().map(|byte| 3 + usize::from(byte)).collect::<Vec<_>>();
    parts.iter().flat_map(|part| piece(part).map_or_else(|| bytes(part), |id| vec![id])).collect()
}

#[test]
fn sentence_piece_models_tokenize_as_sentence_piece_does() {
    let (vocabulary, scores) = pieces();
    let tokenizer = assemble(&vocabulary, sentence_piece_parts(&vocabulary, &scores, true, Some(0)), Value::Null);
    let mut texts: Vec<String> = ["there and another thing", "    indented  the", "héé 🦀 the", "<s>", "tt\n\nhe", "e"]
        .map(str::to_owned)
        .to_vec();
    // Every text of up to six letters of a pseudo-random kind.
    let letters: Vec<char> = "thein ardgs".chars().collect();
    let mut state = 1u64;
    for length in 1..200 {
        let text = (0..length % 40 + 1).map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            letters[(state >> 33) as usize % letters.len()]
        });
        texts.push(text.collect());
    }
    for text in texts.iter().filter(|text| *text != "<s>") {
        let ids: Vec<usize> =
            tokenizer.encode(text.as_str(), false).unwrap().get_ids().iter().map(|&id| id as usize).collect();
        assert_eq!(ids, sentence_piece(text, &vocabulary, &scores), "{text:?}");
        let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), *text);
    }
    // Special and user-defined tokens are found in a text; what they cut apart gets a space of its own in front.
    let encoding = tokenizer.encode("<s>the<|user|>", false).unwrap();
    assert_eq!(encoding.get_tokens(), ["<s>", "▁the", "<|user|>"]);
    assert_eq!(tokenizer.decode(encoding.get_ids(), true).unwrap(), "the<|user|>");
}

#[test]
fn without_a_prefix_nothing_is_added() {
    let (vocabulary, scores) = pieces();
    let tokenizer = assemble(&vocabulary, sentence_piece_parts(&vocabulary, &scores, false, None), Value::Null);
    let encoding = tokenizer.encode("the the", false).unwrap();
    assert_eq!(encoding.get_tokens(), ["t", "he", "▁the"]);
    assert_eq!(tokenizer.decode(encoding.get_ids(), true).unwrap(), "the the");
}

#[test]
fn merges_are_those_of_transformers() {
    let tokens: Vec<String> = ["a", "b", "c", "ab", "bc", "abc", "<s>"].map(str::to_owned).to_vec();
    let ids: HashMap<String, usize> = tokens.iter().enumerate().map(|(id, token)| (token.clone(), id)).collect();
    // generate_merges gives the longer left part first where scores are equal, and orders by score before that.
    let scores = [0.0, 0.0, 0.0, -2.0, -1.0, -3.0, 9.0];
    let merges = merges::from_scores(&tokens, &scores, &ids, |id| id != 6);
    assert_eq!(merges, [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]);
}

#[test]
fn tokens_at_both_ends_are_added_where_wanted() {
    let (vocabulary, scores) = pieces();
    let ids = |before, after| {
        let post_processor = template(before, after, &vocabulary.tokens);
        let parts = sentence_piece_parts(&vocabulary, &scores, true, Some(0));
        let tokenizer = assemble(&vocabulary, parts, post_processor);
        let tokens = |special| tokenizer.encode("the", special).unwrap().get_tokens().join(" ");
        (tokens(true), tokens(false))
    };
    assert_eq!(ids(None, None), ("▁the".into(), "▁the".into()));
    assert_eq!(ids(Some(1), None), ("<s> ▁the".into(), "▁the".into()));
    assert_eq!(ids(Some(1), Some(2)), ("<s> ▁the </s>".into(), "▁the".into()));
}

#[test]
fn generation_ends_with_the_turn_too() {
    let tokenizer = |eos, end_of_turn| GgufTokenizer {
        json: Vec::new(),
        config: Value::Null,
        chat_template: None,
        tokens: 9,
        bos: Some(1),
        eos,
        pad: None,
        end_of_turn,
    };
    assert_eq!(tokenizer(Some(2), Some(7)).generation_config()["eos_token_id"], json!([2, 7]));
    assert_eq!(tokenizer(Some(2), Some(2)).generation_config()["eos_token_id"], 2);
    assert_eq!(tokenizer(None, None).generation_config()["eos_token_id"], Value::Null);
}
