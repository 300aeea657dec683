//! GGUF files with wrong metadata, and headers written by hand that lie.

use super::*;
use crate::model::gguf::header::Header;

#[test]
fn metadata_that_is_missing_or_wrong_is_named() {
    let whole = metadata();
    for key in [
        "general.architecture",
        "llama.block_count",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
    ] {
        let without: Vec<_> = whole.iter().filter(|(name, _)| *name != key).cloned().collect();
        let error = refused(&model(&without, GgmlDType::F32));
        assert_eq!(error.kind(), Kind::Format);
        assert!(error.message().contains(key), "{error}");
    }
    let texts = |texts: &[&str]| Meta::Array(texts.iter().map(|text| Meta::String((*text).to_owned())).collect());
    for (key, value, kind, named) in [
        ("general.architecture", Meta::String("qwen2".into()), Kind::Unsupported, "qwen2"),
        ("general.architecture", Meta::U32(1), Kind::Format, "general.architecture"),
        ("general.type", Meta::String("adapter".into()), Kind::Unsupported, "adapter"),
        ("split.count", Meta::U16(3), Kind::Unsupported, "parts"),
        ("llama.expert_count", Meta::U32(8), Kind::Unsupported, "experts"),
        ("llama.attention.head_count", Meta::U32(0), Kind::Format, "llama.attention.head_count is 0"),
        ("llama.attention.head_count", Meta::U32(3), Kind::Format, "3 heads"),
        ("llama.attention.head_count", Meta::I32(-4), Kind::Format, "llama.attention.head_count"),
        ("llama.attention.head_count_kv", Meta::U32(3), Kind::Format, "3 heads of keys"),
        ("llama.attention.head_count_kv", Meta::Array(vec![Meta::U32(2)]), Kind::Format, "head_count_kv"),
        ("llama.rope.dimension_count", Meta::U32(32), Kind::Unsupported, "rotary"),
        ("llama.embedding_length", Meta::U32(128), Kind::Format, "token_embd.weight"),
        ("llama.rope.freq_base", Meta::F32(f32::NAN), Kind::Format, "llama.rope.freq_base"),
        ("tokenizer.ggml.model", Meta::String("t5".into()), Kind::Unsupported, "t5"),
        ("tokenizer.ggml.pre", Meta::String("tekken".into()), Kind::Unsupported, "tekken"),
        ("tokenizer.ggml.merges", texts(&["a b", "a x"]), Kind::Format, "merge 1, `a x`"),
        ("tokenizer.ggml.merges", texts(&["ab"]), Kind::Format, "merge 0, `ab`"),
        ("tokenizer.ggml.merges", Meta::Array(vec![Meta::U32(1)]), Kind::Format, "tokenizer.ggml.merges"),
        ("tokenizer.ggml.token_type", Meta::Array(vec![Meta::I32(1)]), Kind::Format, "1 entries for 6 tokens"),
        ("tokenizer.ggml.eos_token_id", Meta::U32(6), Kind::Format, "tokenizer.ggml.eos_token_id is 6"),
        ("tokenizer.ggml.tokens", texts(&["<s>"; 9]), Kind::Format, "9 tokens"),
        ("general.alignment", Meta::U32(0), Kind::Format, "general.alignment is 0"),
        ("general.alignment", Meta::U32(24), Kind::Format, "general.alignment is 24"),
    ] {
        let mut changed = whole.clone();
        changed.retain(|(name, _)| *name != key && !(named == "9 tokens" && *name == "tokenizer.ggml.token_type"));
        changed.retain(|(name, _)| named != "9 tokens" || *name != "tokenizer.ggml.merges");
        if named == "9 tokens" {
            changed.push(("tokenizer.ggml.merges", texts(&[])));
        }
        changed.push((key, value));
        let error = refused(&model(&changed, GgmlDType::F32));
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(named), "{error} should name {named}");
    }
}

#[test]
fn tensors_that_no_llama_has_are_named() {
    let (embedding, odd) = (quantized(6, 256, GgmlDType::F32), quantized(3, 256, GgmlDType::F32));
    let with = |name: &str| refused(&write(&metadata(), &[("token_embd.weight", &embedding), (name, &odd)]));
    assert!(with("blk.0.ssm_in.weight").message().contains("blk.0.ssm_in.weight"));
    assert!(with("blk.0.attn_q.weight").message().contains("blk.0.attn_q.weight: 3 rows"));
    assert!(
        refused(&write(&metadata(), &[("output_norm.weight", &odd)])).message().contains("no tensor token_embd.weight")
    );
}

/// A header written by hand.
struct Handmade(Vec<u8>);

impl Handmade {
    fn new(version: u32, tensors: u64, values: u64) -> Self {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(values.to_le_bytes());
        Self(bytes)
    }

    fn text(mut self, text: &str) -> Self {
        self.0.extend((text.len() as u64).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn tensor(self, name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Self {
        let header = self.text(name).u32(dimensions.len() as u32);
        dimensions.iter().fold(header, |header, &d| header.u64(d)).u32(kind).u64(offset)
    }

    /// The error of reading it with `data` bytes of tensors.
    fn refused(mut self, data: usize) -> Error {
        let length = self.0.len().next_multiple_of(32);
        self.0.resize(length + data, 0);
        Header::read(&self.0).err().expect("it must be refused")
    }
}

#[test]
fn tensors_that_lie_about_where_they_are_are_named() {
    let one = |dimensions: &[u64], kind, offset| {
        Handmade::new(3, 1, 0).tensor("blk.0.lie", dimensions, kind, offset).refused(128)
    };
    for (error, kind) in [
        (one(&[32], 0, 32), Kind::Format),                // ends 32 bytes beyond the end
        (one(&[32], 0, u64::MAX - 31), Kind::Format),     // offset + size overflows
        (one(&[32], 0, 1 << 60), Kind::Format),           // far away
        (one(&[32], 0, 1), Kind::Format),                 // not aligned
        (one(&[u64::MAX, u64::MAX], 0, 0), Kind::Format), // more elements than can be counted
        (one(&[1 << 40, 1 << 20], 2, 0), Kind::Format),   // more bytes than there are
        (one(&[33], 2, 0), Kind::Format),                 // half a block
        (one(&[], 0, 0), Kind::Format),                   // no dimension
        (one(&[1; 5], 0, 0), Kind::Format),               // five dimensions
        (one(&[32], 99, 0), Kind::Format),                // no such type
        (one(&[32], 20, 0), Kind::Unsupported),           // IQ4_NL
    ] {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains("blk.0.lie"), "{error}");
    }
    let twice = Handmade::new(3, 2, 0).tensor("twin", &[8], 0, 0).tensor("twin", &[8], 0, 32).refused(64);
    assert!(twice.message().contains("twin is listed twice"), "{twice}");
    // [8] of F32 takes 32 bytes, [16] takes 64: one, other and two lie behind each other, but for the last's offset.
    let last = |offset| {
        let header = Handmade::new(3, 3, 0).tensor("two", &[8], 0, offset).tensor("one", &[16], 0, 0);
        header.tensor("other", &[8], 0, 64).refused(96)
    };
    for (offset, other) in [(0, "one"), (32, "one"), (64, "other")] {
        let error = last(offset);
        assert_eq!(error.kind(), Kind::Format);
        assert!(error.message().contains("two") && error.message().contains(other), "{offset}: {error}");
    }
}

#[test]
fn counts_that_are_absurd_allocate_nothing() {
    let huge = u64::MAX;
    for (error, named) in [
        (Handmade::new(3, huge, 0).refused(0), "tensor 0 of 18446744073709551615 has no name"),
        (Handmade::new(3, 0, huge).refused(0), "metadata value 0 of 18446744073709551615 has no name"),
        (Handmade::new(3, 0, 1).u64(huge).refused(0), "metadata value 0"),
        (Handmade::new(3, 0, 1).text("key").u32(8).u64(huge).refused(0), "key needs 18446744073709551615"),
        (Handmade::new(3, 0, 1).text("key").u32(9).u32(4).u64(huge).refused(0), "key needs"),
        (Handmade::new(3, 0, 1).text("key").u32(9).u32(8).u64(huge).refused(0), "key needs"),
        (
            Handmade::new(3, 0, 1).text("key").u32(9).u32(42).u64(1).refused(0),
            "key has elements of the unknown type 42",
        ),
        (Handmade::new(3, 0, 1).text("key").u32(13).refused(0), "key has the unknown type 13"),
        (Handmade::new(1, 0, 0).refused(0), "version 1"),
        (Handmade::new(0x0300_0000, 0, 0).refused(0), "version"),
    ] {
        assert_eq!(error.kind(), Kind::Format);
        assert!(error.message().contains(named), "{error} should name {named}");
    }
    let nested = (0..100).fold(Handmade::new(3, 0, 1).text("key").u32(9), |header, _| header.u32(9).u64(1)).refused(0);
    assert!(nested.message().contains("key is nested"), "{nested}");
}

#[test]
fn no_damage_goes_through() {
    let whole = model(&metadata(), GgmlDType::Q8_0);
    assert!(refused(b"GGML").message().contains("does not begin with `GGUF`"));
    assert_eq!(refused(b"").kind(), Kind::Format);
    // Cut anywhere, it is refused; the tensors begin after some two kilobytes.
    for length in (4..2048).step_by(7).chain([whole.len() / 2, whole.len() - 64]) {
        assert!(Header::read(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
    }
    let error = refused(&whole[..whole.len() - 64]);
    assert!(error.message().contains("blk.0.ffn_down.weight"), "{error}");
    // Whatever a wrong byte makes of it, an answer comes: never a panic, never an endless allocation.
    let folder = Folder::new();
    let small = write(&metadata(), &[("token_embd.weight", &quantized(TOKENS.len(), 256, GgmlDType::Q4_0))]);
    let mut answers = [0; 2];
    for at in 0..small.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = small.clone();
            damaged[at] ^= flip;
            let opened = open(&folder.write("tiny.gguf", &damaged));
            answers[usize::from(opened.is_ok())] += 1;
            drop(opened);
            // A new file each time: writing over an old one waits for the disk.
            folder.remove("tiny.gguf");
        }
    }
    assert!(answers[0] > 1000 && answers[1] > 1000, "{answers:?}");
}
