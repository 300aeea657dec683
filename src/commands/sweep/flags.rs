//! The flags of `train` that hold for every trial, or for every method that is compared.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, CommandFactory, FromArgMatches};

use super::super::train::Train;

/// Which they are, by the names of their arguments.
const SHARED: &[&str] = &[
    "epochs",
    "steps",
    "batch_size",
    "grad_accum",
    "optimizer",
    "schedule",
    "warmup_steps",
    "warmup_ratio",
    "weight_decay",
    "max_grad_norm",
    "max_seq_len",
    "pack",
    "template",
    "train_on_prompt",
    "valid",
    "probe",
    "no_probe",
    "eval_every",
    "no_shuffle",
    "grad_checkpoint",
];

/// Those that were given, as words that `train` takes.
pub(in crate::commands) struct Shared(pub(in crate::commands) Vec<String>);

impl Args for Shared {
    fn augment_args(command: Command) -> Command {
        shared().into_iter().fold(command, Command::arg)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Shared {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut words = Vec::new();
        for argument in shared() {
            let (id, flag) = (argument.get_id().as_str(), argument.get_long().unwrap_or_default());
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            if argument.get_action().takes_values() {
                let values = matches.get_raw(id).into_iter().flatten();
                words.extend(values.map(|value| format!("--{flag}={}", value.to_string_lossy())));
            } else {
                words.push(format!("--{flag}"));
            }
        }
        Ok(Self(words))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn shared() -> Vec<Arg> {
    Train::command().get_arguments().filter(|a| SHARED.contains(&a.get_id().as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_becomes_words_of_train() {
        let words = |given: &[&str]| {
            let command = Shared::augment_args(Command::new("x").no_binary_name(true));
            Shared::from_arg_matches(&command.try_get_matches_from(given).unwrap()).unwrap().0
        };
        assert_eq!(words(&["--steps", "5", "--pack"]), ["--steps=5", "--pack"]);
        assert!(words(&[]).is_empty());
        assert_eq!(shared().len(), SHARED.len(), "train has no longer all of them");
    }
}
