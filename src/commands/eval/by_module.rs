//! `eval --by-module`: which modules of an adapter did the work.

use serde_json::{Value, json};

use crate::commands::arguments::json_number;
use crate::error::{Error, Result};
use crate::eval::modules::derivatives;
use crate::eval::{Difference, Evaluation, evaluate_with};
use crate::event::{Cell, Event, Heat, HeatScale, Table, Task, units};
use crate::lora::LinearInfo;
use crate::session::{Session, TrainingData};

/// Modules that are switched off if nothing else is asked for.
const CHECKED: usize = 5;

/// The part of one module in the gain.
struct Work<'a> {
    index: usize,
    linear: &'a LinearInfo,
    /// In nats, by the derivative; negative where the module does harm.
    gain: f64,
}

/// Checks that an adapter's way begins at the base and has a length.
///
/// # Errors
/// The original model is asked for, a combination of adapters, or a scale of 0.
pub(super) fn check(subjects: &[String], scale: f64) -> Result<()> {
    let name = &subjects[1];
    if subjects[0] == "original" {
        return Err(Error::usage("--by-module begins at the base as it stands, not at the original")
            .hint(format!("--adapters base,{name}")));
    }
    if name.contains('+') {
        return Err(Error::usage(format!("--by-module looks at one adapter, {name} is a combination"))
            .hint(format!("--adapters {}", name.split('+').next().unwrap_or(name))));
    }
    if scale == 0.0 {
        return Err(Error::usage("--scale 0: there the adapter does nothing").hint("--scale 1"));
    }
    Ok(())
}

/// Shows the gain of the adapter `name` at `scale` module by module, the largest parts beside what switching their module off
/// does, and returns it.
///
/// # Errors
/// The adapter changes nothing; interrupted; out of memory.
pub(super) fn show(
    session: &Session,
    data: &TrainingData,
    (base, whole): (&Evaluation, &Evaluation),
    (name, scale): (&str, f64),
    checked: Option<usize>,
    task: Task<'_>,
) -> Result<Value> {
    let (decoder, backend) = (&session.base()?.decoder, session.backend.as_ref());
    let (adapters, uses) = session.combination(name, scale as f32)?;
    let (adapter, full) = (adapters[0], uses[0].weight);
    let (samples, data) = (data.samples(), &data.data.name);
    let (_, slopes) = derivatives(decoder, adapter, full / 2.0, samples, backend, task)?;
    let work = |((index, linear), slope): ((usize, _), &Option<f64>)| {
        Some(Work { index, linear, gain: -(*slope)? * f64::from(full) })
    };
    let mut works: Vec<Work<'_>> = decoder.linears.iter().enumerate().zip(&slopes).filter_map(work).collect();
    if works.iter().all(|work| work.gain == 0.0) {
        return Err(Error::state(format!("{name} changes nothing yet: B·A is zero in every layer"))
            .hint("train DATA, then ask again"));
    }
    task.emit(Event::Heat(heat(format!("what each module of {name} gains on {data}"), &works)));
    works.sort_by(|a, b| b.gain.abs().total_cmp(&a.gain.abs()));
    let mut without = adapter.with_params(&adapter.params);
    let mut found: Vec<(&Work<'_>, Difference)> = Vec::new();
    for work in works.iter().take(checked.unwrap_or(CHECKED)) {
        let site = without.sites[work.index].take();
        let scored = evaluate_with(decoder, &[&without], &uses, samples, backend, task)?;
        without.sites[work.index] = site;
        found.push((work, Difference::paired(&scored, whole)));
    }
    let (sum, gain) = (works.iter().map(|work| work.gain).sum(), base.loss - whole.loss);
    if !found.is_empty() {
        task.emit(Event::Table(table(name, &found, sum)));
    }
    task.emit(Event::Text(sentence(name, data, &works, sum, gain)));
    let all = works.iter().map(|work| {
        json!({
            "module": work.linear.path,
            "layer": work.linear.layer,
            "kind": work.linear.name(),
            "gain": json_number(work.gain),
        })
    });
    let checks = found.iter().map(|(work, off)| {
        json!({
            "module": work.linear.path,
            "gain": json_number(work.gain),
            "switched_off": json_number(off.mean),
            "interval": json_number(off.half),
        })
    });
    Ok(json!({
        "adapter": name,
        "data": data,
        "gain": json_number(gain),
        "sum": json_number(sum),
        "modules": all.collect::<Vec<_>>(),
        "checked": checks.collect::<Vec<_>>(),
    }))
}

fn heat(title: String, works: &[Work<'_>]) -> Heat {
    let mut columns: Vec<String> = Vec::new();
    let mut layers: Vec<usize> = Vec::new();
    for work in works {
        if !columns.iter().any(|name| name == work.linear.name()) {
            columns.push(work.linear.name().to_owned());
        }
        if layers.last() != Some(&work.linear.layer) {
            layers.push(work.linear.layer);
        }
    }
    let value = |layer: usize, column: &String| {
        let of = works.iter().find(|work| work.linear.layer == layer && work.linear.name() == column);
        of.map_or(f64::NAN, |work| work.gain)
    };
    Heat {
        title,
        row: "layer",
        rows: layers.iter().map(usize::to_string).collect(),
        values: layers.iter().map(|&layer| columns.iter().map(|column| value(layer, column)).collect()).collect(),
        columns,
        scale: HeatScale::Signed,
        cell: |x| Cell::Signed(x, 4),
        note: "nats a token, by the derivative of the loss by the module's scale halfway between base and adapter"
            .to_owned(),
    }
}

fn table(name: &str, found: &[(&Work<'_>, Difference)], sum: f64) -> Table {
    let row = |(work, off): &(&Work<'_>, Difference)| {
        vec![
            Cell::Count(work.linear.layer as u64),
            Cell::from(work.linear.name()),
            Cell::Signed(work.gain, 4),
            if sum > 0.0 { Cell::Share(work.gain / sum) } else { Cell::Empty },
            Cell::Signed(off.mean, 4),
            if off.half.is_finite() { Cell::Number(off.half, 4) } else { Cell::Empty },
        ]
    };
    Table {
        title: format!("the largest parts, checked by switching the module off in {name}"),
        columns: vec!["layer", "module", "gain", "share", "loss without", "±"],
        rows: found.iter().map(row).collect(),
        best: None,
        note: "gain: by the derivative. loss without: how much the loss rises when the module alone is off (± 95 %, paired over \
               rows); less than its gain where others step in"
            .to_owned(),
    }
}

/// What the modules make together, and where most of it is made.
fn sentence(name: &str, data: &str, works: &[Work<'_>], sum: f64, gain: f64) -> String {
    let whole = if gain > 0.0 {
        format!("{name} gains {gain:.4} nats a token on {data}; its modules sum to {sum:.4}")
    } else {
        format!(
            "{name} gains nothing on {data}: its loss is {:.4} nats above the base; its modules sum to {sum:.4}",
            -gain
        )
    };
    if sum <= 0.0 {
        return whole;
    }
    let mut made = 0.0;
    let half = works.iter().filter(|work| work.gain > 0.0).take_while(|work| {
        let is_short = made < sum / 2.0;
        made += work.gain;
        is_short
    });
    let half = half.count();
    let most = |of: &dyn Fn(&Work<'_>) -> String| {
        let mut sums: Vec<(String, f64)> = Vec::new();
        for work in works {
            let key = of(work);
            match sums.iter_mut().find(|(name, _)| *name == key) {
                Some((_, sum)) => *sum += work.gain,
                None => sums.push((key, work.gain)),
            }
        }
        let (key, most) = sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default();
        format!("{key} ({})", units::percent(most / sum))
    };
    let kind = most(&|work| work.linear.name().to_owned());
    let layer = most(&|work| format!("layer {}", work.linear.layer));
    let all = units::plural(works.len(), "module");
    format!("{whole}. {half} of {all} make half of it; most is made by {kind} and in {layer}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::Role;

    fn linear(layer: usize, kind: &str) -> LinearInfo {
        LinearInfo { path: format!("model.layers.{layer}.mlp.{kind}"), layer, role: Role::Mlp, out: 2, input: 2 }
    }

    #[test]
    fn the_sentence_says_where_the_gain_is_made() {
        let linears = [linear(0, "up_proj"), linear(0, "down_proj"), linear(1, "up_proj"), linear(1, "down_proj")];
        let works = |gains: [f64; 4]| {
            let work = |(index, gain): (usize, f64)| Work { index, linear: &linears[index], gain };
            gains.into_iter().enumerate().map(work).collect::<Vec<_>>()
        };
        let good = works([0.5, 0.25, 0.2, -0.05]);
        let said = sentence("a", "d", &good, 0.9, 0.8);
        assert!(said.contains("gains 0.8000 nats a token on d; its modules sum to 0.9000. 1 of 4 modules"), "{said}");
        assert!(said.contains("by up_proj (78 %) and in layer 0 (83 %)"), "{said}");
        let bad = sentence("a", "d", &works([-0.5, 0.0, 0.0, 0.0]), -0.5, -0.4);
        assert!(bad.contains("gains nothing on d: its loss is 0.4000 nats above") && !bad.contains("half"), "{bad}");
        let heat = heat(String::new(), &good);
        assert_eq!(
            (heat.rows, heat.columns),
            (vec!["0".to_owned(), "1".into()], vec!["up_proj".into(), "down_proj".into()])
        );
        assert_eq!(heat.values, [[0.5, 0.25], [0.2, -0.05]]);
    }
}
