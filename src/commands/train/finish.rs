//! The end of a training: what is kept, told and answered.

use serde_json::{Value, json};

use super::super::arguments::json_number;
use super::super::eval::measure;
use super::mix::{self, mixed};
use crate::data::{DataSet, Sample, TokenizeOptions};
use crate::device::memory;
use crate::error::{Error, Kind, Result};
use crate::eval::Evaluation;
use crate::event::{Cell, Event, RunEnded, Table, Task, loss_chart, smoothed, units};
use crate::render;
use crate::session::{Made, Session, Training};
use crate::train::{HeldOut, Outcome, Probe, Recorder, Run, StepReport};

/// Ends a training: keeps it, tells what came of it, and returns its result with what stopped it.
///
/// # Errors
/// The adapter or the base is gone.
pub(crate) fn end(session: &mut Session, mut training: Training, task: Task<'_>) -> Result<(Value, Option<Error>)> {
    let peak = memory::peak_resident();
    note_data(session, &training.data, &training.options, training.run.held_out.as_ref());
    training.mixed.iter().for_each(|data| session.note_seen(data));
    if !training.run.outcome.losses.is_empty() {
        match &training.adapter {
            Some(name) => {
                let index = session.adapter_index(name)?;
                let live = &mut session.adapters[index];
                live.steps = training.run.saving.steps_before + training.run.trainer.step;
                live.run = Some(training.run.recorder.id.clone());
                live.saved = false;
                if training.template.is_some() {
                    live.template.clone_from(&training.template);
                }
            }
            None => {
                let base = session.base_mut()?;
                (base.trained, base.unsaved) = (true, true);
            }
        }
    }
    training.save(session)?;
    let stopped = training.run.outcome.stopped.take();
    let best = session.backend.peak(session.base()?.decoder.compute);
    let mixed = mixed(&training.run, &training.mixed);
    let ended = ended(&training, best, &mixed, stopped.as_ref());
    let mut answer = answer(&training, best, peak, &ended);
    answer["diverged"] = json!(stopped.as_ref().filter(|e| e.kind() == Kind::Diverged).map(Error::message));
    answer["mix"] = json!(mixed);
    let problem = keep(&mut training.run.recorder, &ended, &answer, task);
    answer["problem"] = json!(problem);
    task.emit(Event::RunEnded(ended));
    session.partial = Some(answer.clone());
    let name = training.name().to_owned();
    let held_out = training.run.held_out.take();
    let last = training.run.outcome.evals.pop().map(|(_, evaluation)| evaluation);
    let is_adapter = training.adapter.is_some();
    keep_version(session, training)?;
    memory::trim();
    if stopped.is_some() {
        let next =
            if is_adapter { vec!["train --resume".to_owned(), "generate \"…\"".to_owned()] } else { Vec::new() };
        task.emit(Event::Next(next));
        return Ok((answer, stopped));
    }
    if let (Some(valid), Some(last), true) = (&held_out, &last, is_adapter) {
        match against_original(session, &valid.data.name, &valid.samples, last, &name, task) {
            Err(error) if !error.is_interrupted() => return Err(error),
            _ => {}
        }
    }
    let mut next = vec!["generate \"…\"".to_owned()];
    if let Some(valid) = &held_out {
        next.push(format!("eval {}", valid.data.name));
    }
    if is_adapter {
        next.push(format!("save-adapter {name} DIR"));
        next.push("merge".to_owned());
    }
    task.emit(Event::Next(next));
    Ok((answer, None))
}

/// Notes what was trained on and what was held out of it, and how both were made samples of.
pub(in crate::commands) fn note_data(
    session: &mut Session,
    data: &DataSet,
    options: &TokenizeOptions,
    held_out: Option<&HeldOut>,
) {
    session.note_seen(data);
    session.tokenized_as.insert(data.name.clone(), options.clone());
    session.held_out = held_out.map(|valid| valid.data.name.clone());
    if let Some(valid) = held_out {
        session.add_data(valid.data.clone());
        session.tokenized_as.insert(valid.data.name.clone(), options.clone());
    }
}

/// Makes a version of the adapter as the training leaves it; the moments move into it.
fn keep_version(session: &mut Session, training: Training) -> Result<()> {
    let Training { run, adapter: Some(name), .. } = training else { return Ok(()) };
    if run.outcome.losses.is_empty() {
        return Ok(());
    }
    let index = session.adapter_index(&name)?;
    let made = Made {
        afresh: run.saving.steps_before == 0 && run.outcome.losses.len() == run.trainer.step,
        loss: smoothed_loss(&run),
        held_out: run.evaluations().filter(|(step, _)| *step == run.trainer.step).last().map(|(_, loss)| loss),
        training: Some((run.position(), run.trainer.into_optimizer())),
    };
    session.adapters[index].make_version(made);
    session.settle_versions();
    Ok(())
}

/// What the chart of the run says of its last step.
fn smoothed_loss(run: &Run) -> Option<f64> {
    let earlier = run.earlier.0.iter().map(|(_, loss)| *loss);
    smoothed(&earlier.chain(run.outcome.losses.iter().map(|l| l.loss)).collect::<Vec<_>>()).pop()
}

/// Writes charts and result of the run; what could not be written is told and returned, not fatal.
fn keep(recorder: &mut Recorder, ended: &RunEnded, answer: &Value, task: Task<'_>) -> Option<String> {
    let mut result = answer.clone();
    result["sentence"] = json!(ended.sentence);
    recorder.file("result.json", format!("{result:#}\n").as_bytes());
    recorder.file("loss.svg", render::svg(&ended.chart, render::Theme::Light).as_bytes());
    match render::png(&ended.chart, render::Theme::Light) {
        Ok(png) => recorder.file("loss.png", &png),
        Err(error) => task.emit(Event::Warning(error.message().to_owned())),
    }
    let problem = recorder.problem()?.to_string();
    task.emit(Event::Warning(format!("the run could not be kept whole: {problem}")));
    Some(problem)
}

/// On a quantized base: original, base and adapter side by side, so that what merely repairs quantization does not look like
/// learning.
fn against_original(
    session: &mut Session,
    data: &str,
    samples: &[Sample],
    last: &Evaluation,
    name: &str,
    task: Task<'_>,
) -> Result<()> {
    if !session.base()?.is_quantized() {
        return Ok(());
    }
    let mut rows = Vec::new();
    for subject in ["original", "base"] {
        rows.push((subject, measure(session, subject, samples, 1.0, task)?));
    }
    rows.push((name, last.clone()));
    let cells = rows.iter().map(|(subject, e)| {
        let stderr = if e.stderr.is_finite() { Cell::Number(e.stderr, 4) } else { Cell::Empty };
        vec![Cell::from(*subject), Cell::Number(e.loss, 4), stderr, Cell::Number(e.perplexity(), 2)]
    });
    let note = learnt(rows[0].1.loss, rows[1].1.loss, last.loss, name);
    task.emit(Event::Table(Table {
        title: format!("loss on {data}"),
        columns: vec!["adapter", "loss", "±", "perplexity"],
        rows: cells.collect(),
        best: None,
        note,
    }));
    Ok(())
}

/// What of a gain was learnt and what merely repairs quantization.
pub(in crate::commands) fn learnt(original: f64, base: f64, adapter: f64, name: &str) -> String {
    let (cost, gain) = (base - original, base - adapter);
    if cost <= 0.0 {
        return format!("quantization cost nothing here; {name} changes the loss by {}", signed(-gain));
    }
    if gain <= 0.0 {
        return format!("quantization cost {cost:.2}, and {name} is {:.2} above that: nothing was learnt yet", -gain);
    }
    if gain <= cost {
        return format!(
            "quantization cost {cost:.2}, {name} regains {gain:.2} of it: still {:.2} above the original, so this is repair, not yet learning",
            adapter - original
        );
    }
    format!(
        "quantization cost {cost:.2}, which {name} makes good; {:.2} beyond the original was learnt",
        original - adapter
    )
}

fn signed(x: f64) -> String {
    format!("{x:+.2}").replace('-', "−")
}

/// The sentence that says the result, and the chart.
fn ended(training: &Training, best: Option<f64>, mixed: &[Value], stopped: Option<&Error>) -> RunEnded {
    let run = &training.run;
    let (outcome, step) = (&run.outcome, run.trainer.step);
    let made = units::plural(outcome.losses.len(), "step");
    let mut sentence = format!("{}: {made} in {}", training.name(), units::seconds(outcome.worked.as_secs_f64()));
    if !outcome.losses.is_empty() {
        let speed = outcome.tokens as f64 / outcome.trained.as_secs_f64();
        let share = |best| format!(", {:.0} % of the processor's peak", 100.0 * operations_per_second(outcome) / best);
        sentence +=
            &format!(" ({} tokens/s{})", units::count(speed.round() as u64), best.map_or_else(String::new, share));
    }
    if step > outcome.losses.len() {
        sentence += &format!(", {} in all", units::count(step as u64));
    }
    match stopped {
        Some(error) if error.is_interrupted() => {
            sentence +=
                &format!(", interrupted before step {}; every finished step is kept", units::count(step as u64 + 1))
        }
        Some(error) => sentence += &format!(", stopped: {}", error.message()),
        None if outcome.early => sentence += ", stopped early: the held-out loss fell no more",
        None => {}
    }
    sentence += ".";
    let first = run.evaluations().next();
    match (first, outcome.evals.last()) {
        (Some((at, first)), Some((step, last))) if at != *step => {
            let spread = if last.stderr.is_finite() { format!(" ± {:.2}", last.stderr) } else { String::new() };
            sentence += &format!(" Held-out loss {first:.2} → {:.2}{spread}", last.loss);
            match run.lowest() {
                Some((lowest, _)) if lowest != *step => {
                    sentence += &format!(", lowest at step {}.", units::count(lowest as u64))
                }
                _ => sentence += ".",
            }
        }
        _ => {
            if let (Some(begun), Some(last)) = (outcome.losses.first(), outcome.losses.last()) {
                sentence += &format!(" Loss {:.2} → {:.2}", begun.loss, last.loss);
                sentence += &match run.held_out {
                    Some(_) => first.map_or(".".to_owned(), |(at, loss)| format!("; held out {loss:.2} at step {at}.")),
                    None => "; nothing was held out, so this is what it was trained on (--valid 0.1).".to_owned(),
                };
            }
        }
    }
    if let Some(told) = run.probe.as_ref().and_then(|probe| probe.sentence(step)) {
        sentence += &format!(" {told}.");
    }
    if let Some(told) = mix::sentence(mixed) {
        sentence += &format!(" {told}.");
    }
    let kept = format!("{} · configuration, metrics, chart, adapter", run.recorder.dir().display());
    let first = step + 1 - outcome.losses.len();
    let mut losses = run.earlier.0.clone();
    losses.extend(outcome.losses.iter().enumerate().map(|(i, l)| (first + i, l.loss)));
    RunEnded {
        sentence,
        kept,
        interrupted: stopped.is_some(),
        // Of a run that was stopped only what there is: it may have been a hundredth of the way.
        chart: loss_chart(
            "",
            &losses,
            &run.evaluations().collect::<Vec<_>>(),
            if stopped.is_some() { step } else { run.end() },
        )
        .with_probes(&run.probe.as_ref().map_or(Vec::new(), Probe::all)),
    }
}

/// Operations that the steps needed, by the seconds they took.
fn operations_per_second(outcome: &Outcome) -> f64 {
    outcome.losses.iter().map(|l| l.operations).sum::<f64>() / outcome.trained.as_secs_f64()
}

fn answer(training: &Training, best: Option<f64>, peak: u64, ended: &RunEnded) -> Value {
    let Run { outcome, recorder, trainer, .. } = &training.run;
    let each = |of: fn(&StepReport) -> f64| outcome.losses.iter().map(|l| json_number(of(l))).collect::<Vec<_>>();
    let mut answer = json!({
        "run": recorder.id,
        "path": recorder.dir().display().to_string(),
        "steps": outcome.losses.len(),
        "first_step": trainer.step - outcome.losses.len() + 1,
        "tokens": outcome.tokens,
        "loss": outcome.losses.last().map_or(Value::Null, |l| json_number(l.loss)),
        "losses": each(|l| l.loss),
        "grad_norms": each(|l| l.grad_norm),
        "learning_rates": each(|l| l.learning_rate),
        "eval_losses": outcome.evals.iter().map(|(step, e)| json!({"step": step, "loss": json_number(e.loss)})).collect::<Vec<_>>(),
        "tokens_per_second": json_number(outcome.tokens as f64 / outcome.trained.as_secs_f64()),
        "peak_share": best.map_or(Value::Null, |best| json_number(operations_per_second(outcome) / best)),
        "peak_memory_bytes": peak,
        "seconds": outcome.worked.as_secs_f64(),
        "interrupted": ended.interrupted,
    });
    let points = |points: &[(usize, f64)]| -> Vec<Value> {
        points.iter().map(|(step, loss)| json!({"step": step, "loss": json_number(*loss)})).collect()
    };
    let number = |loss: Option<f64>| loss.map_or(Value::Null, json_number);
    let probe = training.run.probe.as_ref();
    answer["probe"] = json!(probe.map(|probe| &probe.name));
    answer["probe_losses"] = json!(probe.map_or(Vec::new(), |probe| points(&probe.losses)));
    answer["probe_before"] = number(probe.and_then(Probe::before));
    answer["probe_after"] = number(probe.and_then(|probe| probe.after(trainer.step)));
    if training.sample.is_some() {
        let sample = |(step, text): &(usize, String)| json!({"step": step, "text": text});
        answer["samples"] = training.samples.iter().map(sample).collect();
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repair_is_not_called_learning() {
        assert!(learnt(4.33, 4.66, 4.43, "a").contains("regains 0.23 of it: still 0.10 above the original"));
        assert!(learnt(4.25, 4.56, 3.81, "a").contains("0.44 beyond the original was learnt"));
        assert!(learnt(4.25, 4.56, 4.60, "a").contains("0.04 above that: nothing was learnt"));
        assert!(learnt(4.25, 4.20, 4.00, "a").contains("cost nothing here; a changes the loss by −0.20"));
    }
}
