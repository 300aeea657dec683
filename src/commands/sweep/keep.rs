//! A sweep on disk: one run with all its trials, each a run within it; how one begins, is found again, and is shown.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::train::{Material, Train, config, template};
use super::Sweep;
use super::compare::Row;
use super::course::{Course, Shape};
use super::flags::Shared;
use super::grid::Setting;
use super::report::Report;
use crate::data::{Format, Sample};
use crate::error::{Error, Result};
use crate::event::{Event, Task, units};
use crate::lora::Adapter;
use crate::session::{Answer, Base, Session};
use crate::train::sweep::{Standing, State, Trial};
use crate::train::{RunRecord, Saving, Settings, largest_batch};

/// How its trials stand, in the folder of the sweep.
pub(super) const TRIALS: &str = "trials.json";
/// The share of the rows that is held out if nothing is said: without them nothing can be compared.
const HELD_OUT: &str = "--valid=0.1";

impl Sweep {
    /// Reads the data and begins the sweep, or goes on with the one of this very line that has not come to its end.
    pub(super) fn open(self, session: &mut Session, task: Task<'_>) -> Result<Course> {
        let (settings, seeds) = (self.settings()?, self.seeds()?);
        let mut words = words_of_train(session, &self.data, &self.shared, self.seed)?;
        words.extend(self.words_of_mix()?);
        let flags = Train::parse(&words)?;
        let mut material = flags.material(session, task)?;
        let schedule = flags.schedule(&material)?;
        let shape = Shape {
            title: title(session.base()?, settings.len(), seeds.len()),
            settings,
            seeds,
            steps: schedule.end(),
            best_rate: self.best_lr,
        };
        let mut lone = Vec::new();
        for i in 0..shape.len() {
            let (setting, seed) = shape.of(i);
            let mut arguments = words.clone();
            arguments.push(format!("--learning-rate={}", setting.learning_rate));
            arguments.extend([format!("--seed={seed}"), format!("--data-seed={}", self.seed)]);
            arguments.extend(self.mix_data.iter().map(|data| format!("--mix={data}:{}", setting.mix)));
            let mut settings = Train::parse(&arguments)?.settings(schedule)?;
            settings.mix.clone_from(&material.mix.0);
            settings.mix.0.iter_mut().for_each(|mixed| mixed.share = setting.mix);
            lone.push((settings, arguments));
        }
        let base = session.base()?;
        let count = |setting: &Setting| Adapter::count(&setting.lora, &base.decoder.linears);
        let parameters: Vec<usize> = shape.settings.iter().map(count).collect::<Result<_>>()?;
        let (fingerprint, location) = (material.tokenized.fingerprint(), base.opened.location.clone());
        let identity = json!({
            "words": lasting(&session.words),
            "model": base.opened.name,
            "type": base.type_name(),
            "data": fingerprint,
            "held_out": material.held_out.as_ref().map(|held_out| fingerprint_of(&held_out.samples)),
        });
        let earlier = if self.fresh { None } else { find(session, &identity) };
        let standings = earlier.as_ref().map(|run| standings(run, &shape)).transpose()?;
        check_names(session, &shape, earlier.as_ref(), task)?;

        let held_out = material.held_out.as_ref();
        let config = |settings: &Settings| config(session, &material.data, held_out, settings, &material.options, None);
        let mut whole = config(&lone[0].0)?;
        whole["sweep"] = identity;
        let probe = material.probe.take();
        whole["probe"] = json!(probe.as_ref().map(|probe| &probe.name));
        whole["adapter"] = json!(units::plural(shape.len(), "trial"));
        whole["title"] = json!(shape.title);
        let recorder = match &earlier {
            Some(run) => session.runs.reopen(run, &whole, 0)?,
            None => session.runs.begin(&whole)?,
        };
        let template = template(&material.data, &material.tokenized);
        let mut trials = Vec::new();
        for ((i, name), (settings, arguments)) in shape.names().iter().enumerate().zip(lone) {
            let mut config = config(&settings)?;
            config["adapter"] = json!(name);
            config["title"] = json!(format!("{name} on {}", base.title()));
            config["arguments"] = json!(arguments);
            config["fingerprint"] = json!(fingerprint);
            config["probe"] = whole["probe"].clone();
            config["mix"] =
                json!(self.mix_data.iter().map(|data| (data, shape.of(i).0.mix)).collect::<HashMap<_, _>>());
            config["lora"] = shape.of(i).0.lora.to_peft(&base.decoder.linears, &location);
            let standing = (standings.as_ref().map(|all| all[i].clone()))
                .unwrap_or_else(|| Standing::new(name, parameters[i / shape.seeds.len()]));
            let saving = Saving {
                arguments,
                data: fingerprint.clone(),
                base: location.clone(),
                template: template.clone().map(Option::unwrap_or_default),
                steps_before: 0,
            };
            let recorder = session.runs.begin_within(&recorder.id, name, &config, standing.step)?;
            trials.push(Trial { standing, settings, recorder, saving, optimizer: None });
        }
        let made: usize = trials.iter().map(|trial| trial.standing.step).sum();
        let ended = trials.iter().filter(|trial| trial.standing.state != State::Open).count();
        if made > 0 && ended < trials.len() {
            let trials = units::plural(trials.len(), "trial");
            task.emit(Event::Text(format!("sweep {} goes on: {ended} of {trials} have ended", recorder.id)));
        }
        let looks = self.shared.0.iter().any(|word| word.starts_with("--eval-every="));
        let eval_every = if looks { flags.plan(&material, shape.steps)?.eval_every } else { shape.steps };
        let Material { data, tokenized, held_out, options, mix, .. } = material;
        let (rows, _) = largest_batch(&tokenized.samples, &tokenized.packs, trials[0].settings.batch_size);
        Ok(Course {
            attached: vec![false; trials.len()],
            shape,
            trials,
            parallel: self.parallel,
            halving: self.halving,
            eval_every,
            rows,
            samples: Arc::from(tokenized.samples),
            packs: Arc::from(tokenized.packs),
            data,
            mixed: mix.1,
            probe,
            held_out: held_out.ok_or_else(|| Error::bug("a sweep without held-out rows"))?,
            options,
            template,
            recorder,
            made_before: made,
            norms: HashMap::new(),
            groups: Vec::new(),
            begun: Instant::now(),
        })
    }

    /// What `train` would be told of the data that is mixed in: it is read once, and its share set trial by trial.
    fn words_of_mix(&self) -> Result<Option<String>> {
        let most = self.mix.iter().copied().fold(0.0, f64::max);
        match &self.mix_data {
            Some(data) => Ok(Some(format!("--mix={data}:{most}"))),
            None if most > 0.0 => {
                Err(Error::usage("--mix: of which data?").hint("--mix (0 0.1 0.3) --mix-data general.txt"))
            }
            None => Ok(None),
        }
    }
}

/// What `train` would be told of the data and of the steps: rows are held out in any case.
pub(in crate::commands) fn words_of_train(
    session: &Session,
    data: &str,
    shared: &Shared,
    seed: u64,
) -> Result<Vec<String>> {
    session.base()?;
    let mut words = vec![data.to_owned()];
    words.extend(shared.0.iter().cloned());
    words.push(format!("--data-seed={seed}"));
    let says = shared.0.iter().any(|word| word.starts_with("--valid="));
    let name = session.find_data(data, Format::Auto)?.name;
    if !says && !session.data.iter().any(|data| data.name == format!("{name}.valid")) {
        words.push(HELD_OUT.to_owned());
    }
    Ok(words)
}

/// A number that differs where held-out rows do.
fn fingerprint_of(samples: &[Sample]) -> u64 {
    let mut hasher = DefaultHasher::new();
    samples.iter().for_each(|sample| (&sample.ids, &sample.labels).hash(&mut hasher));
    hasher.finish()
}

/// As "sweep on SmolLM2-135M · NF4 · 12 trials, 2 seeds".
fn title(base: &Base, settings: usize, seeds: usize) -> String {
    let seeds_text = if seeds > 1 { format!(", {seeds} seeds") } else { String::new() };
    format!("sweep on {} · {}{seeds_text}", base.title(), units::plural(settings * seeds, "trial"))
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
fn check_names(session: &Session, shape: &Shape, own: Option<&RunRecord>, task: Task<'_>) -> Result<()> {
    let mut kept: Vec<&str> = Vec::new();
    for name in shape.names().iter().chain(shape.settings.iter().map(|setting| &setting.name)) {
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
    task.emit(Event::Sheet(Box::new(report.sheet(true))));
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
    /// How many trials there are.
    pub(super) fn len(&self) -> usize {
        self.settings.len() * self.seeds.len()
    }

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
        (0..self.len()).map(name).collect()
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
