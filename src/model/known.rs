//! Shapes of well-known models, as their publishers' configurations have them: so that a plan can be made without any file.

use serde_json::json;

use super::spec::Spec;
use crate::error::Result;

/// Name, hidden size, layers, heads, heads of keys and values, width of the MLP, vocabulary, context, tied head.
type Row = (&'static str, usize, usize, usize, usize, usize, usize, usize, bool);

const MODELS: &[Row] = &[
    ("smollm2-135m", 576, 30, 9, 3, 1536, 49152, 8192, true),
    ("smollm2-1.7b", 2048, 24, 32, 32, 8192, 49152, 8192, true),
    ("tinyllama-1.1b", 2048, 22, 32, 4, 5632, 32000, 2048, false),
    ("llama-3.2-1b", 2048, 16, 32, 8, 8192, 128_256, 131_072, true),
    ("llama-3.2-3b", 3072, 28, 24, 8, 8192, 128_256, 131_072, true),
    ("llama-7b", 4096, 32, 32, 32, 11008, 32000, 2048, false),
    ("llama-13b", 5120, 40, 40, 40, 13824, 32000, 2048, false),
    ("llama-33b", 6656, 60, 52, 52, 17920, 32000, 2048, false),
    ("llama-65b", 8192, 80, 64, 64, 22016, 32000, 2048, false),
    ("llama-2-70b", 8192, 80, 64, 8, 28672, 32000, 4096, false),
    ("mistral-7b", 4096, 32, 32, 8, 14336, 32000, 32768, false),
    ("llama-3-8b", 4096, 32, 32, 8, 14336, 128_256, 8192, false),
    ("llama-3-70b", 8192, 80, 64, 8, 28672, 128_256, 8192, false),
];

/// The shape of the model of this name; weights are taken to be published in bf16.
///
/// # Errors
/// None for a name of the table: its rows are sound.
pub fn known(name: &str) -> Option<Result<Spec>> {
    let row = MODELS.iter().find(|row| row.0 == name)?;
    let &(_, hidden, layers, heads, kv_heads, intermediate, vocabulary, context, tied) = row;
    Some(Spec::from_config(&json!({
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "tie_word_embeddings": tied,
    })))
}

/// The names that [`known`] knows.
pub fn known_names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_the_published_numbers_of_parameters() {
        for (name, parameters) in [
            ("smollm2-135m", 134_515_008),
            ("llama-3.2-1b", 1_235_814_400),
            ("llama-3.2-3b", 3_212_749_824),
            ("llama-7b", 6_738_415_616),
            ("llama-13b", 13_015_864_320),
            ("llama-33b", 32_528_943_616),
            ("llama-65b", 65_285_660_672),
            ("mistral-7b", 7_241_732_096),
            ("llama-3-8b", 8_030_261_248),
        ] {
            assert_eq!(known(name).unwrap().unwrap().parameters(), parameters, "{name}");
        }
        assert!(known_names().all(|name| known(name).is_some_and(|spec| spec.is_ok())));
        assert!(known("llama-6b").is_none());
    }
}
