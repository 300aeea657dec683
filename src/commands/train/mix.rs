//! `--mix`: what is mixed into the data of a training.

use serde_json::{Value, json};

use super::Train;
use crate::data::{self, DataSet, Format, Mixed, Mixture, TokenizeOptions, Tokenized};
use crate::error::{Error, Result};
use crate::event::{Event, Task, units};
use crate::session::Session;
use crate::train::Run;

/// A data set and the share of the trained tokens that it is to make up.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::commands) struct MixFlag {
    pub(in crate::commands) data: String,
    pub(in crate::commands) share: f64,
}

/// Reads `general.txt:0.2`.
pub(super) fn mix(text: &str) -> Result<MixFlag, String> {
    let wanted = "a data set and its share of the trained tokens, as general.txt:0.2";
    let (data, share) = text.rsplit_once(':').filter(|(data, _)| !data.is_empty()).ok_or(wanted)?;
    Ok(MixFlag { data: data.to_owned(), share: mix_share(share)? })
}

/// Reads a share that leaves something for the data itself.
pub(in crate::commands) fn mix_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        _ => Err(format!("a share is at least 0 and below 1, as 0.2; not {text}")),
    }
}

impl Train {
    /// Reads what is mixed in and puts its samples behind those of `tokenized`.
    pub(super) fn mixture(
        &self,
        session: &Session,
        (tokenized, options): (&mut Tokenized, &TokenizeOptions),
        held_out: Option<&DataSet>,
        task: Task<'_>,
    ) -> Result<(Mixture, Vec<DataSet>)> {
        // Of a data set that is named twice the later share holds: so a run is gone on with at another.
        let is_last = |i: usize| self.mix[i + 1..].iter().all(|later| later.data != self.mix[i].data);
        let flags: Vec<&MixFlag> = (0..self.mix.len()).filter(|&i| is_last(i)).map(|i| &self.mix[i]).collect();
        let all: f64 = flags.iter().map(|flag| flag.share).sum();
        if all >= 1.0 {
            return Err(Error::usage(format!(
                "--mix: the shares add up to {all:.2}, which leaves nothing for the data"
            ))
            .hint("below 1 in all, as --mix general.txt:0.2"));
        }
        let (mut mixed, mut sets) = (Vec::new(), Vec::new());
        for MixFlag { data, share } in flags.into_iter().filter(|flag| flag.share > 0.0) {
            let data = session.find_data(data, Format::Auto).map_err(|e| e.context("--mix"))?;
            let samples = session.tokenize(&data, options, task).map_err(|e| e.context("--mix"))?;
            for finding in data::check(&data, &samples, session.base()?.decoder.spec.max_positions) {
                task.emit(Event::Warning(format!("{}: {finding}", data.name)));
            }
            let leaked = held_out.map_or(0, |held_out| data::leakage(&data, held_out));
            if leaked > 0 {
                let rows = units::plural(leaked, "held-out row");
                task.emit(Event::Warning(format!("{rows} are in {}, which is mixed in", data.name)));
            }
            mixed.push(Mixed { packs: tokenized.append(samples), share: *share });
            sets.push(data);
        }
        Ok((Mixture(mixed), sets))
    }
}

/// What was mixed into the steps a run has made since it was begun or gone on with: for each data set its trained tokens and their share.
pub(super) fn mixed(run: &Run, sets: &[DataSet]) -> Vec<Value> {
    let step = run.trainer.step;
    let counts = run.trainer.mixed(step - run.outcome.losses.len()..step);
    let all = counts.iter().sum::<usize>().max(1) as f64;
    let of = |((set, mixed), tokens): ((&DataSet, &Mixed), &usize)| json!({"data": set.name, "share": mixed.share, "trained_tokens": tokens, "achieved": *tokens as f64 / all});
    sets.iter().zip(&run.trainer.settings.mix.0).zip(&counts[1..]).map(of).collect()
}

/// As `Mixed in: 20.1 % of the trained tokens from general`.
pub(super) fn sentence(mixed: &[Value]) -> Option<String> {
    let of = |part: &Value| {
        let share = 100.0 * part["achieved"].as_f64().unwrap_or(0.0);
        format!("{share:.1} % of the trained tokens from {}", part["data"].as_str().unwrap_or_default())
    };
    let parts: Vec<String> = mixed.iter().map(of).collect();
    (!parts.is_empty()).then(|| format!("Mixed in: {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_stands_behind_the_last_colon() {
        let read = |text| mix(text).map(|flag| (flag.data, flag.share));
        assert_eq!(read("general.txt:0.2"), Ok(("general.txt".to_owned(), 0.2)));
        assert_eq!(read("c:/x/y.jsonl:0"), Ok(("c:/x/y.jsonl".to_owned(), 0.0)));
        for wrong in ["general.txt", ":0.2", "a:1", "a:1.5", "a:-0.1", "a:nan", "a:", "a:20%", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
