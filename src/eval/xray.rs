//! Where an adapter gained: the tokens of an evaluation by the part they have in a text.

use super::Evaluation;
use crate::data::{IGNORED, Sample};
use crate::model::Tokenizer;

/// The part of a text that a scored token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Special tokens that end nothing.
    Format,
    /// The end of a text or of what is scored of it, if it is a special token.
    End,
    Content,
}

impl Part {
    /// All, in the order they are shown in.
    pub const ALL: [Self; 3] = [Self::Format, Self::End, Self::Content];

    /// As "end of text".
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::End => "end of text",
            Self::Content => "content",
        }
    }
}

/// The scored tokens of one part: how many, and their NLL in sum, in nats.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Share {
    pub tokens: usize,
    pub base: f64,
    pub adapter: f64,
}

impl Share {
    /// Nats gained in sum; negative if the adapter lost.
    #[must_use]
    pub fn gain(&self) -> f64 {
        self.base - self.adapter
    }
}

/// The part of each scored token of a sample.
#[must_use]
pub fn parts(sample: &Sample, tokenizer: &Tokenizer) -> Vec<Part> {
    let eos = tokenizer.eos().map(|token| token.id as i32);
    let labels = sample.labels.iter().enumerate().skip(1).filter(|(_, label)| **label != IGNORED);
    let part = |(at, &label): (usize, &i32)| {
        let last = sample.labels.get(at + 1).is_none_or(|&next| next == IGNORED);
        match tokenizer.is_special(label as u32) {
            false => Part::Content,
            true if last || Some(label) == eos => Part::End,
            true => Part::Format,
        }
    };
    labels.map(part).collect()
}

/// Two evaluations of the same samples, split into the parts of [`Part::ALL`].
#[must_use]
pub fn split(base: &Evaluation, adapter: &Evaluation, samples: &[Sample], tokenizer: &Tokenizer) -> [Share; 3] {
    let mut shares = [Share::default(); 3];
    for (sample, (base, adapter)) in samples.iter().zip(base.nll.iter().zip(&adapter.nll)) {
        for (part, (&base, &adapter)) in parts(sample, tokenizer).into_iter().zip(base.iter().zip(adapter)) {
            let share = &mut shares[part as usize];
            share.tokens += 1;
            share.base += f64::from(base);
            share.adapter += f64::from(adapter);
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &[u8] = include_bytes!("../../tests/golden/llama/model/tokenizer.json");
    const PAD: i32 = 256;
    const BOS: i32 = 257;
    const EOS: i32 = 258;

    fn sample(labels: &[i32]) -> Sample {
        Sample { ids: vec![97; labels.len()], labels: labels.to_vec(), cut: Vec::new(), row: 0 }
    }

    fn tokenizer() -> Tokenizer {
        let config = serde_json::json!({"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"});
        Tokenizer::from_files(JSON, &config, None).unwrap()
    }

    #[test]
    fn special_tokens_are_format_or_end() {
        let of = |labels: &[i32]| parts(&sample(labels), &tokenizer());
        assert_eq!(of(&[97, BOS, 98, EOS]), [Part::Format, Part::Content, Part::End]);
        // Each turn has its end, whatever token that is, and joined documents have theirs between them.
        assert_eq!(of(&[IGNORED, 98, PAD, IGNORED, 99, PAD]), [Part::Content, Part::End, Part::Content, Part::End]);
        assert_eq!(of(&[97, EOS, 98]), [Part::End, Part::Content]);
        assert_eq!(of(&[97]), []);
        assert_eq!(of(&[]), []);
    }

    #[test]
    fn parts_sum_to_the_whole_gain() {
        let samples = [sample(&[97, BOS, 98, EOS]), sample(&[97]), sample(&[IGNORED, 98, 99])];
        let base = Evaluation::of(vec![vec![1.0, 2.0, 3.0], vec![], vec![4.0, 5.0]]);
        let adapter = Evaluation::of(vec![vec![0.5, 2.5, 0.0], vec![], vec![1.0, 1.0]]);
        let shares = split(&base, &adapter, &samples, &tokenizer());
        assert_eq!(shares.map(|s| s.tokens), [1, 1, 3]);
        assert_eq!(shares.map(|s| s.gain()), [0.5, 3.0, 6.5]);
        let whole = (base.loss - adapter.loss) * base.tokens as f64;
        assert!((shares.iter().map(Share::gain).sum::<f64>() - whole).abs() < 1e-12);
        assert_eq!(split(&base, &base, &samples, &tokenizer()).map(|s| s.gain()), [0.0; 3]);
    }
}
