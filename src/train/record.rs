//! Runs on disk: `runs/<id>/` with the configuration, every step, the adapter and its chart.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::eval::diagnosis::Made;
use crate::event::Step;

/// The folder of all runs.
#[derive(Debug, Clone)]
pub struct Runs {
    root: PathBuf,
}

impl Runs {
    /// `LORALAB_RUNS`, else `runs` in the working directory. Nothing is created yet.
    #[must_use]
    pub fn from_env() -> Self {
        Self::at(
            std::env::var_os("LORALAB_RUNS").filter(|v| !v.is_empty()).map_or_else(|| "runs".into(), PathBuf::from),
        )
    }

    /// Runs in the folder `root`.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder, which need not exist yet.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Begins a run under the next free number and writes its configuration.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn begin(&self, config: &Value) -> Result<Recorder> {
        let fail = |e: io::Error| {
            Error::io("create a run in", &self.root, e).hint("set LORALAB_RUNS to a folder that can be written")
        };
        fs::create_dir_all(&self.root).map_err(fail)?;
        let mut number = self.numbers().last().map_or(1, |n| n + 1);
        let (id, dir) = loop {
            let id = format!("{number:04}");
            let dir = self.root.join(&id);
            // Making the folder is the claim: two sessions in one working directory never share a run.
            match fs::create_dir(&dir) {
                Ok(()) => break (id, dir),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(e) => return Err(fail(e)),
            }
        };
        Recorder::open(id, dir.clone(), config, true).inspect_err(|_| {
            // Nothing has begun.
            let _ = fs::remove_dir_all(&dir);
        })
    }

    /// Begins a run within the run `id`, under this name, or goes on with it from `step`.
    ///
    /// # Errors
    /// Its folder cannot be made or written.
    pub fn begin_within(&self, id: &str, name: &str, config: &Value, step: usize) -> Result<Recorder> {
        let run = RunRecord { id: format!("{id}/{name}"), config: Value::Null, dir: self.root.join(id).join(name) };
        fs::create_dir_all(&run.dir).map_err(|e| Error::io("create", &run.dir, e))?;
        if run.dir.join("metrics.jsonl").exists() {
            return self.reopen(&run, config, step);
        }
        Recorder::open(run.id, run.dir, config, true)
    }

    /// Goes on writing a run, whose configuration is now `config`. What was written of steps after `step` is taken back: a
    /// kill came before they were saved.
    ///
    /// # Errors
    /// Its folder cannot be written.
    pub fn reopen(&self, run: &RunRecord, config: &Value, step: usize) -> Result<Recorder> {
        let path = run.dir.join("metrics.jsonl");
        let (text, lines) = run.metrics_until(step)?;
        if lines != text {
            crate::files::write(&path, |w| w.write_all(lines.as_bytes()))?;
        }
        Recorder::open(run.id.clone(), run.dir.clone(), config, false)
    }

    /// Begins a run that goes on from `step` of another, which stays as it is.
    ///
    /// # Errors
    /// As [`Runs::begin`]; what was written of the other cannot be read.
    pub fn branch(&self, run: &RunRecord, config: &Value, step: usize) -> Result<Recorder> {
        let (_, lines) = run.metrics_until(step)?;
        let mut recorder = self.begin(config)?;
        let written = recorder.metrics.write_all(lines.as_bytes());
        recorder.note(written.map_err(|e| Error::io("write", &recorder.dir.join("metrics.jsonl"), e)));
        Ok(recorder)
    }

    fn numbers(&self) -> Vec<u64> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut numbers: Vec<u64> = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Every run that can be read, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<RunRecord> {
        self.numbers().into_iter().filter_map(|n| self.open(&format!("{n:04}")).ok()).collect()
    }

    /// One run by its id, leading zeros optional.
    ///
    /// # Errors
    /// There is none, or its configuration cannot be read.
    pub fn open(&self, id: &str) -> Result<RunRecord> {
        let id = id.parse::<u64>().map_or_else(|_| id.to_owned(), |n| format!("{n:04}"));
        let dir = self.root.join(&id);
        let path = dir.join("config.json");
        let text = fs::read_to_string(&path).map_err(|e| {
            let error = match e.kind() {
                io::ErrorKind::NotFound => Error::not_found(format!("there is no run {id}")),
                _ => Error::io("read", &path, e).context(format!("run {id}")),
            };
            error.hint("runs lists the runs there are")
        })?;
        let config = serde_json::from_str(&text).map_err(|e| Error::format(format!("{}: {e}", path.display())))?;
        Ok(RunRecord { id, config, dir })
    }
}

/// A run on disk.
pub struct RunRecord {
    pub id: String,
    /// What it was to do: model, adapter, data, settings.
    pub config: Value,
    pub dir: PathBuf,
}

impl RunRecord {
    /// How it ended, if it did.
    #[must_use]
    pub fn result(&self) -> Option<Value> {
        serde_json::from_str(&fs::read_to_string(self.dir.join("result.json")).ok()?).ok()
    }

    /// Losses by step, and held-out losses by step.
    #[must_use]
    pub fn curves(&self) -> (Vec<(usize, f64)>, Vec<(usize, f64)>) {
        let metrics = self.metrics();
        let of = |key: &str| metrics.iter().filter_map(|(step, line)| Some((*step, line[key].as_f64()?))).collect();
        (of("loss"), of("eval_loss"))
    }

    /// Losses on the general text, by step; none of a run without one.
    #[must_use]
    pub fn probes(&self) -> Vec<(usize, f64)> {
        self.metrics().iter().filter_map(|(step, line)| Some((*step, line["probe"].as_f64()?))).collect()
    }

    /// Every step that was made; what is not a finite number is NaN.
    #[must_use]
    pub fn steps(&self) -> Vec<Made> {
        let made = |(step, line): (usize, Value)| {
            let number = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
            let (loss, grad_norm, learning_rate) = (number("loss"), number("grad_norm"), number("learning_rate"));
            line.get("grad_norm").map(|_| Made { step, loss, grad_norm, learning_rate })
        };
        self.metrics().into_iter().filter_map(made).collect()
    }

    /// What the adapter said, by step.
    #[must_use]
    pub fn samples(&self) -> Vec<(usize, String)> {
        let text = |(step, line): &(usize, Value)| Some((*step, line["sample"].as_str()?.to_owned()));
        self.metrics().iter().filter_map(text).collect()
    }

    /// What was written of its steps, and of those up to `step`.
    fn metrics_until(&self, step: usize) -> Result<(String, String)> {
        let path = self.dir.join("metrics.jsonl");
        let text = fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        let kept = |line: &&str| {
            let value: Option<Value> = serde_json::from_str(line).ok();
            value.is_some_and(|v| v["step"].as_u64().is_some_and(|s| s as usize <= step))
        };
        let lines = text.lines().filter(kept).map(|line| format!("{line}\n")).collect();
        Ok((text, lines))
    }

    /// Every line of the metrics with its step. A line cut off by a kill is left out.
    fn metrics(&self) -> Vec<(usize, Value)> {
        let text = fs::read_to_string(self.dir.join("metrics.jsonl")).unwrap_or_default();
        let line = |line: &str| {
            let value: Value = serde_json::from_str(line).ok()?;
            Some((value["step"].as_u64()? as usize, value))
        };
        text.lines().filter_map(line).collect()
    }
}

/// Writes a run while it goes on. Failing to write does not stop training; the first problem is kept to be told.
pub struct Recorder {
    pub id: String,
    dir: PathBuf,
    metrics: File,
    is_new: bool,
    problem: Option<Error>,
}

impl Recorder {
    fn open(id: String, dir: PathBuf, config: &Value, is_new: bool) -> Result<Self> {
        let text = serde_json::to_string_pretty(config).unwrap_or_default();
        crate::files::write(&dir.join("config.json"), |w| writeln!(w, "{text}"))?;
        let path = dir.join("metrics.jsonl");
        let metrics =
            OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io("write", &path, e))?;
        Ok(Self { id, dir, metrics, is_new, problem: None })
    }

    /// The folder of the run.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether its folder was made for it, not for an earlier part of the run.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Notes a step.
    pub fn step(&mut self, step: &Step) {
        self.line(&json!({
            "step": step.step,
            "loss": step.loss,
            "grad_norm": step.grad_norm,
            "learning_rate": step.learning_rate,
            "tokens": step.tokens,
            "seconds": (step.elapsed.as_secs_f64() * 1e3).round() / 1e3,
            "resident_bytes": step.resident_bytes,
        }));
    }

    /// Notes what the adapter says after so many steps.
    pub fn sampled(&mut self, step: usize, text: &str) {
        self.line(&json!({"step": step, "sample": text}));
    }

    /// Notes an evaluation after so many steps: the loss on the held-out rows, and that on the general text, as far as they were
    /// scored.
    pub fn evaluated(&mut self, step: usize, held_out: Option<f64>, probe: Option<f64>) {
        let mut line = json!({"step": step});
        for (key, loss) in [("eval_loss", held_out), ("probe", probe)] {
            if let Some(loss) = loss {
                line[key] = json!(loss);
            }
        }
        self.line(&line);
    }

    fn line(&mut self, value: &Value) {
        // One write a line: a kill cuts off the last line at most.
        let written = self.metrics.write_all(format!("{value}\n").as_bytes());
        self.note(written.map_err(|e| Error::io("write", &self.dir.join("metrics.jsonl"), e)));
    }

    pub(super) fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.problem.get_or_insert(error);
        }
    }

    /// Notes how saving the adapter as `name` went.
    pub fn adapter(&mut self, name: &str, saved: Result<()>) {
        self.note(saved.map_err(|e| e.context(name)));
    }

    /// Writes a file of the run; a failure is kept to be told.
    pub fn file(&mut self, name: &str, content: &[u8]) {
        let written = crate::files::write(&self.dir.join(name), |w| w.write_all(content));
        self.note(written);
    }

    /// Takes the run's folder away: nothing has happened in it.
    pub fn discard(self) {
        // What cannot be removed lies there without metrics, and harms nobody.
        let _ = fs::remove_dir_all(&self.dir);
    }

    /// The first thing that could not be written.
    pub fn problem(&mut self) -> Option<Error> {
        self.problem.take()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("loralab-runs-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn step(step: usize, loss: f64) -> Step {
        Step {
            step,
            loss,
            grad_norm: 1.0,
            learning_rate: 1e-3,
            tokens: 9,
            elapsed: Duration::from_secs(1),
            resident_bytes: 1,
        }
    }

    #[test]
    fn a_run_can_be_read_back_and_numbers_are_not_reused() {
        let root = scratch("back");
        fs::create_dir_all(root.join("0002")).unwrap();
        let runs = Runs::at(root.clone());
        let mut recorder = runs.begin(&json!({"adapter": "r16"})).unwrap();
        assert_eq!(recorder.id, "0003");
        recorder.step(&step(1, 2.5));
        recorder.evaluated(1, Some(2.25), Some(3.5));
        recorder.evaluated(2, None, None);
        recorder.step(&step(2, f64::NAN));
        drop(recorder);
        // A kill in the middle of a line.
        let mut file = OpenOptions::new().append(true).open(root.join("0003/metrics.jsonl")).unwrap();
        file.write_all(b"{\"step\": 3, \"lo").unwrap();
        let run = runs.open("3").unwrap();
        assert_eq!(run.config["adapter"], "r16");
        assert_eq!(run.curves(), (vec![(1, 2.5)], vec![(1, 2.25)]));
        let steps = run.steps();
        assert_eq!((steps.len(), steps[0].loss, steps[0].learning_rate), (2, 2.5, 1e-3));
        assert!(steps[1].loss.is_nan());
        assert_eq!(run.probes(), [(1, 3.5)]);
        assert!(run.result().is_none());
        // Gone on with from step 1, whatever was noted behind it.
        let mut recorder = runs.reopen(&run, &json!({"adapter": "r16", "steps": 4}), 1).unwrap();
        recorder.step(&step(2, 2.125));
        recorder.evaluated(2, None, Some(3.625));
        recorder.sampled(2, "so be it");
        drop(recorder);
        let run = runs.open("0003").unwrap();
        assert_eq!(run.config["steps"], 4);
        assert_eq!(run.curves(), (vec![(1, 2.5), (2, 2.125)], vec![(1, 2.25)]));
        assert_eq!(run.probes(), [(1, 3.5), (2, 3.625)]);
        assert_eq!(run.samples(), [(2, "so be it".to_owned())]);
        // 0002 has no configuration: it is no run.
        assert_eq!(runs.list().len(), 1);
        assert!(runs.open("7").err().unwrap().hint_text().unwrap().contains("runs"));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_root_that_is_a_file_is_refused() {
        let root = scratch("file");
        fs::write(&root, "x").unwrap();
        let error = Runs::at(root.clone()).begin(&json!({})).err().unwrap();
        assert!(error.hint_text().unwrap().contains("LORALAB_RUNS"));
        fs::remove_file(root).unwrap();
    }
}
