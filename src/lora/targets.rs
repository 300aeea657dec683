//! Which linear layers an adapter sits on: PEFT's matching rules (`peft/tuners/tuners_utils.py`, `check_target_module_exists`).

use std::collections::HashSet;

use regex::Regex;
use serde_json::{Value, json};

use crate::error::{Error, Result, nearest};

/// What a model tells about one of its linear layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearInfo {
    /// Its name in a checkpoint without `.weight`, as `model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// The layer of the decoder it belongs to.
    pub layer: usize,
    pub role: Role,
    /// Output features: rows of the weight.
    pub out: usize,
    /// Input features: columns of the weight.
    pub input: usize,
}

/// The block of a decoder layer that a linear layer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Attention,
    Mlp,
}

impl LinearInfo {
    /// The last part of the path, as `q_proj`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or(&self.path)
    }
}

/// A choice of linear layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// Every linear layer but the output head.
    AllLinear,
    /// The linear layers of one block of each layer.
    Block(Role),
    /// Names or ends of paths: an item matches a path that equals it or ends with `.` and it; `attention`, `mlp` and `all-linear`
    /// stand for their layers.
    Names(Vec<String>),
    /// A regular expression that must match a whole path.
    Pattern(String),
}

impl Targets {
    /// Reads what a user types: `all-linear`, `attention`, `mlp`, names separated by commas, or a regular expression.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if let Some(group) = Self::group(text) {
            return group;
        }
        if text.chars().all(|c| c.is_alphanumeric() || "_.,- ".contains(c)) {
            Self::Names(text.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect())
        } else {
            Self::Pattern(text.to_owned())
        }
    }

    /// A word that stands for several names.
    fn group(word: &str) -> Option<Self> {
        match word {
            "all-linear" => Some(Self::AllLinear),
            "attention" => Some(Self::Block(Role::Attention)),
            "mlp" => Some(Self::Block(Role::Mlp)),
            _ => None,
        }
    }

    /// Names and ends of paths that say the same; none for a pattern.
    fn names(&self, linears: &[LinearInfo]) -> Vec<String> {
        let mut all = match self {
            Self::AllLinear => names(linears.iter()),
            Self::Block(role) => names(linears.iter().filter(|l| l.role == *role)),
            Self::Names(items) => {
                let of = |item: &String| Self::group(item).map_or_else(|| vec![item.clone()], |g| g.names(linears));
                items.iter().flat_map(of).collect()
            }
            Self::Pattern(_) => Vec::new(),
        };
        let mut seen = HashSet::new();
        all.retain(|name| seen.insert(name.clone()));
        all
    }

    /// How it is typed and shown.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::AllLinear => "all-linear".to_owned(),
            Self::Block(Role::Attention) => "attention".to_owned(),
            Self::Block(Role::Mlp) => "mlp".to_owned(),
            Self::Names(names) => names.join(","),
            Self::Pattern(pattern) => pattern.clone(),
        }
    }

    /// The layers chosen, as indices, and how many each pattern hit.
    ///
    /// # Errors
    /// A pattern that hits nothing, with what there is; a regular expression that cannot be read.
    pub fn resolve(
        &self,
        linears: &[LinearInfo],
        layers: Option<&[usize]>,
    ) -> Result<(Vec<usize>, Vec<(String, usize)>)> {
        let in_layers = |l: &LinearInfo| layers.is_none_or(|layers| layers.contains(&l.layer));
        let matches = |matcher: &dyn Fn(&LinearInfo) -> bool| -> Vec<usize> {
            (0..linears.len()).filter(|&i| in_layers(&linears[i]) && matcher(&linears[i])).collect()
        };
        let mut chosen = Vec::new();
        let mut counts = Vec::new();
        let mut take = |pattern: &str, hits: Vec<usize>| {
            if hits.is_empty() {
                return Err(nothing(pattern, linears, layers));
            }
            counts.push((pattern.to_owned(), hits.len()));
            chosen.extend(hits);
            Ok(())
        };
        if let Self::Pattern(pattern) = self {
            let regex = full_match(pattern)?;
            take(pattern, matches(&|l| regex.is_match(&l.path)))?;
        }
        for name in self.names(linears) {
            let end = format!(".{name}");
            take(&name, matches(&|l| l.path == name || l.path.ends_with(&end)))?;
        }
        chosen.sort_unstable();
        chosen.dedup();
        if chosen.is_empty() {
            return Err(nothing(&self.text(), linears, layers));
        }
        Ok((chosen, counts))
    }

    /// `target_modules` of an `adapter_config.json`: names, or the pattern.
    pub(super) fn to_peft(&self, linears: &[LinearInfo]) -> Value {
        match self {
            Self::Pattern(pattern) => json!(pattern),
            _ => json!(self.names(linears)),
        }
    }

    /// Reads `target_modules` of an `adapter_config.json`.
    pub(super) fn from_peft(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if text.eq_ignore_ascii_case("all-linear") => Some(Self::AllLinear),
            Value::String(text) => Some(Self::Pattern(text.clone())),
            Value::Array(items) => {
                let mut names: Vec<String> =
                    items.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<_>>()?;
                // PEFT keeps a set: the order on disk is arbitrary.
                names.sort();
                Some(Self::Names(names))
            }
            _ => None,
        }
    }
}

/// Names of linear layers in the order of the model.
fn names<'l>(linears: impl Iterator<Item = &'l LinearInfo>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for linear in linears {
        if !names.iter().any(|n| n == linear.name()) {
            names.push(linear.name().to_owned());
        }
    }
    names
}

fn full_match(pattern: &str) -> Result<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|e| {
        let reason = e.to_string();
        let reason = reason.lines().last().unwrap_or("not a regular expression").trim();
        Error::usage(format!("--targets {pattern}: {reason}")).hint("a regular expression must match a whole path")
    })
}

fn nothing(pattern: &str, linears: &[LinearInfo], layers: Option<&[usize]>) -> Error {
    let of = layers.map_or_else(String::new, |l| format!(" in layers {}", ranges(l)));
    let example = linears.first().map_or("", |l| l.path.as_str());
    let last = linears.last().map_or(0, |l| l.layer);
    let names = names(linears.iter());
    let groups = ["all-linear", "attention", "mlp"];
    let near = nearest(pattern, names.iter().map(String::as_str).chain(groups)).filter(|near| *near != pattern);
    let near = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
    Error::usage(format!("--targets {pattern} matches no linear layer{of}")).hint(format!(
        "{near}there are {}, in layers 0-{last}; a regular expression must match a whole path like {example}",
        names.join(", ")
    ))
}

/// `0-3,5` for `[0, 1, 2, 3, 5]`.
pub(super) fn ranges(layers: &[usize]) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    while at < layers.len() {
        let mut end = at;
        while end + 1 < layers.len() && layers[end + 1] == layers[end] + 1 {
            end += 1;
        }
        out.push(if end == at { layers[at].to_string() } else { format!("{}-{}", layers[at], layers[end]) });
        at = end + 1;
    }
    out.join(",")
}

/// Whether a key of `rank_pattern` or `alpha_pattern` speaks of `path`: a regular expression matched at its end, whole parts only.
pub(super) fn pattern_matches(key: &str, path: &str) -> Result<bool> {
    let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{key})$"))
        .map_err(|_| Error::usage(format!("rank pattern {key} is not a regular expression")))?;
    Ok(regex.is_match(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linears() -> Vec<LinearInfo> {
        let mut out = Vec::new();
        for layer in 0..3 {
            for (name, role) in [
                ("self_attn.q_proj", Role::Attention),
                ("self_attn.v_proj", Role::Attention),
                ("mlp.up_proj", Role::Mlp),
            ] {
                out.push(LinearInfo { path: format!("model.layers.{layer}.{name}"), layer, role, out: 8, input: 4 });
            }
        }
        out
    }

    fn hits(text: &str) -> Vec<usize> {
        Targets::parse(text).resolve(&linears(), None).unwrap().0
    }

    #[test]
    fn names_match_ends_and_patterns_match_whole_paths() {
        assert_eq!(hits("all-linear").len(), 9);
        assert_eq!(hits("attention"), [0, 1, 3, 4, 6, 7]);
        assert_eq!(hits("mlp"), [2, 5, 8]);
        assert_eq!(hits("q_proj,up_proj"), [0, 2, 3, 5, 6, 8]);
        assert_eq!(hits("self_attn.v_proj"), [1, 4, 7]);
        assert_eq!(hits(r".*\.1\..*(q|v)_proj"), [3, 4]);
    }

    #[test]
    fn groups_and_names_mix() {
        assert_eq!(hits("attention,mlp"), hits("all-linear"));
        assert_eq!(hits("mlp, q_proj"), hits("q_proj,up_proj"));
        let (chosen, counts) = Targets::parse("mlp,up_proj,all-linear").resolve(&linears(), None).unwrap();
        assert_eq!(chosen.len(), 9);
        assert_eq!(counts, ["up_proj", "q_proj", "v_proj"].map(|name| (name.to_owned(), 3)));
        let targets = Targets::parse("mlp,q_proj").to_peft(&linears());
        assert_eq!(targets, json!(["up_proj", "q_proj"]));
        assert_eq!(Targets::parse("mlp,q_proj").text(), "mlp,q_proj");
    }

    #[test]
    fn the_nearest_name_is_suggested() {
        for (typed, meant) in
            [("q_prj", "q_proj"), ("Q_PROJ", "q_proj"), ("v_proj,atention", "attention"), ("MLP", "mlp")]
        {
            let error = Targets::parse(typed).resolve(&linears(), None).unwrap_err();
            let hint = error.hint_text().unwrap();
            assert!(hint.starts_with(&format!("did you mean {meant}? ")), "{typed}: {hint}");
        }
        // A name that there is, but not in those layers, is not suggested for itself.
        let error = Targets::parse("q_proj").resolve(&linears(), Some(&[7])).unwrap_err();
        assert!(!error.hint_text().unwrap().contains("did you mean"), "{error:?}");
    }

    #[test]
    fn layers_narrow_the_choice() {
        let (chosen, counts) = Targets::parse("q_proj").resolve(&linears(), Some(&[1, 2])).unwrap();
        assert_eq!(chosen, [3, 6]);
        assert_eq!(counts, [("q_proj".to_owned(), 2)]);
    }

    #[test]
    fn a_pattern_without_a_hit_says_what_there_is() {
        for text in ["k_proj", "proj", "q_proj,k_proj", "(q|v)_proj"] {
            let error = Targets::parse(text).resolve(&linears(), None).unwrap_err();
            assert!(error.hint_text().unwrap().contains("q_proj, v_proj, up_proj"), "{text}: {error}");
        }
        let error = Targets::parse("q_proj").resolve(&linears(), Some(&[7])).unwrap_err();
        assert!(error.message().contains("in layers 7"));
        assert!(Targets::parse("(q_proj").resolve(&linears(), None).is_err());
        assert!(Targets::parse("").resolve(&linears(), None).is_err());
    }

    #[test]
    fn peft_writes_names_or_a_pattern() {
        assert_eq!(Targets::AllLinear.to_peft(&linears()), json!(["q_proj", "v_proj", "up_proj"]));
        assert_eq!(
            Targets::from_peft(&json!(["v_proj", "q_proj"])),
            Some(Targets::Names(vec!["q_proj".into(), "v_proj".into()]))
        );
        assert_eq!(Targets::from_peft(&json!(".*q")), Some(Targets::Pattern(".*q".into())));
        assert_eq!(Targets::from_peft(&json!(3)), None);
        assert_eq!(ranges(&[0, 1, 2, 3, 5]), "0-3,5");
    }

    #[test]
    fn rank_patterns_match_whole_parts_at_the_end() {
        assert!(pattern_matches("q_proj", "model.layers.0.self_attn.q_proj").unwrap());
        assert!(!pattern_matches("_proj", "model.layers.0.self_attn.q_proj").unwrap());
        assert!(pattern_matches(r"layers\.[01]\..*q_proj", "model.layers.1.self_attn.q_proj").unwrap());
        assert!(pattern_matches("(", "x").is_err());
    }
}
