//! The list that Tab shows: a name and what it is, aligned, a line each.

use crate::language::Candidate;
use crate::render::fit;

/// Blank columns between a name and its description.
const GAP: usize = 2;

/// A line for each candidate, none wider than `width` columns; names alone where nothing is known about any.
pub(super) fn lines(candidates: &[Candidate], width: usize) -> Vec<String> {
    let longest = candidates.iter().map(|c| c.text.chars().count()).max().unwrap_or(0);
    if candidates.iter().all(|candidate| candidate.about.is_empty()) {
        return candidates.iter().map(|candidate| fit(&candidate.text, width)).collect();
    }
    // rustyline fills the screen with columns as wide as the widest entry: more than half of it makes that one.
    let least = width / 2 + 1;
    let line = |candidate: &Candidate| {
        let text = format!("{:longest$}{:GAP$}{}", candidate.text, "", candidate.about);
        format!("{:least$}", fit(&text, width))
    };
    candidates.iter().map(line).collect()
}

/// `line`, the name in the colour of commands and the description dim. Names hold no two blanks in a row.
pub(super) fn painted(line: &str) -> String {
    let Some(end) = line.find(&" ".repeat(GAP)) else { return line.to_owned() };
    let (name, rest) = line.split_at(end);
    let about = rest.trim_start();
    let blanks = &rest[..rest.len() - about.len()];
    format!("\x1b[36m{name}\x1b[0m{blanks}\x1b[2m{about}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::CandidateKind;

    fn candidate(text: &str, about: &str) -> Candidate {
        let kind = CandidateKind::Command;
        Candidate { text: text.to_owned(), kind, about: about.to_owned(), is_whole: true }
    }

    #[test]
    fn descriptions_stand_below_each_other_and_fit() {
        let all = [candidate("load", "Load a base model"), candidate("attach-lora", "Attach\na \x1b[31mLoRA adapter")];
        let wide = lines(&all, 80);
        assert_eq!(wide[0].trim_end(), "load         Load a base model");
        assert!(wide[1].starts_with("attach-lora  Attach a ␛[31mLoRA"), "{wide:?}");
        assert!(wide.iter().all(|line| line.chars().count() > 40));
        for width in [1, 10, 20, 60] {
            assert!(lines(&all, width).iter().all(|line| line.chars().count() <= width), "{:?}", lines(&all, width));
        }
    }

    #[test]
    fn names_without_descriptions_stay_short() {
        assert_eq!(lines(&[candidate("a/", ""), candidate("b", "")], 80), ["a/", "b"]);
        assert!(lines(&[], 80).is_empty());
    }

    #[test]
    fn colours_tell_the_name_from_the_description() {
        assert_eq!(painted("load    a model"), "\x1b[36mload\x1b[0m    \x1b[2ma model\x1b[0m");
        assert_eq!(painted("data/"), "data/");
    }
}
