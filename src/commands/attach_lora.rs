//! `attach-lora`: a live adapter on the base.

use clap::Parser;
use serde_json::{Map, Value, json};

use super::Verb;
use super::arguments::{layers, nonnegative, positive};
use crate::error::{Error, Result};
use crate::event::{Cell, Event, Table, Task, units};
use crate::lora::{Adapter, Init, LoraConfig, Targets};
use crate::session::{Answer, Base, Live, Origin, Session, Versions};

/// Attach a LoRA adapter: y = W·x + scale · B·A·x, with B = 0 at the start
///
/// The scale is alpha / rank (alpha / sqrt(rank) with --rslora). Targets are matched as PEFT does: a name matches the end of a
/// path, a regular expression must match the whole path. All linear layers are the default: at equal rank they learn more
/// than attention alone. Attaching again with the same settings does nothing.
#[derive(Parser)]
#[command(name = "attach-lora", verbatim_doc_comment)]
pub(super) struct AttachLora {
    /// Name of the adapter
    #[arg(default_value = "default")]
    name: String,
    #[command(flatten)]
    lora: LoraFlags,
    /// Seed of A
    #[arg(long, default_value = "0")]
    seed: u64,
    /// Replace a live adapter of this name that has other settings
    #[arg(long)]
    replace: bool,
}

/// What an adapter is to be.
#[derive(clap::Args)]
pub(super) struct LoraFlags {
    /// Rank of the update
    #[arg(long, short, default_value = "16", value_parser = positive)]
    rank: usize,
    /// Numerator of the scale: a number, r, or 2r for twice the rank
    #[arg(long, default_value = "2r")]
    alpha: String,
    /// Probability that an input of A is zeroed in training
    #[arg(long, default_value = "0.05", value_parser = nonnegative)]
    dropout: f64,
    /// all-linear, attention, mlp, names like q_proj,v_proj, or a regular expression
    #[arg(long, default_value = "all-linear")]
    targets: String,
    /// Scale by alpha / sqrt(rank): better from rank 64 on
    #[arg(long)]
    rslora: bool,
    /// Start of A: default (uniform) or gaussian
    #[arg(long, default_value = "default", value_parser = ["default", "gaussian"])]
    init: String,
    /// Only these layers: 0-5 or 0,2,4
    #[arg(long, value_parser = layers, value_name = "LAYERS")]
    layers: Option<std::vec::Vec<usize>>,
    /// Another rank for paths a pattern matches: q_proj=4, several separated by commas
    #[arg(long, value_delimiter = ',', value_name = "PATTERN=RANK")]
    rank_pattern: Vec<String>,
}

impl Verb for AttachLora {
    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let config = self.lora.config()?;
        let base = session.base()?;
        check_name(&self.name)?;
        if let Some(live) = session.adapters.iter().find(|a| a.name == self.name)
            && !self.replace
        {
            let same = live.adapter.config == config && matches!(live.origin, Origin::New(seed) if seed == self.seed);
            if !same {
                return Err(Error::state(format!(
                    "adapter {} is live with other settings: {}",
                    self.name,
                    settings(&live.adapter.config)
                ))
                .hint(format!("--replace drops it, or attach under another name: attach-lora {}-2 …", self.name)));
            }
            let answer = answer(&self.name, &live.adapter, base);
            task.emit(Event::Text(format!("{} is attached already, with these settings", self.name)));
            session.active = vec![(self.name, 1.0)];
            return Ok(answer);
        }
        session.check_free(Some(&self.name))?;
        let adapter = Adapter::new(config, &base.decoder.linears, self.seed)?;
        let answer = answer(&self.name, &adapter, base);
        describe(&self.name, &adapter, base, task);
        let rate = suggested_rate(base.decoder.spec.hidden);
        task.emit(Event::Next(vec![format!("train DATA --learning-rate {rate:.0e}"), "data FILE --show 2".to_owned()]));
        session.add_adapter(Live {
            name: self.name,
            adapter,
            origin: Origin::New(self.seed),
            template: None,
            steps: 0,
            run: None,
            saved: true,
            versions: Versions::default(),
        });
        Ok(answer)
    }
}

impl LoraFlags {
    /// The settings they stand for.
    ///
    /// # Errors
    /// A flag that makes no sense.
    pub(super) fn config(&self) -> Result<LoraConfig> {
        let alpha = alpha(&self.alpha, self.rank)?;
        let pair = |text: &String| -> Result<(String, usize)> {
            let (pattern, rank) = text.split_once('=').unwrap_or((text, ""));
            let rank = rank.parse().map_err(|_| {
                Error::usage(format!("--rank-pattern {text}: PATTERN=RANK is needed")).hint("--rank-pattern q_proj=4")
            })?;
            Ok((pattern.to_owned(), rank))
        };
        let config = LoraConfig {
            rank: self.rank,
            alpha,
            dropout: self.dropout,
            targets: Targets::parse(&self.targets),
            layers: self.layers.clone(),
            rslora: self.rslora,
            init: if self.init == "gaussian" { Init::Gaussian } else { Init::Default },
            rank_pattern: self.rank_pattern.iter().map(pair).collect::<Result<_>>()?,
            alpha_pattern: Vec::new(),
        };
        config.validate()?;
        Ok(config)
    }
}

/// What `--alpha` means at this rank: a number, `r`, or `2r` for twice the rank.
pub(super) fn alpha(text: &str, rank: usize) -> Result<f64> {
    let alpha = match text.strip_suffix('r') {
        Some("") => rank as f64,
        Some(times) => times.parse::<f64>().unwrap_or(f64::NAN) * rank as f64,
        None => text.parse().unwrap_or(f64::NAN),
    };
    if alpha.is_nan() {
        return Err(Error::usage(format!("--alpha {text}: a number, r or 2r is needed")));
    }
    Ok(alpha)
}

/// A learning rate to start from: 2e-4, usual for adapters at a width of 4096, and more for narrower models by the square root of
/// the width; rounded to one digit. A rule of thumb, tried on the built-in model.
pub(super) fn suggested_rate(width: usize) -> f64 {
    let rate = 2e-4 * (4096.0 / width as f64).sqrt();
    // Written and read again it is the number that people write: 9e-4, not 9.000000000000001e-4.
    format!("{rate:.0e}").parse().unwrap_or(rate)
}

/// A name that other commands can tell from their own words.
pub(super) fn check_name(name: &str) -> Result<()> {
    let fine =
        name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c)) && !name.is_empty() && !name.starts_with('-');
    if !fine || matches!(name, "base" | "original") {
        return Err(Error::usage(format!("{name:?} cannot be the name of an adapter"))
            .hint("letters, digits, `-`, `_` and `.`; `base` and `original` mean the model itself"));
    }
    Ok(())
}

/// As "rank 16, alpha 32, all-linear".
pub(super) fn settings(config: &LoraConfig) -> String {
    let mut out = format!("rank {}, alpha {}, {}", config.rank, config.alpha, config.targets.text());
    if config.rslora {
        out += ", rsLoRA";
    }
    out
}

/// What an adapter is, in a sentence and a table.
pub(super) fn describe(name: &str, adapter: &Adapter, base: &Base, task: Task<'_>) {
    let (config, count) = (&adapter.config, adapter.parameters() as u64);
    let by = if config.rslora {
        format!("alpha {} / sqrt({})", config.alpha, config.rank)
    } else {
        format!("alpha {} / rank {}", config.alpha, config.rank)
    };
    task.emit(Event::Text(format!(
        "{name}: {} trainable parameters, {} of all; scale {} ({by})",
        units::short(count),
        units::percent(count as f64 / (base.decoder.spec.parameters() + count) as f64),
        number(config.scale()),
    )));
    let mut table = Table { columns: vec!["target", "modules", "out × in", "parameters"], ..Table::default() };
    for (pattern, hits) in &adapter.counts {
        let end = format!(".{pattern}");
        let mut of = (base.decoder.linears.iter().zip(&adapter.sites))
            .filter(|(l, s)| s.is_some() && (l.path == *pattern || l.path.ends_with(&end)));
        let parameters: usize = of.clone().map(|(l, s)| s.as_ref().map_or(0, |s| s.rank * (l.out + l.input))).sum();
        let (size, parameters) = match of.next() {
            Some((l, _)) => (format!("{} × {}", l.out, l.input), Cell::Count(parameters as u64)),
            None => (String::new(), Cell::Empty),
        };
        table.rows.push(vec![Cell::from(pattern.as_str()), Cell::Count(*hits as u64), Cell::Text(size), parameters]);
    }
    task.emit(Event::Table(table));
    let first = base.decoder.linears.iter().zip(&adapter.sites).find_map(|(l, s)| Some((l, s.as_ref()?)));
    if let Some((linear, site)) = first {
        let (whole, low) = (linear.out * linear.input, site.rank * (linear.out + linear.input));
        task.emit(Event::Text(format!(
            "{}: {} × {} = {} weights; B·A has {} × ({} + {}) = {}, {} times fewer",
            linear.name(),
            linear.out,
            linear.input,
            units::count(whole as u64),
            site.rank,
            linear.out,
            linear.input,
            units::count(low as u64),
            number(whole as f64 / low as f64)
        )));
    }
}

/// A factor with as many digits as it needs.
fn number(x: f64) -> String {
    let text = format!("{x:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The result for programs.
pub(super) fn answer(name: &str, adapter: &Adapter, base: &Base) -> Value {
    let count = adapter.parameters();
    let modules: Map<String, Value> = adapter.counts.iter().map(|(p, n)| (p.clone(), json!(n))).collect();
    json!({
        "adapter": name,
        "rank": adapter.config.rank,
        "alpha": adapter.config.alpha,
        "scale": adapter.config.scale(),
        "trainable_parameters": count,
        "trainable_percent": 100.0 * count as f64 / (base.decoder.spec.parameters() as f64 + count as f64),
        "modules": modules,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrower_models_are_suggested_a_higher_rate() {
        for (width, rate) in [(4096, "2e-4"), (576, "5e-4"), (192, "9e-4"), (64, "2e-3")] {
            assert_eq!(format!("{:e}", suggested_rate(width)), rate);
        }
    }

    #[test]
    fn names_that_mean_something_else_are_refused() {
        assert!(check_name("r16-s1").is_ok());
        for name in ["", "base", "original", "a+b", "a:1", "-x", "a b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
