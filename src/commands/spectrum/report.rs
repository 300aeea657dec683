//! What `spectrum` draws: how many directions each layer needs, how large they are, and what cutting them costs.

use serde_json::{Value, json};

use super::Cut;
use crate::event::{Cell, Chart, Event, Heat, HeatScale, Series, Style, Table, Task, units};
use crate::lora::{LinearInfo, Spectrum};

/// A share of the gain that is nearly all of it.
const NEARLY_ALL: f64 = 0.95;

/// The layers of one kind, as all `q_proj`.
pub(super) struct Kind {
    name: String,
    layers: usize,
    /// Mean singular values over the layers, largest first.
    values: Vec<f64>,
    /// Mean number of directions that hold 99 % of the squared norm.
    rank_99: f64,
    /// Mean effective rank, by entropy.
    effective: f64,
    /// `‖ΔW‖` of all its layers together.
    norm: f64,
}

impl Kind {
    pub(super) fn answer(&self) -> Value {
        json!({
            "kind": self.name,
            "layers": self.layers,
            "singular_values": self.values,
            "rank_99": self.rank_99,
            "effective_rank": self.effective,
            "norm": self.norm,
        })
    }
}

/// The names of module kinds in the order of the model.
fn names(linears: &[LinearInfo], spectra: &[Option<Spectrum>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (linear, _) in linears.iter().zip(spectra).filter(|(_, spectrum)| spectrum.is_some()) {
        if !names.iter().any(|name| name == linear.name()) {
            names.push(linear.name().to_owned());
        }
    }
    names
}

/// What the layers of each kind have in common.
pub(super) fn kinds(linears: &[LinearInfo], spectra: &[Option<Spectrum>]) -> Vec<Kind> {
    let kind = |name: String| {
        let all = linears.iter().zip(spectra).filter(|(linear, _)| linear.name() == name);
        let of: Vec<&Spectrum> = all.filter_map(|(_, spectrum)| spectrum.as_ref()).collect();
        let mean = |f: &dyn Fn(&Spectrum) -> f64| of.iter().map(|s| f(s)).sum::<f64>() / of.len() as f64;
        let rank = of.iter().map(|s| s.values.len()).max().unwrap_or(0);
        Kind {
            layers: of.len(),
            values: (0..rank).map(|i| mean(&|s| s.values.get(i).copied().unwrap_or(0.0))).collect(),
            rank_99: mean(&|s| s.rank_of_energy(0.99) as f64),
            effective: mean(&Spectrum::effective_rank),
            norm: of.iter().map(|s| s.energy(usize::MAX)).sum::<f64>().sqrt(),
            name,
        }
    };
    names(linears, spectra).into_iter().map(kind).collect()
}

/// The heat map of layers by kinds, the singular values, and the table of kinds.
pub(super) fn show(name: &str, rank: usize, linears: &[LinearInfo], spectra: &[Option<Spectrum>], task: Task<'_>) {
    let kinds = kinds(linears, spectra);
    task.emit(Event::Heat(heat(name, rank, linears, spectra)));
    if rank > 1 {
        let line = |kind: &Kind| Series {
            name: kind.name.clone(),
            points: kind.values.iter().enumerate().map(|(i, value)| (i as f64 + 1.0, *value)).collect(),
            style: Style::Bold,
        };
        task.emit(Event::Chart(Chart {
            title: format!("singular values of {name}, mean over layers"),
            x: "direction",
            y: "singular value",
            series: kinds.iter().map(line).collect(),
            x_max: None,
        }));
    }
    let row = |kind: &Kind| {
        vec![
            Cell::from(kind.name.as_str()),
            Cell::Count(kind.layers as u64),
            Cell::Number(kind.values.first().copied().unwrap_or(0.0), 3),
            Cell::Number(kind.rank_99, 1),
            Cell::Number(kind.effective, 1),
            Cell::Number(kind.norm, 2),
        ]
    };
    task.emit(Event::Table(Table {
        title: format!("what {name} uses of rank {rank}"),
        columns: vec!["module", "layers", "largest value", "99 % of energy", "effective rank", "norm"],
        rows: kinds.iter().map(row).collect(),
        best: None,
        note: "Means over layers. 99 % of energy: directions that hold 99 % of the update's squared norm. Effective rank: \
               exp of the entropy of the singular values, lower where few stand out."
            .to_owned(),
    }));
}

fn heat(name: &str, rank: usize, linears: &[LinearInfo], spectra: &[Option<Spectrum>]) -> Heat {
    let columns = names(linears, spectra);
    let mut layers: Vec<usize> =
        linears.iter().zip(spectra).filter(|(_, s)| s.is_some()).map(|(linear, _)| linear.layer).collect();
    layers.dedup();
    let value = |layer: usize, column: &String| {
        let at = linears.iter().position(|linear| linear.layer == layer && linear.name() == column);
        at.and_then(|at| spectra[at].as_ref()).map_or(f64::NAN, |spectrum| spectrum.rank_of_energy(0.99) as f64)
    };
    Heat {
        title: format!("directions of {rank} that hold 99 % of {name}'s update"),
        row: "layer",
        rows: layers.iter().map(usize::to_string).collect(),
        values: layers.iter().map(|&layer| columns.iter().map(|column| value(layer, column)).collect()).collect(),
        columns,
        scale: HeatScale::Amount,
        cell: |x| Cell::Count(x as u64),
        note: String::new(),
    }
}

/// What cutting costs: a chart and a table.
pub(super) fn losses(name: &str, data: &str, cuts: &[Cut], chosen: usize, task: Task<'_>) {
    let points: Vec<(f64, f64)> = cuts.iter().map(|cut| (cut.rank as f64, cut.evaluation.loss)).collect();
    task.emit(Event::Chart(Chart {
        title: format!("loss on {data} of {name} cut to smaller ranks"),
        x: "rank",
        y: "loss",
        series: vec![Series { name: String::new(), points, style: Style::Marked }],
        x_max: None,
    }));
    let last = cuts.len() - 1;
    let row = |(index, cut): (usize, &Cut)| {
        let whole = index == last;
        let verdict = match (cut.rank == chosen, cut.above.is_noise() && !whole) {
            (true, _) => "chosen",
            (false, true) => "within noise",
            (false, false) => "",
        };
        let what = match cut.rank {
            0 => "base".to_owned(),
            rank if whole => format!("{rank}, whole"),
            rank => rank.to_string(),
        };
        let half = if whole || !cut.above.half.is_finite() { Cell::Empty } else { Cell::Number(cut.above.half, 4) };
        vec![
            Cell::Text(what),
            Cell::Share(cut.energy),
            Cell::Number(cut.evaluation.loss, 4),
            if whole { Cell::Empty } else { Cell::Signed(cut.above.mean, 4) },
            half,
            if cut.gain.is_finite() { Cell::Share(cut.gain) } else { Cell::Empty },
            Cell::from(verdict),
        ]
    };
    task.emit(Event::Table(Table {
        title: format!("{name} cut to smaller ranks, loss on {data}"),
        columns: vec!["rank", "energy kept", "loss", "to whole", "±", "gain kept", ""],
        rows: cuts.iter().enumerate().map(row).collect(),
        best: cuts.iter().position(|cut| cut.rank == chosen),
        note: "chosen: the smallest rank within noise of the whole adapter (± 95 %, paired over rows). gain kept: of what the \
               whole adapter gains on the base"
            .to_owned(),
    }));
}

/// The smallest rank that is enough, as a sentence, and what to type next.
pub(super) fn conclusion(name: &str, data: &str, cuts: &[Cut], chosen: usize) -> (String, Vec<String>) {
    let whole = cuts.last().map_or(0, |cut| cut.rank);
    // A cut that costs more than noise may still be worth it.
    let nearly = cuts.iter().find(|cut| cut.gain >= NEARLY_ALL && cut.rank > 0).filter(|cut| cut.rank < whole);
    let sentence = match (chosen, nearly) {
        (0, _) => format!("{name} is no better than the base on {data}, as far as these rows can tell"),
        (rank, _) if rank < whole => {
            format!("rank {rank} is enough: cut to it {name} loses no more than noise on {data}")
        }
        (_, Some(cut)) => format!(
            "{name} uses its whole rank {whole}: each cut costs more than noise on {data}, though rank {} keeps {} of the gain",
            cut.rank,
            units::percent(cut.gain)
        ),
        (_, None) => format!("{name} uses its whole rank {whole}: each cut costs more than noise on {data}"),
    };
    let next = if chosen == whole { nearly.map_or(0, |cut| cut.rank) } else { chosen };
    (sentence, if next > 0 { vec![format!("shrink {name} --rank {next}")] } else { Vec::new() })
}
