//! A comparison as people see it and as programs do: a chart, a table, a result.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::arguments::json_number;
use crate::eval::t95;
use crate::event::{Cell, Chart, Series, Sheet, Style, Table, units};
use crate::train::{Piece, Run};

/// Letters of a reason in the table.
const REASON: usize = 48;

/// A way of fine-tuning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Method {
    /// Every weight of the model
    Full,
    /// An adapter over the model as it is
    Lora,
    /// An adapter over the model in NF4
    Qlora,
}

impl Method {
    /// As it is typed; also the name of its adapter.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Lora => "lora",
            Self::Qlora => "qlora",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Full => "full fine-tuning",
            Self::Lora => "LoRA",
            Self::Qlora => "QLoRA",
        }
    }
}

/// How far a method has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Waiting,
    Training,
    Done,
    /// An interrupt came.
    Stopped,
    /// It cannot go on, with the reason.
    Failed(String),
}

/// A held-out loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Scored {
    pub(super) loss: f64,
    /// Over rows; none for a single row.
    #[serde(deserialize_with = "number_or_nan")]
    pub(super) stderr: f64,
    /// Summed NLL and scored tokens of each row.
    pub(super) rows: Vec<(f64, usize)>,
}

/// What a method takes and brings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) method: Method,
    pub(super) state: State,
    pub(super) run: String,
    pub(super) learning_rate: f64,
    pub(super) trainable_parameters: u64,
    /// Of each step.
    pub(super) losses: Vec<f64>,
    /// Held-out losses by step, that before the first step included, as far as they are finite.
    pub(super) evals: Vec<(usize, f64)>,
    /// As in [`Scored`], of the last evaluation.
    pub(super) rows: Vec<(f64, usize)>,
    /// Input tokens of all steps.
    pub(super) tokens: usize,
    /// Evaluations included.
    pub(super) seconds: f64,
    /// Optimizer steps alone.
    pub(super) training_seconds: f64,
    /// The most that its buffers took together in a step: weights, what is trained, activations, scratch.
    pub(super) peak_memory_bytes: u64,
    /// Of these the weights of the base, and the activations of training.
    pub(super) base_bytes: u64,
    pub(super) activation_bytes: u64,
    /// Of the file that holds what was trained.
    pub(super) file_bytes: Option<u64>,
}

impl Measured {
    pub(super) fn new(method: Method, learning_rate: f64, trainable_parameters: u64) -> Self {
        Self {
            method,
            state: State::Waiting,
            run: String::new(),
            learning_rate,
            trainable_parameters,
            losses: Vec::new(),
            evals: Vec::new(),
            rows: Vec::new(),
            tokens: 0,
            seconds: 0.0,
            training_seconds: 0.0,
            peak_memory_bytes: 0,
            base_bytes: 0,
            activation_bytes: 0,
            file_bytes: None,
        }
    }

    /// Notes what a piece of its run has brought; `peak` are the bytes that it took at most.
    pub(super) fn note(&mut self, run: &Run, piece: Piece, peak: u64) {
        let outcome = &run.outcome;
        match piece {
            Piece::Step => {
                self.losses.extend(outcome.losses.last().map(|step| step.loss));
                self.peak_memory_bytes = self.peak_memory_bytes.max(peak);
            }
            _ => {
                if let Some((step, evaluation)) = outcome.evals.last().filter(|(_, e)| e.loss.is_finite()) {
                    self.evals.push((*step, evaluation.loss));
                    self.rows.clone_from(&evaluation.rows);
                }
            }
        }
        self.tokens = outcome.tokens;
        (self.seconds, self.training_seconds) = (outcome.worked.as_secs_f64(), outcome.trained.as_secs_f64());
    }

    /// The held-out loss before the first step.
    pub(super) fn before(&self) -> Option<f64> {
        self.evals.first().map(|(_, loss)| *loss)
    }

    /// The held-out loss after all steps.
    pub(super) fn after(&self) -> Option<f64> {
        let (step, loss) = self.evals.last().filter(|_| self.state == State::Done)?;
        (*step == self.losses.len()).then_some(*loss)
    }

    pub(super) fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.training_seconds
    }
}

/// A share with its uncertainty over held-out rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    pub(super) mean: f64,
    pub(super) stderr: f64,
    /// Half of the interval that holds it with a probability of 95 %.
    pub(super) half: f64,
}

/// A comparison as far as it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Comparison {
    pub(super) title: String,
    /// The name of the held-out rows.
    pub(super) data: String,
    /// Steps of each method.
    pub(super) steps: usize,
    /// Of the base.
    pub(super) parameters: u64,
    /// The settings of the adapters.
    pub(super) lora: String,
    /// The model as it was loaded, before anything was trained.
    pub(super) original: Option<Scored>,
    pub(super) methods: Vec<Measured>,
}

impl Comparison {
    pub(super) fn of(&self, method: Method) -> Option<&Measured> {
        self.methods.iter().find(|one| one.method == method)
    }

    /// The share of full fine-tuning's gain in held-out loss that a method has, if both are done and that gain is one.
    pub(super) fn quality(&self, one: &Measured) -> Option<Share> {
        let (original, full) = (self.original.as_ref()?, self.of(Method::Full)?);
        full.after().and(one.after())?;
        share(&original.rows, &one.rows, &full.rows)
    }

    /// The chart and the table as they stand.
    pub(super) fn sheet(&self, ends: bool) -> Sheet {
        let series = self.methods.iter().filter(|one| !one.evals.is_empty()).map(|one| Series {
            name: one.evals.last().map_or_else(String::new, |(_, loss)| format!("{} {loss:.2}", one.method.title())),
            points: one.evals.iter().map(|(step, loss)| (*step as f64, *loss)).collect(),
            style: Style::Points,
        });
        let chart = Chart {
            title: self.title.clone(),
            x: "step",
            y: "held-out loss",
            series: series.collect(),
            x_max: Some(self.steps as f64),
        };
        Sheet { chart, table: self.table(), ends, spare: Vec::new() }
    }

    fn table(&self) -> Table {
        let mut columns =
            vec!["method", "memory", "time", "quality", "before", "after", "trained", "lr", "tokens/s", "base", "file"];
        let states: Vec<String> = self.methods.iter().map(|one| self.state(one)).collect();
        let has_state = states.iter().any(|state| !state.is_empty());
        if has_state {
            columns.push("state");
        }
        let rows = self.methods.iter().zip(states).map(|(one, state)| {
            let mut row = self.row(one);
            row.extend(has_state.then_some(Cell::Text(state)));
            row
        });
        Table { columns, rows: rows.collect(), note: self.note(), ..Table::default() }
    }

    fn row(&self, one: &Measured) -> Vec<Cell> {
        let loss = |loss: Option<f64>| loss.map_or(Cell::Empty, |loss| Cell::Number(loss, 3));
        let bytes = |bytes: u64| if bytes == 0 { Cell::Empty } else { Cell::Bytes(bytes) };
        let made = !one.losses.is_empty();
        vec![
            Cell::from(if one.method == Method::Full { "full" } else { one.method.title() }),
            bytes(one.peak_memory_bytes),
            if made { Cell::Seconds(one.training_seconds) } else { Cell::Empty },
            self.quality(one).map_or(Cell::Empty, |quality| Cell::Text(quality.text())),
            loss(one.before()),
            loss(one.after()),
            Cell::Share(self.trainable_share(one)),
            Cell::Text(format!("{:e}", one.learning_rate)),
            if made { Cell::Count(one.tokens_per_second().round() as u64) } else { Cell::Empty },
            bytes(one.base_bytes),
            bytes(one.file_bytes.unwrap_or(0)),
        ]
    }

    /// How a method stands, where it has not simply made all its steps.
    fn state(&self, one: &Measured) -> String {
        let step = one.losses.len();
        match &one.state {
            State::Done => String::new(),
            State::Waiting => "waiting".to_owned(),
            State::Training => format!("{step} of {}", self.steps),
            State::Stopped => format!("stopped at {step} of {}", self.steps),
            State::Failed(reason) => format!("failed: {}", reason.chars().take(REASON).collect::<String>()),
        }
    }

    fn note(&self) -> String {
        let rows = self.original.as_ref().map_or(0, |original| original.rows.len());
        let adapters = self.methods.iter().find(|one| one.method != Method::Full).map_or_else(String::new, |one| {
            format!("; adapters: {}, {} parameters", self.lora, units::short(one.trainable_parameters))
        });
        format!(
            "quality: the share of full fine-tuning's gain, ± 95 % paired over {}; before, after: loss on {}; \
             memory: the most that weights, trained state, activations and scratch took together; time: optimizer steps; \
             file: the adapter, or every weight in f32{adapters}",
            units::plural(rows, "held-out row"),
            self.data,
        )
    }

    fn trainable_share(&self, one: &Measured) -> f64 {
        let trained = one.trainable_parameters as f64;
        if one.method == Method::Full { 1.0 } else { trained / (self.parameters as f64 + trained) }
    }

    /// What programs get of it.
    pub(super) fn answer(&self) -> Value {
        let method = |one: &Measured| {
            let quality = self.quality(one);
            let (state, reason) = match &one.state {
                State::Waiting => ("waiting", None),
                State::Training => ("training", None),
                State::Done => ("done", None),
                State::Stopped => ("stopped", None),
                State::Failed(reason) => ("failed", Some(reason)),
            };
            let evals = one.evals.iter().map(|(step, loss)| json!({"step": step, "loss": json_number(*loss)}));
            json!({
                "method": one.method.name(),
                "state": state,
                "reason": reason,
                "run": if one.run.is_empty() { Value::Null } else { json!(one.run) },
                "adapter": (one.method != Method::Full && !one.losses.is_empty()).then_some(one.method.name()),
                "learning_rate": one.learning_rate,
                "steps": one.losses.len(),
                "loss": one.losses.last(),
                "losses": one.losses,
                "loss_before": one.before().map(json_number),
                "eval_loss": one.after(),
                "eval_losses": evals.collect::<Vec<_>>(),
                "quality": quality.map(|share| json_number(share.mean)),
                "quality_stderr": quality.map(|share| json_number(share.stderr)),
                "quality_interval": quality.map(|share| json_number(share.half)),
                "tokens": one.tokens,
                "tokens_per_second": json_number(one.tokens_per_second()),
                "seconds": one.seconds,
                "training_seconds": one.training_seconds,
                "peak_memory_bytes": one.peak_memory_bytes,
                "base_bytes": one.base_bytes,
                "activation_bytes": one.activation_bytes,
                "trainable_parameters": one.trainable_parameters,
                "trainable_percent": 100.0 * self.trainable_share(one),
                "file_bytes": one.file_bytes,
            })
        };
        json!({
            "steps": self.methods.iter().map(|one| one.losses.len()).sum::<usize>(),
            "data": self.data,
            "original_loss": self.original.as_ref().map(|original| json_number(original.loss)),
            "original_stderr": self.original.as_ref().map(|original| json_number(original.stderr)),
            "methods": self.methods.iter().map(method).collect::<Vec<_>>(),
            "remarks": self.remarks(),
        })
    }
}

impl Share {
    /// As `93 ± 5 %`.
    pub(super) fn text(self) -> String {
        let half = if self.half.is_finite() && self.half > 0.0 {
            format!(" ± {:.0}", 100.0 * self.half)
        } else {
            String::new()
        };
        format!("{:.0}{half} %", 100.0 * self.mean).replace('-', "−")
    }
}

/// `(original − method) / (original − full)` in summed NLL over rows that all were scored on, with the standard error of such a ratio
/// (Cochran, Sampling Techniques, 6.4); none if full fine-tuning's own gain is not beyond noise.
fn share(original: &[(f64, usize)], method: &[(f64, usize)], full: &[(f64, usize)]) -> Option<Share> {
    if original.is_empty() || original.len() != method.len() || original.len() != full.len() {
        return None;
    }
    let n = original.len() as f64;
    let t = if n > 1.0 { t95(n - 1.0) } else { f64::NAN };
    let gains = |of: &[(f64, usize)]| -> Vec<f64> { original.iter().zip(of).map(|(a, b)| a.0 - b.0).collect() };
    let (gained, whole) = (gains(method), gains(full));
    let sum = |values: &[f64]| values.iter().sum::<f64>();
    // The error of a sum of n values with these deviations.
    let error =
        |deviations: &mut dyn Iterator<Item = f64>| (deviations.map(|d| d * d).sum::<f64>() * n / (n - 1.0)).sqrt();
    let mean = sum(&whole) / n;
    let noise = t * error(&mut whole.iter().map(|gain| gain - mean));
    if sum(&whole) <= 0.0 || sum(&whole) <= noise {
        return None;
    }
    let mean = sum(&gained) / sum(&whole);
    let stderr = error(&mut gained.iter().zip(&whole).map(|(a, b)| a - mean * b)) / sum(&whole);
    Some(Share { mean, stderr, half: t * stderr })
}

/// JSON has no NaN: it was written as null.
fn number_or_nan<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[f64]) -> Vec<(f64, usize)> {
        values.iter().map(|value| (*value, 2)).collect()
    }

    #[test]
    fn quality_is_a_share_of_the_gain_paired_over_rows() {
        let original = rows(&[4.0, 9.0, 2.0, 7.0]);
        let full = rows(&[3.0, 7.0, 1.5, 5.5]);
        let same = share(&original, &full, &full).unwrap();
        assert_eq!((same.mean, same.stderr, same.text().as_str()), (1.0, 0.0, "100 %"));
        // Each row gains four fifths of what full fine-tuning gains there: no doubt about the share, however unlike the rows.
        let fifths: Vec<f64> = original.iter().zip(&full).map(|(a, b)| a.0 - 0.8 * (a.0 - b.0)).collect();
        let most = share(&original, &rows(&fifths), &full).unwrap();
        assert!((most.mean - 0.8).abs() < 1e-12 && most.half < 1e-9, "{most:?}");
        // Residuals of 0.5, −0.5, 0, 0 around 4.5 of 5: sqrt(0.5 · 4/3) / 5.
        let uneven = share(&original, &rows(&[2.6, 7.7, 1.55, 5.65]), &full).unwrap();
        assert!((uneven.mean - 0.9).abs() < 1e-12, "{uneven:?}");
        assert!((uneven.stderr - (0.5f64 * 4.0 / 3.0).sqrt() / 5.0).abs() < 1e-9, "{uneven:?}");
        assert!(uneven.half > 2.0 * uneven.stderr);
    }

    #[test]
    fn of_no_gain_there_is_no_share() {
        let original = rows(&[4.0, 9.0, 2.0]);
        assert_eq!(share(&original, &original, &original), None);
        assert_eq!(share(&original, &original, &rows(&[5.0, 9.0, 2.0])), None);
        // A gain that the rows do not agree on is noise.
        assert_eq!(share(&original, &original, &rows(&[1.0, 9.5, 3.0])), None);
        // A single row has no noise that could be told.
        let single = share(&rows(&[4.0]), &rows(&[3.0]), &rows(&[2.0])).unwrap();
        assert_eq!((single.mean, single.half.is_nan(), single.text().as_str()), (0.5, true, "50 %"));
        assert_eq!(share(&[], &[], &[]), None);
        assert_eq!(share(&original, &rows(&[1.0]), &original), None);
    }
}
