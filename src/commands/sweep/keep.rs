//! A sweep on disk: one run with all its trials, each a run within it; how one begins, is found again, and is shown.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::train::{Train, config, template};
use super::Sweep;
use super::compare::Row;
use super::course::{Course, Shape};
use super::grid::Setting;
use super::report::Report;
use crate::error::{Error, Result};
use crate::event::{Event, Task, units};
use crate::lora::Adapter;
use crate::session::{Answer, Session};
use crate::train::sweep::{Standing, Trial};
use crate::train::{RunRecord, Saving, largest_batch};

/// How its trials stand, in the folder of the sweep.
pub(super) const TRIALS: &str = "trials.json";
/// The share of the rows that is held out if nothing is said: without them nothing can be compared.
const HELD_OUT: &str = "--valid=0.1";

impl Sweep {
    /// Reads the data and begins the sweep, or goes on with the one of this very line that has not come to its end.
    pub(super) fn open(self, session: &mut Session, task: Task<'_>) -> Result<Course> {
        let base = session.base()?;
        let (settings, seeds) = (self.settings()?, self.seeds()?);
        let mut parameters = Vec::new();
        for setting in &settings {
            parameters.push(Adapter::new(setting.lora.clone(), &base.decoder.linears, 0)?.parameters());
        }
        let words = self.words_of_train(session)?;
        let flags = Train::parse(&words)?;
        let material = flags.material(session, task)?;
        let schedule = flags.schedule(&material)?;
        let plan = flags.plan(&material, schedule.steps)?;
        let held_out = material.held_out.as_ref().ok_or_else(|| Error::bug("a sweep without held-out rows"))?;
        let fingerprint = material.tokenized.fingerprint();
        let base = session.base()?;
        let identity = json!({
            "words": lasting(&session.words),
            "model": base.opened.name,
            "type": base.type_name(),
            "data": fingerprint,
        });
        let earlier = if self.fresh { None } else { find(session, &identity) };
        let title = format!(
            "sweep on {} · {}, {}",
            base.title(),
            units::plural(settings.len() * seeds.len(), "trial"),
            units::plural(seeds.len(), "seed")
        );
        let location = base.opened.location.clone();
        let whole = |settings: &crate::train::Settings| {
            config(session, &material.data, Some(held_out), settings, &material.options, None)
        };

        let shape = Shape { settings, seeds, steps: schedule.end(), title, best_rate: self.best_lr };
        let mut top = whole(&flags.settings(schedule)?)?;
        top["sweep"] = identity;
        top["adapter"] = json!(units::plural(shape.settings.len() * shape.seeds.len(), "trial"));
        top["title"] = json!(shape.title);
        top["seeds"] = json!(shape.seeds);
        let standings = earlier.as_ref().map(|run| standings(run, &shape)).transpose()?;
        let names: Vec<String> = shape.names();
        check_names(session, &shape, &names, earlier.as_ref(), task)?;
        let recorder = match &earlier {
            Some(run) => session.runs.reopen(run, &top, 0)?,
            None => session.runs.begin(&top)?,
        };
        let prompts = template(&material.data, &material.tokenized);
        let mut trials = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let (setting, seed) = shape.of(i);
            let mut arguments = words.clone();
            arguments.push(format!("--learning-rate={}", setting.learning_rate));
            arguments.extend([format!("--seed={seed}"), format!("--data-seed={}", self.seed)]);
            let settings = Train::parse(&arguments)?.settings(schedule)?;
            let mut config = whole(&settings)?;
            config["adapter"] = json!(name);
            config["title"] = json!(format!("{name} on {}", session.base()?.title()));
            config["lora"] = setting.lora.to_peft(&session.base()?.decoder.linears, &location);
            let standing = (standings.as_ref().and_then(|all| all.get(i).cloned()))
                .unwrap_or_else(|| Standing::new(name, parameters[i / shape.seeds.len()]));
            let saving = Saving {
                arguments,
                data: fingerprint.clone(),
                base: location.clone(),
                template: prompts.clone().map(Option::unwrap_or_default),
                steps_before: 0,
            };
            let recorder = session.runs.begin_within(&recorder.id, name, &config, standing.step)?;
            trials.push(Trial { standing, settings, recorder, saving, optimizer: None });
        }
        let made: usize = trials.iter().map(|trial| trial.standing.step).sum();
        if made > 0 {
            let done = trials.iter().filter(|trial| trial.standing.state != crate::train::sweep::State::Open).count();
            let of = units::plural(trials.len(), "trial");
            task.emit(Event::Text(format!("sweep {} goes on: {done} of {of} have ended", recorder.id)));
        }
        let (rows, _) =
            largest_batch(&material.tokenized.samples, &material.tokenized.packs, trials[0].settings.batch_size);
        let looks = self.shared.0.iter().any(|word| word.starts_with("--eval-every="));
        let material = material;
        Ok(Course {
            eval_every: if looks { plan.eval_every } else { schedule.end() },
            parallel: self.parallel,
            halving: self.halving,
            attached: vec![false; trials.len()],
            shape,
            trials,
            rows,
            samples: Arc::from(material.tokenized.samples),
            packs: Arc::from(material.tokenized.packs),
            data: material.data,
            held_out: material.held_out.ok_or_else(|| Error::bug("a sweep without held-out rows"))?,
            options: material.options,
            template: prompts,
            recorder,
            made_before: made,
            norms: std::collections::HashMap::new(),
            groups: Vec::new(),
            begun: std::time::Instant::now(),
        })
    }

    /// What `train` would be told of the data and of the steps.
    fn words_of_train(&self, session: &Session) -> Result<Vec<String>> {
        let mut words = vec![self.data.clone()];
        words.extend(self.shared.0.iter().cloned());
        words.push(format!("--data-seed={}", self.seed));
        let says = self.shared.0.iter().any(|word| word.starts_with("--valid="));
        let name = session.find_data(&self.data, crate::data::Format::Auto)?.name;
        if !says && !session.data.iter().any(|data| data.name == format!("{name}.valid")) {
            words.push(HELD_OUT.to_owned());
        }
        Ok(words)
    }
}

/// The words of a sweep that say what is trained, not how.
fn lasting(words: &[String]) -> Vec<String> {
    let mut words = words.iter();
    let mut out = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--fresh" | "--best-lr" => {}
            "--parallel" => drop(words.next()),
            other if other.starts_with("--parallel=") => {}
            other => out.push(other.to_owned()),
        }
    }
    out
}

/// The last run that is this sweep.
fn find(session: &Session, identity: &Value) -> Option<RunRecord> {
    session.runs.list().into_iter().rfind(|run| run.config["sweep"] == *identity && run.dir.join(TRIALS).exists())
}

/// How the trials of a sweep on disk stand.
fn standings(run: &RunRecord, shape: &Shape) -> Result<Vec<Standing>> {
    let path = run.dir.join(TRIALS);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let broken =
        |what: String| Error::format(format!("{}: {what}", path.display())).hint("--fresh begins the sweep anew");
    let standings: Vec<Standing> = serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
    if standings.iter().map(|standing| &standing.name).ne(shape.names().iter()) {
        return Err(broken("it has other trials".to_owned()));
    }
    Ok(standings)
}

/// Checks that the names of the trials are free: those of an earlier sweep are, because their run keeps them.
fn check_names(
    session: &Session,
    shape: &Shape,
    names: &[String],
    own: Option<&RunRecord>,
    task: Task<'_>,
) -> Result<()> {
    let mut kept: Vec<&str> = Vec::new();
    for name in names.iter().chain(shape.settings.iter().map(|setting| &setting.name)) {
        session.check_not_merged(name)?;
        let Some(live) = session.adapters.iter().find(|live| live.name == *name) else { continue };
        match live.run.as_deref().and_then(|run| run.split_once('/')) {
            Some((run, _)) if own.is_some_and(|own| own.id == run) => {}
            Some((run, _)) => kept.push(run),
            None => {
                return Err(Error::state(format!("there is an adapter {name} already, which is no trial of a sweep"))
                    .hint(format!("rename {name} {name}-0, or drop {name}")));
            }
        }
    }
    kept.dedup();
    if !kept.is_empty() {
        let kept: Vec<String> = kept.iter().map(|run| session.runs.root().join(run).display().to_string()).collect();
        task.emit(Event::Text(format!("trials of the same names are replaced; {} keeps them", kept.join(", "))));
    }
    Ok(())
}

/// Whether a run is a sweep.
pub(in crate::commands) fn is_sweep(run: &RunRecord) -> bool {
    run.config["sweep"].is_object()
}

/// A sweep as it stood when it ended, or as far as it had come.
pub(in crate::commands) fn show(run: &RunRecord, task: Task<'_>) -> Answer {
    let words: Vec<String> = serde_json::from_value(run.config["sweep"]["words"].clone()).unwrap_or_default();
    let sweep = Sweep::parse(&words)?;
    let title = run.config["title"].as_str().unwrap_or_default().to_owned();
    let steps = run.config["steps"].as_u64().unwrap_or(0) as usize;
    let shape = Shape { settings: sweep.settings()?, seeds: sweep.seeds()?, steps, title, best_rate: sweep.best_lr };
    let standings = standings(run, &shape)?;
    let report = shape.report(&standings.iter().collect::<Vec<_>>());
    task.emit(Event::Sheet(report.sheet(true)));
    if let Some((_, chosen)) = report.best_and_chosen()
        && let Some(trial) = chosen.middle()
    {
        let dir = run.dir.join(&trial.name).join("adapter");
        task.emit(Event::Next(vec![format!("load-adapter {} --name {}", dir.display(), chosen.setting.name)]));
    }
    let mut answer = report.answer();
    answer["run"] = json!(run.id);
    answer["config"] = run.config.clone();
    answer["result"] = json!(run.result());
    Ok(answer)
}

impl Shape {
    /// Setting and seed of the trial in place `i`.
    pub(super) fn of(&self, i: usize) -> (&Setting, u64) {
        (&self.settings[i / self.seeds.len()], self.seeds[i % self.seeds.len()])
    }

    /// The names of all trials.
    pub(super) fn names(&self) -> Vec<String> {
        let name = |i| {
            let (setting, seed) = self.of(i);
            format!("{}-s{seed}", setting.name)
        };
        (0..self.settings.len() * self.seeds.len()).map(name).collect()
    }

    /// What is shown of trials that stand like this.
    pub(super) fn report<'a>(&'a self, standings: &[&'a Standing]) -> Report<'a> {
        let row = |(setting, standings): (&'a Setting, &[&'a Standing])| Row {
            setting,
            trials: self.seeds.iter().copied().zip(standings.iter().copied()).collect(),
        };
        let rows = self.settings.iter().zip(standings.chunks(self.seeds.len())).map(row).collect();
        Report { title: &self.title, rows, steps: self.steps, best_rate: self.best_rate }
    }
}
