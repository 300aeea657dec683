//! `sweep`: many adapters over one base, trained together and compared.

mod compare;
mod course;
mod flags;
mod grid;
mod keep;
mod report;
mod tradeoff;

use clap::{CommandFactory, FromArgMatches, Parser};
use serde_json::Value;

use super::Verb;
use super::arguments::{nonnegative, number, positive};
use crate::error::{Error, Result};
use crate::event::Task;
use crate::session::{Answer, Session};

pub(super) use course::squared;
pub(super) use flags::Shared;
pub(super) use keep::{is_sweep, show, words_of_train};

/// Train adapters of several ranks, alphas, learning rates … over one base, and compare them on held-out rows
///
/// Every combination of the lists is a setting, trained once with each seed: adapters named r16-s1, and r16 for the seed nearest the
/// median. All see the same rows in the same order, and each becomes what `train` makes of it alone (--seed its own, --data-seed
/// the sweep's). Ctrl-C keeps what is done; the same line again goes on.
/// --parallel shared trains as many trials as memory holds in one pass over the frozen base: that takes less time where a batch
/// is small, and activations for all of them. auto takes as many as fill the processor; sequential takes one after the other.
#[derive(Parser)]
#[command(name = "sweep", verbatim_doc_comment)]
pub(super) struct Sweep {
    /// A data set or file
    data: String,
    /// Ranks
    #[arg(long, short, default_value = "4,8,16,32", value_delimiter = ',', value_parser = positive)]
    rank: Vec<usize>,
    /// Numerators of the scale: numbers, r, or 2r for twice the rank
    #[arg(long, default_value = "2r", value_delimiter = ',')]
    alpha: Vec<String>,
    /// Peaks of the learning rate
    #[arg(long, alias = "lr", default_value = "2e-4", value_delimiter = ',', value_parser = number)]
    learning_rate: Vec<f64>,
    /// all-linear, attention, mlp, a name, several joined by + (q_proj+v_proj), or a regular expression
    #[arg(long, default_value = "all-linear", value_parser = grid::alternatives)]
    targets: std::vec::Vec<String>,
    /// Probabilities that an input of A is zeroed in training
    #[arg(long, default_value = "0.05", value_delimiter = ',', value_parser = nonnegative)]
    dropout: Vec<f64>,
    /// Scale by alpha / sqrt(rank); --rslora=(false true) tries both
    #[arg(long, default_value = "false", value_delimiter = ',', num_args = 0.., require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = clap::value_parser!(bool))]
    rslora: Vec<bool>,
    /// Shares of the trained tokens that come from --mix-data: draws held-out loss against general loss. All trials make as many steps
    #[arg(long, default_value = "0", value_name = "SHARE", value_delimiter = ',', value_parser = super::train::mix_share)]
    mix: Vec<f64>,
    /// A data set or file that is mixed in
    #[arg(long, value_name = "DATA", requires = "mix")]
    mix_data: Option<String>,
    /// How many seeds, from 1 on, or which: (1 5)
    #[arg(long, default_value = "1", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Every setting, or some of them
    #[arg(long, default_value = "grid", value_parser = ["grid", "random"])]
    search: String,
    /// Trials of a random search, all seeds counted
    #[arg(long, value_parser = positive)]
    budget: Option<usize>,
    /// Trials in one pass over the base: as many as fit, one, or as many as are worth it
    #[arg(long, default_value = "auto", value_parser = ["auto", "shared", "sequential"])]
    parallel: String,
    /// Take the worse half of the settings out at a quarter and at half of the steps
    #[arg(long)]
    halving: bool,
    /// Show of each setting its best learning rate only
    #[arg(long)]
    best_lr: bool,
    /// Begin anew, even if this very sweep was made before
    #[arg(long)]
    fresh: bool,
    /// Seed of the order, of what --valid holds out, and of a random search
    #[arg(long, default_value = "0")]
    seed: u64,
    #[command(flatten)]
    shared: flags::Shared,
}

impl Verb for Sweep {
    const EXCLUSIVE: bool = true;

    fn run(self, session: &mut Session, task: Task<'_>) -> Answer {
        let mut course = self.open(session, task)?;
        let ended = course.train(session, task);
        let (answer, stopped): (Value, Option<Error>) = course.end(session, ended.err(), task)?;
        super::train::answered(session, (answer, stopped))
    }
}

impl Sweep {
    /// The flags behind `sweep`.
    fn parse(words: &[String]) -> Result<Self> {
        let matches = Self::command().no_binary_name(true).try_get_matches_from(words);
        let sweep = matches.and_then(|matches| Self::from_arg_matches(&matches));
        sweep.map_err(|e| Error::usage(format!("the sweep was begun with `sweep {}`: {e}", words.join(" "))))
    }
}
