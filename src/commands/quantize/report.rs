//! What `quantize --report` draws: the error by layer and kind, where numbers stand out, what other settings would give.

use serde_json::{Value, json};

use super::lens::{Change, Kept};
use super::probe::difference;
use super::{Layer, describe, kinds};
use crate::commands::arguments::json_number;
use crate::eval::{Difference, Evaluation};
use crate::event::{Cell, Event, Heat, HeatScale, Table, Task, units};
use crate::quant::{Outliers, QuantError, QuantSpec, Spot};

/// Rows and blocks with the largest errors that are shown.
const WORST: usize = 4;

/// Everything that was measured.
pub(super) struct Report<'a> {
    pub(super) spec: QuantSpec,
    pub(super) search: bool,
    pub(super) layers: &'a [Layer],
    pub(super) probe: &'a str,
    /// Bytes of the whole base as it stands now.
    pub(super) bytes: u64,
    /// The loss of what was quantized, where that was measured, and of what came of it.
    pub(super) original: Option<&'a Evaluation>,
    pub(super) now: &'a Evaluation,
    pub(super) changes: &'a [Change],
    pub(super) kinds: &'a [Kept],
    pub(super) single: &'a [Kept],
}

/// The error of all layers together.
pub(super) fn whole(layers: &[Layer]) -> QuantError {
    layers.iter().fold(QuantError::default(), |sum, layer| sum.merge(layer.error))
}

impl Report<'_> {
    pub(super) fn show(&self, task: Task<'_>) {
        task.emit(Event::Heat(self.heat()));
        task.emit(Event::Table(self.structure()));
        task.emit(Event::Table(self.worst()));
        task.emit(Event::Table(self.settings()));
        if !self.single.is_empty() {
            task.emit(Event::Table(self.single()));
        }
        task.emit(Event::Text(self.verdict()));
    }

    /// What is worth typing next, if something is: a search, where it was not asked for and lessens the loss.
    pub(super) fn next(&self) -> Option<String> {
        let searched = self.changes.iter().find(|change| change.search && !self.search)?;
        let loss = searched.loss.as_ref()?;
        let size =
            if self.spec.block_size == 64 { String::new() } else { format!(" --block-size {}", self.spec.block_size) };
        let double = if self.spec.double_quant { "" } else { " --no-double-quant" };
        (!difference(self.now, loss).is_noise()).then(|| format!("quantize {}{size}{double} --search", self.spec.kind))
    }

    fn heat(&self) -> Heat {
        let columns: Vec<String> = kinds(self.layers).into_iter().map(str::to_owned).collect();
        let mut rows: Vec<usize> = self.layers.iter().map(|layer| layer.layer).collect();
        rows.dedup();
        let value = |row: usize, column: &String| {
            let at = self.layers.iter().find(|layer| layer.layer == row && layer.kind == *column);
            at.map_or(f64::NAN, |layer| layer.error.relative_rms())
        };
        Heat {
            title: "error of each layer".to_owned(),
            row: "layer",
            values: rows.iter().map(|&row| columns.iter().map(|column| value(row, column)).collect()).collect(),
            rows: rows.iter().map(usize::to_string).collect(),
            columns,
            scale: HeatScale::Amount,
            cell: Cell::Share,
            note: "‖W − quantized W‖ / ‖W‖".to_owned(),
        }
    }

    /// By kind, how far numbers stand out.
    fn structure(&self) -> Table {
        let row = |kind: &str| {
            let of: Vec<&Outliers> = outliers(self.layers).filter(|(l, _)| l.kind == kind).map(|(_, o)| o).collect();
            let mean = |f: &dyn Fn(&Outliers) -> f64| of.iter().map(|o| f(o)).sum::<f64>() / of.len() as f64;
            let most = |f: &dyn Fn(&Outliers) -> f64| of.iter().map(|o| f(o)).fold(0.0, f64::max);
            vec![
                Cell::from(kind),
                Cell::Number(most(&|o| o.largest), 1),
                Cell::Number(mean(&|o| o.crest.0), 2),
                Cell::Number(most(&|o| o.crest.1), 1),
                Cell::Share(mean(&|o| o.worst_hundredth)),
            ]
        };
        Table {
            title: "how far numbers stand out".to_owned(),
            columns: vec!["layer", "largest / rms", "in a block, mean", "in a block, most", "error in worst 1 %"],
            rows: kinds(self.layers).into_iter().map(row).collect(),
            best: None,
            note: "largest |w| in units of the layer's root mean square; in a block, of the block's own: the higher, the fewer \
                   levels are left for the others. Last column: the share of the squared error in the hundredth of the blocks that \
                   has most of it"
                .to_owned(),
        }
    }

    /// The rows and the blocks with the largest errors.
    fn worst(&self) -> Table {
        let top = |of: &dyn Fn(&Outliers) -> Spot| {
            let mut all: Vec<(&Layer, Spot)> = outliers(self.layers).map(|(layer, o)| (layer, of(o))).collect();
            all.sort_by(|a, b| b.1.error.total_cmp(&a.1.error));
            all.truncate(WORST);
            all
        };
        let row = |(what, (layer, spot)): (String, (&Layer, Spot))| {
            vec![
                Cell::from(layer.path.as_str()),
                Cell::from(what),
                Cell::Share(spot.error),
                Cell::Number(spot.largest, 1),
            ]
        };
        let rows = top(&|o| o.row).into_iter().map(|(layer, spot)| (format!("row {}", spot.index), (layer, spot)));
        // The blocks of int8 are rows.
        let blocks = if self.spec.block_size == 0 { Vec::new() } else { top(&|o| o.block) };
        let place = |layer: &Layer, spot: Spot| {
            let start = spot.index * self.spec.block_size;
            format!("block from row {}, column {}", start / layer.columns, start % layer.columns)
        };
        let blocks = blocks.into_iter().map(|(layer, spot)| (place(layer, spot), (layer, spot)));
        Table {
            title: "largest errors".to_owned(),
            columns: vec!["layer", "where", "error", "largest / rms"],
            rows: rows.chain(blocks).map(row).collect(),
            best: None,
            note: "each layer's worst row and block; both columns in units of the layer's root mean square".to_owned(),
        }
    }

    /// This setting, and those that differ in one thing.
    fn settings(&self) -> Table {
        let error = whole(self.layers);
        let weights = error.elements() as f64;
        let bits = |bytes: u64| {
            let others = self.bytes - self.layers.iter().map(|l| l.after).sum::<u64>();
            Cell::Number((bytes - others) as f64 * 8.0 / weights, 2)
        };
        let row = |name: Cell, bytes: u64, error: f64, loss: Option<&Evaluation>| {
            let change = loss.map(|loss| difference(loss, self.now));
            let mut cells = vec![name, Cell::Bytes(bytes), bits(bytes), Cell::Share(error)];
            cells.extend(loss_cells(loss, change.filter(|change| change.mean != 0.0)));
            cells
        };
        let mut rows =
            vec![row(Cell::from(describe(self.spec, self.search)), self.bytes, error.relative_rms(), Some(self.now))];
        rows.extend(self.changes.iter().map(|change| {
            row(Cell::from(change.name.as_str()), change.bytes, change.error.relative_rms(), change.loss.as_ref())
        }));
        rows.extend(self.kinds.iter().map(|kept| {
            let left = (error.squared_error() * (1.0 - kept.saved).max(0.0) / error.squared_norm()).sqrt();
            row(Cell::from(format!("--keep {}", kept.pattern)), kept.bytes, left, kept.loss.as_ref())
        }));
        if self.original.is_some() {
            let quantized: u64 = self.layers.iter().map(|layer| layer.after).sum();
            let dense: u64 = self.layers.iter().map(|layer| layer.before).sum();
            rows.push(row(Cell::from("not quantized"), self.bytes - quantized + dense, 0.0, self.original));
        }
        Table {
            title: format!("what other settings give, loss on {}", self.probe),
            columns: vec!["setting", "base", "bits a weight", "error", "loss", "change", "±"],
            rows,
            best: None,
            note: format!(
                "each row differs from the first in one thing. ± 95 %, paired over the {} scored tokens{}",
                units::count(self.now.tokens as u64),
                if self.changes.iter().any(|c| c.loss.is_none()) {
                    "; losses are left out where they take long: --data FILE measures them"
                } else {
                    ""
                }
            ),
        }
    }

    /// Single layers kept as they are.
    fn single(&self) -> Table {
        let row = |kept: &Kept| {
            let mut cells = vec![
                Cell::from(kept.name.as_str()),
                Cell::Bytes(kept.extra_bytes),
                Cell::Share(kept.saved),
                Cell::Share(kept.saved * 1e6 / kept.extra_bytes.max(1) as f64),
            ];
            cells.extend(loss_cells(kept.loss.as_ref(), kept.change));
            cells
        };
        Table {
            title: "single layers kept as they are".to_owned(),
            columns: vec!["layer", "extra", "of the error", "a MB", "loss", "change", "±"],
            rows: self.single.iter().map(row).collect(),
            best: None,
            note: "those that save most of the squared error of all layers for their bytes".to_owned(),
        }
    }

    fn verdict(&self) -> String {
        let kept = self.kinds.iter().chain(self.single);
        let changed = kept.filter_map(|kept| Some((kept, kept.change?)));
        let helps = |change: &Difference| change.mean < 0.0 && -change.mean > change.half;
        let worth = changed.filter(|(_, change)| helps(change)).min_by(|(a, x), (b, y)| {
            (x.mean / a.extra_bytes.max(1) as f64).total_cmp(&(y.mean / b.extra_bytes.max(1) as f64))
        });
        match worth {
            Some((kept, change)) => format!(
                "most loss for its bytes is saved by --keep '{}': {} for {}",
                kept.pattern,
                units::signed(change.mean, 4),
                units::bytes(kept.extra_bytes)
            ),
            None if self.now.tokens > 0 && self.kinds.iter().any(|kept| kept.change.is_some()) => {
                "keeping none of these layers changes the loss by more than noise".to_owned()
            }
            None => "no losses were measured: --data FILE names a text".to_owned(),
        }
    }

    pub(super) fn answer(&self) -> Value {
        let error = whole(self.layers);
        let spot = |spot: &Spot| json!({"index": spot.index, "error": json_number(spot.error), "largest": json_number(spot.largest)});
        let layer = |layer: &Layer| {
            json!({
                "module": layer.path,
                "bytes_before": layer.before,
                "bytes_after": layer.after,
                "relative_error": json_number(layer.error.relative_rms()),
                "largest_error": json_number(layer.error.max_abs()),
                "outliers": layer.outliers.as_ref().map(|o| json!({
                    "rms": json_number(o.rms),
                    "largest": json_number(o.largest),
                    "block_mean": json_number(o.crest.0),
                    "block_most": json_number(o.crest.1),
                    "worst_hundredth": json_number(o.worst_hundredth),
                    "row": spot(&o.row),
                    "block": spot(&o.block),
                })),
            })
        };
        let loss = |loss: Option<&Evaluation>| loss.map_or(Value::Null, |loss| json_number(loss.loss));
        let change = |change: Option<Difference>| match change {
            Some(change) => (json_number(change.mean), json_number(change.half)),
            None => (Value::Null, Value::Null),
        };
        let changed = |c: &Change| {
            let (mean, half) = change(c.loss.as_ref().map(|loss| difference(loss, self.now)));
            json!({
                "change": c.name, "block_size": c.spec.block_size, "double_quant": c.spec.double_quant, "search": c.search,
                "bytes": c.bytes, "relative_error": json_number(c.error.relative_rms()),
                "loss": loss(c.loss.as_ref()), "difference": mean, "interval": half,
            })
        };
        let kept = |k: &Kept| {
            let (mean, half) = change(k.change);
            json!({
                "keep": k.pattern, "bytes": k.bytes, "extra_bytes": k.extra_bytes, "error_share": json_number(k.saved),
                "loss": loss(k.loss.as_ref()), "difference": mean, "interval": half,
            })
        };
        json!({
            "relative_error": json_number(error.relative_rms()),
            "original_loss": loss(self.original),
            "modules": self.layers.iter().map(layer).collect::<Vec<_>>(),
            "changes": self.changes.iter().map(changed).collect::<Vec<_>>(),
            "kinds": self.kinds.iter().map(kept).collect::<Vec<_>>(),
            "single": self.single.iter().map(kept).collect::<Vec<_>>(),
        })
    }
}

fn outliers(layers: &[Layer]) -> impl Iterator<Item = (&Layer, &Outliers)> {
    layers.iter().filter_map(|layer| Some((layer, layer.outliers.as_ref()?)))
}

fn loss_cells(loss: Option<&Evaluation>, change: Option<Difference>) -> [Cell; 3] {
    let half = change.map(|change| change.half).filter(|half| half.is_finite());
    [
        loss.map_or(Cell::Empty, |loss| Cell::Number(loss.loss, 4)),
        change.map_or(Cell::Empty, |change| Cell::Signed(change.mean, 4)),
        half.map_or(Cell::Empty, |half| Cell::Number(half, 4)),
    ]
}
