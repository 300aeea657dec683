//! The merges of BPE: as a file lists them, or from the scores of SentencePiece.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::error::{Error, Result};

/// `left right` → (left, right). All three, the joined one too, must be tokens.
///
/// # Errors
/// [`crate::error::Kind::Format`] with the merge that is wrong.
pub(super) fn split<'a>(merges: &'a [String], ids: &HashMap<String, usize>) -> Result<Vec<(&'a str, &'a str)>> {
    let known = |token: &str| ids.contains_key(token);
    let mut joined = String::new();
    merges
        .iter()
        .enumerate()
        .map(|(i, merge)| {
            // A token may begin with a space, but does not end with one.
            let space = merge.char_indices().skip(1).find(|(_, letter)| *letter == ' ').map(|(at, _)| at);
            let pair = space.map(|at| (&merge[..at], &merge[at + 1..])).filter(|(left, right)| {
                joined.clear();
                joined.push_str(left);
                joined.push_str(right);
                known(left) && known(right) && known(&joined)
            });
            pair.ok_or_else(|| {
                Error::format(format!("tokenizer.ggml.merges: merge {i}, `{merge}`, does not join two tokens"))
            })
        })
        .collect()
}

/// Every way to put a piece together from two others, the best-scored piece first (`generate_merges` in transformers'
/// convert_slow_tokenizer.py). `is_piece` tells the tokens that are ordinary text.
///
/// SentencePiece joins the two neighbours whose whole has the highest score, the leftmost of equals; with merges in this order
/// BPE does the same.
pub(super) fn from_scores<'a>(
    tokens: &'a [String],
    scores: &[f64],
    ids: &HashMap<String, usize>,
    is_piece: impl Fn(usize) -> bool,
) -> Vec<(&'a str, &'a str)> {
    struct Merge<'a> {
        pair: (&'a str, &'a str),
        score: f64,
        /// The longest left part first, as transformers orders them.
        lengths: (usize, usize),
    }
    let mut merges = Vec::new();
    for (id, token) in tokens.iter().enumerate().filter(|(id, token)| is_piece(*id) && ids[*token] == *id) {
        let letters = token.chars().count();
        let cuts = token.char_indices().enumerate().skip(1);
        let mut ways: Vec<(usize, usize, Merge<'a>)> = cuts
            .filter_map(|(before, (at, _))| {
                let (left, right) = token.split_at(at);
                let (left_id, right_id) = (*ids.get(left)?, *ids.get(right)?);
                let merge = Merge { pair: (left, right), score: scores[id], lengths: (before, letters - before) };
                (is_piece(left_id) && is_piece(right_id)).then_some((left_id, right_id, merge))
            })
            .collect();
        ways.sort_by_key(|(left, right, _)| (*left, *right));
        merges.extend(ways.into_iter().map(|(_, _, merge)| merge));
    }
    merges.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| Reverse(a.lengths).cmp(&Reverse(b.lengths))));
    merges.into_iter().map(|merge| merge.pair).collect()
}
