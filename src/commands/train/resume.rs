//! Going on with a run: `train --resume` and `train --more`.

use clap::{CommandFactory, FromArgMatches};

use super::Train;
use super::prepare::Earlier;
use crate::commands::sweep::is_sweep;
use crate::data::Tokenized;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Task, units};
use crate::lora::Adapter;
use crate::session::{Live, Origin, Session, Training, Versions};
use crate::train::{RunRecord, Schedule, checkpoint};

impl Train {
    /// Goes on with a run: with its data and flags, the flags given now before them.
    pub(super) fn go_on(&self, session: &mut Session, task: Task<'_>) -> Result<Training> {
        let base = session.base()?;
        let record = self.record(session)?;
        if is_sweep(&record) {
            return Err(Error::state(format!("run {} is a sweep: one line trains all its trials", record.id))
                .hint("the same sweep line goes on with it"));
        }
        if record.id.contains('/') && !record.dir.join(checkpoint::FILE).exists() {
            return Err(Error::state(format!(
                "{} has made the steps of its sweep, which keeps no optimizer state of trials that have ended",
                record.id
            ))
            .hint("train DATA goes on from where the adapter stands"));
        }
        let mut checkpoint = checkpoint::read(&record.dir).map_err(|e| {
            let error = e.context(format!("run {} cannot be gone on with", record.id));
            error.hint("train DATA begins a new run from where the adapter stands")
        })?;
        let model = record.config["model"].as_str().unwrap_or_default();
        if model != base.opened.name {
            return Err(Error::state(format!("run {} trained {model}; {} is loaded", record.id, base.opened.name))
                .hint(format!("load {}", record.config["source"].as_str().unwrap_or(model))));
        }
        if let Some(before) = record.config["type"].as_str().filter(|t| *t != base.type_name()) {
            task.emit(Event::Warning(format!(
                "run {} trained on {before}, the base is {} now: it does not go on as it would have",
                record.id,
                base.type_name()
            )));
        }
        let mut arguments = checkpoint.position.arguments.clone();
        arguments.extend(lasting(&session.words));
        let flags = Self::parse(&arguments)?;
        let index = match standing(session, &record) {
            Some(index) => index,
            None => adapter(session, &record)?,
        };
        let branches = from_version(session, index, &record, &mut checkpoint)?;
        if session.adapters[index].adapter.params.len() != checkpoint.params.len() {
            return Err(Error::state(format!(
                "run {} trained an adapter of {} parameters, {} has {}",
                record.id,
                units::count(checkpoint.params.len() as u64),
                session.adapters[index].name,
                units::count(session.adapters[index].adapter.params.len() as u64)
            ))
            .hint(format!("load-adapter {} --name another", record.dir.join("adapter").display())));
        }
        let material = flags.material(session, task).map_err(|e| {
            let from = record.config["origin"].as_str().unwrap_or_default();
            e.context(format!("run {} was trained on data from {from}", record.id))
        })?;
        let position = &checkpoint.position;
        let schedule = match self.more {
            // Its own schedule has a warm-up only if it is asked for now.
            Some(steps) => {
                let warmup = self.warmup(steps);
                Schedule { shape: flags.schedule.parse()?, warmup, steps, begin: position.step }
            }
            None if position.step >= position.begin + position.steps => {
                return Err(Error::state(format!("run {} has made all its {} steps", record.id, position.step))
                    .hint("train --more 50 goes on for fifty more"));
            }
            None => {
                check_data(&record, &position.data, material.tokenized())?;
                let steps = position.steps;
                Schedule { shape: flags.schedule.parse()?, warmup: flags.warmup(steps), steps, begin: position.begin }
            }
        };
        let settings = flags.settings(schedule)?;
        let plan = flags.plan(&material, schedule.steps)?;
        task.emit(Event::Text(format!("run {} goes on from step {}", record.id, units::count(position.step as u64))));
        checkpoint.position.arguments = arguments;
        flags.training(
            session,
            Some(index),
            material,
            (settings, plan),
            Some(Earlier { record, checkpoint, branches }),
            task,
        )
    }

    /// The flags behind `train`.
    pub(in crate::commands) fn parse(arguments: &[String]) -> Result<Self> {
        let command = Self::command().no_binary_name(true);
        let matches = command.try_get_matches_from(arguments).map_err(|e| {
            let text = e.render().to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Error::usage(format!("the run was begun with `train {}`: {line}", arguments.join(" ")))
                .hint("train DATA begins a new run from where the adapter stands")
        })?;
        Self::from_arg_matches(&matches).map_err(|e| Error::bug(e.to_string()))
    }

    /// The data as it was typed.
    pub(in crate::commands) fn data_word(&self) -> Option<String> {
        self.data.clone()
    }

    /// Whether rows are held out of the data itself, by a share.
    pub(in crate::commands) fn holds_share(&self) -> bool {
        self.valid.as_deref().is_some_and(|valid| valid.parse::<f64>().is_ok())
    }

    /// The run that is meant: the one given, the active adapter's last one, or the last on disk where no adapter is live.
    fn record(&self, session: &Session) -> Result<RunRecord> {
        if let Some(id) = self.resume.as_deref().filter(|id| !id.is_empty()) {
            return session.runs.open(id);
        }
        if session.adapters.is_empty() {
            let last = session.runs.list().into_iter().rfind(|run| run.dir.join(checkpoint::FILE).exists());
            return last
                .ok_or_else(|| Error::not_found("there is no run to go on with").hint("attach-lora, then train DATA"));
        }
        let live = &session.adapters[session.only_active()?];
        match &live.run {
            Some(id) => session.runs.open(id),
            None => Err(Error::state(format!("{} was not trained in this session", live.name))
                .hint("`runs` lists the runs on disk, train --resume RUN goes on with one")),
        }
    }
}

/// The words of a `train` that go on to hold when the run is gone on with: its data and its settings.
pub(super) fn lasting(words: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--background" | "--fresh" => {}
            "--more" => drop(words.next()),
            "--resume" => drop(words.next_if(|next| !next.starts_with('-'))),
            other if other.starts_with("--more=") || other.starts_with("--resume=") => {}
            other => out.push(other.to_owned()),
        }
    }
    out
}

/// The place of the active adapter if this run trained it last, whatever its name was then.
fn standing(session: &Session, record: &RunRecord) -> Option<usize> {
    let index = session.only_active().ok()?;
    (session.adapters[index].run.as_ref() == Some(&record.id)).then_some(index)
}

/// Takes the checkpoint of the version that the adapter stands at where the run has left another, or left it to another
/// adapter: true then, for the run's folder belongs to what it has come to.
fn from_version(
    session: &Session,
    index: usize,
    record: &RunRecord,
    checkpoint: &mut checkpoint::Checkpoint,
) -> Result<bool> {
    let live = &session.adapters[index];
    if live.run.as_ref() != Some(&record.id) {
        return Ok(false);
    }
    let Some(kept) = live.versions.current().is_some().then(|| live.checkpoint()).transpose()?.flatten() else {
        return Ok(false);
    };
    let owner = record.config["adapter"].as_str().unwrap_or_default();
    let of_another = live.name != owner && session.adapters.iter().any(|a| a.name == owner);
    if kept.position == checkpoint.position && !of_another {
        return Ok(false);
    }
    *checkpoint = kept;
    Ok(true)
}

/// The place of the run's adapter: a live one, else the one the run keeps, which becomes live.
fn adapter(session: &mut Session, record: &RunRecord) -> Result<usize> {
    let Some(name) = record.config["adapter"].as_str() else {
        return Err(Error::unsupported(format!(
            "run {} trained the whole model, which is not kept on disk",
            record.id
        ))
        .hint("train DATA --full goes on from the weights as they stand"));
    };
    if let Some(index) = session.adapters.iter().position(|a| a.name == name) {
        session.active = vec![(name.to_owned(), 1.0)];
        return Ok(index);
    }
    let dir = record.dir.join("adapter");
    let (adapter, metadata) = Adapter::load(&dir, &session.base()?.decoder.linears)?;
    session.add_adapter(Live {
        name: name.to_owned(),
        adapter,
        origin: Origin::Folder(dir),
        template: metadata.get("template").map(|t| Some(t.clone()).filter(|t| !t.is_empty())),
        steps: metadata.get("steps").and_then(|s| s.parse().ok()).unwrap_or(0),
        run: Some(record.id.clone()),
        saved: true,
        versions: Versions::default(),
    });
    Ok(session.adapters.len() - 1)
}

/// A run that goes on where it was has to find the data it was trained on.
fn check_data(record: &RunRecord, expected: &str, tokenized: &Tokenized) -> Result<()> {
    if tokenized.fingerprint() == expected {
        return Ok(());
    }
    Err(Error::new(
        Kind::State,
        format!("the data of run {} is not what it was trained on: it has changed, or how it is tokenized", record.id),
    )
    .hint("train --more 50 goes on with what there is now, train DATA begins a new run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_run_is_made_of_goes_on_to_hold() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lasting(&words("rows --epochs 2 --fresh --background")), words("rows --epochs 2"));
        assert_eq!(lasting(&words("--more 50 --learning-rate 1e-4")), words("--learning-rate 1e-4"));
        assert_eq!(lasting(&words("--resume 7 --more=3 --seed 1")), words("--seed 1"));
        assert_eq!(lasting(&words("--resume --seed 1 --resume=7")), words("--seed 1"));
    }

    #[test]
    fn flags_given_later_win() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let train = Train::parse(&words("rows --batch-size 2 --valid 0.1 --batch-size 8")).unwrap();
        assert_eq!((train.data.as_deref(), train.batch_size, train.valid.as_deref()), (Some("rows"), 8, Some("0.1")));
        let error = Train::parse(&words("rows --steps 3 --epochs 2")).err().unwrap();
        assert!(error.message().contains("--steps"), "{error:?}");
    }
}
