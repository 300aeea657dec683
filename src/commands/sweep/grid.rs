//! What the flags of a sweep come to: settings, each with a name.

use super::super::attach_lora::{alpha, check_name};
use super::Sweep;
use crate::error::{Error, Result};
use crate::event::units::count;
use crate::language::split_items;
use crate::lora::{LoraConfig, Targets};
use crate::ops::Rng;

/// More trials than anybody waits for.
const MOST: usize = 1000;

/// What trials share that differ by their seed alone.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    /// As `r16`, with what else is varied behind it: `r16-lr3e-4`.
    pub(super) name: String,
    pub(super) lora: LoraConfig,
    pub(super) learning_rate: f64,
    /// The share of --mix-data.
    pub(super) mix: f64,
}

impl Sweep {
    /// The settings, the rank varied slowest.
    ///
    /// # Errors
    /// A flag that says nonsense; too many.
    pub(super) fn settings(&self) -> Result<Vec<Setting>> {
        let seeds = self.seeds()?.len();
        let (lists, rates) =
            ([self.rank.len(), self.alpha.len(), self.targets.len(), self.dropout.len()], &self.learning_rate);
        let lengths = lists.into_iter().chain([self.rslora.len(), self.mix.len()]);
        let trials = lengths.fold(seeds * rates.len(), usize::saturating_mul);
        let is_random = self.search == "random";
        if trials > if is_random { 100 * MOST } else { MOST } {
            return Err(Error::usage(format!("{} trials are more than anybody waits for", count(trials as u64)))
                .hint("shorter lists, or --search random --budget 32"));
        }
        let mut all = self.grid()?;
        distinct(&mut all)?;
        match self.budget {
            Some(budget) if is_random => self.some_of(all, budget, seeds),
            None if is_random => {
                Err(Error::usage("--search random needs --budget").hint("--budget 16 takes sixteen trials"))
            }
            Some(budget) => Err(Error::usage(format!("--budget {budget} goes with --search random"))
                .hint("a grid is trained whole; --search random takes some of it")),
            None => Ok(all),
        }
    }

    fn grid(&self) -> Result<Vec<Setting>> {
        let lora = LoraConfig { rank: 0, alpha: 0.0, ..LoraConfig::default() };
        let none = Setting { name: String::new(), lora, learning_rate: 0.0, mix: 0.0 };
        let all = vary(vec![none], &self.rank, |setting, &rank, _| {
            setting.lora.rank = rank;
            setting.name = format!("r{rank}");
            Ok(())
        })?;
        let all = vary(all, &self.alpha, |setting, text, varied| {
            setting.lora.alpha = alpha(text, setting.lora.rank)?;
            setting.say(varied, &format!("a{}", short(setting.lora.alpha)));
            Ok(())
        })?;
        let all = vary(all, &self.targets, |setting, text, varied| {
            setting.lora.targets = parse_targets(text);
            let word = text.replace(|c: char| !(c.is_alphanumeric() || c == '_'), "-");
            setting.say(varied, word.trim_matches('-'));
            Ok(())
        })?;
        let all = vary(all, &self.dropout, |setting, &dropout, varied| {
            setting.lora.dropout = dropout;
            setting.say(varied, &format!("d{dropout}"));
            Ok(())
        })?;
        let all = vary(all, &self.rslora, |setting, &rslora, varied| {
            setting.lora.rslora = rslora;
            setting.say(varied && rslora, "rslora");
            Ok(())
        })?;
        let all = vary(all, &self.learning_rate, |setting, &rate, varied| {
            setting.learning_rate = rate;
            setting.say(varied, &format!("lr{rate:e}"));
            Ok(())
        })?;
        let all = vary(all, &self.mix, |setting, &share, varied| {
            setting.mix = share;
            setting.say(varied, &format!("mix{share}"));
            Ok(())
        })?;
        all.iter().try_for_each(|setting| setting.lora.validate())?;
        Ok(all)
    }

    /// `--seeds 2` is 1 and 2, `--seeds (5 7)` is those.
    ///
    /// # Errors
    /// None, the same twice, too many.
    pub(super) fn seeds(&self) -> Result<Vec<u64>> {
        let seeds = match self.seeds.as_slice() {
            [0] => return Err(Error::usage("--seeds 0: nothing would be trained").hint("--seeds 2 trains with two")),
            [n] if *n > MOST as u64 => return Err(Error::usage(format!("--seeds {n}: at most {MOST}"))),
            [n] => (1..=*n).collect(),
            several => several.to_vec(),
        };
        if let Some(twice) = (0..seeds.len()).find(|&i| seeds[..i].contains(&seeds[i])) {
            return Err(Error::usage(format!("--seeds: {} is named twice", seeds[twice])));
        }
        Ok(seeds)
    }

    /// As many settings, drawn by the seed, as make `budget` trials with every seed.
    fn some_of(&self, mut all: Vec<Setting>, budget: usize, seeds: usize) -> Result<Vec<Setting>> {
        let wanted = budget / seeds;
        if wanted == 0 {
            return Err(Error::usage(format!(
                "--budget {budget}: one setting takes {seeds} trials, one for each seed"
            ))
            .hint(format!("--budget {seeds}, or fewer --seeds")));
        }
        let mut rng = Rng::fork(self.seed, &[all.len() as u64]);
        while all.len() > wanted {
            all.remove(rng.below(all.len()));
        }
        Ok(all)
    }
}

impl Setting {
    /// Adds to the name what is varied.
    fn say(&mut self, is_varied: bool, what: &str) {
        if is_varied {
            self.name += &format!("-{what}");
        }
    }
}

/// A number as people write it.
pub(super) fn short(x: f64) -> String {
    if (1e-3..1e6).contains(&x) { x.to_string() } else { format!("{x:e}") }
}

/// Every setting with every value; `set` hears whether there are several.
fn vary<T>(
    settings: Vec<Setting>,
    values: &[T],
    set: impl Fn(&mut Setting, &T, bool) -> Result<()>,
) -> Result<Vec<Setting>> {
    let mut out = Vec::with_capacity(settings.len() * values.len());
    for setting in settings {
        for value in values {
            let mut setting = setting.clone();
            set(&mut setting, value, values.len() > 1)?;
            out.push(setting);
        }
    }
    Ok(out)
}

/// Takes out what is there twice, and makes sure that names differ.
fn distinct(settings: &mut Vec<Setting>) -> Result<()> {
    let mut kept: Vec<Setting> = Vec::new();
    for mut setting in settings.drain(..) {
        if kept.iter().any(|other| Setting { name: setting.name.clone(), ..other.clone() } == setting) {
            continue;
        }
        let same = kept.iter().filter(|other| other.name == setting.name).count();
        if same > 0 {
            setting.name += &format!("-{}", same + 1);
        }
        check_name(&setting.name)?;
        kept.push(setting);
    }
    *settings = kept;
    Ok(())
}

/// As `attach-lora` takes them, several names joined by `+`: the comma stands between alternatives.
fn parse_targets(text: &str) -> Targets {
    let is_names = text.contains('+') && text.chars().all(|c| c.is_alphanumeric() || "_.+".contains(c));
    Targets::parse(&if is_names { text.replace('+', ",") } else { text.to_owned() })
}

/// The alternatives of `--targets`: commas within brackets belong to a pattern.
pub(super) fn alternatives(text: &str) -> Result<Vec<String>, String> {
    let items = split_items(text);
    if items.is_empty() { Err("names, all-linear, attention or mlp are needed".to_owned()) } else { Ok(items) }
}
