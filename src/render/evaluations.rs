//! The evaluations of a training run as a table.

use crate::event::{Cell, Chart, Style, Table, units};

/// The table shows at most this many of a run that has ended and of one that goes on, spread over it, the best among them.
const MOST: usize = 20;
const MOST_RUNNING: usize = 8;

/// The evaluations of a run as a table, read off its chart: the marked line of held-out rows, the line of a general text, beside them
/// the smoothed loss of that step. `running` adds a last row for the step a run is at.
pub(super) fn evaluations(chart: &Chart, running: Option<usize>) -> Option<Table> {
    let points = |style: Style| {
        let series = chart.series.iter().find(|series| series.style == style);
        series.map_or(&[][..], |series| &series.points[..])
    };
    let (held_out, general) = (points(Style::Marked), points(Style::Points));
    let mut steps: Vec<f64> = held_out.iter().chain(general).map(|point| point.0).collect();
    steps.sort_by(f64::total_cmp);
    steps.dedup();
    let train = |step: f64| {
        let smooth = points(Style::Bold).iter().rev().find(|point| point.0 <= step);
        smooth.map_or(Cell::Empty, |point| Cell::Number(point.1, 2))
    };
    let at = |points: &[(f64, f64)], step: f64| points.iter().find(|point| point.0 == step).map(|point| point.1);
    let number = |loss: Option<f64>| loss.map_or(Cell::Empty, |loss| Cell::Number(loss, 2));
    let finite = || held_out.iter().filter(|point| point.1.is_finite());
    let best = finite().min_by(|a, b| a.1.total_cmp(&b.1)).and_then(|best| steps.iter().position(|s| *s == best.0));
    let shown = spread(steps.len(), if running.is_some() { MOST_RUNNING } else { MOST }, best);
    // A column stands where there is something for it.
    let kept = [true, true, !held_out.is_empty(), !held_out.is_empty(), !general.is_empty(), true];
    let row = |cells: [Cell; 6]| cells.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(cell, _)| cell).collect();
    let evaluated = |&index: &usize| {
        let step = steps[index];
        let loss = at(held_out, step);
        let mark = if best == Some(index) { "best".into() } else { Cell::Empty };
        let step_cell = Cell::Count(step.max(0.0) as u64);
        row([step_cell, train(step), number(loss), number(loss.map(f64::exp)), number(at(general, step)), mark])
    };
    let mut rows: Vec<Vec<Cell>> = shown.iter().map(evaluated).collect();
    let last = *steps.last()?;
    if let Some(step) = running.filter(|&step| step as f64 > last) {
        let (at, dots) = (Cell::Count(step as u64), || Cell::from("…"));
        rows.push(row([at, train(step as f64), dots(), Cell::Empty, dots(), "running".into()]));
    }
    let note = match steps.len() - shown.len() {
        0 => String::new(),
        hidden => format!("{} not shown", units::plural(hidden, "evaluation")),
    };
    let columns = ["step", "train", "held out", "perplexity", "general", ""].into_iter().zip(kept);
    Some(Table {
        title: String::new(),
        columns: columns.filter(|(_, kept)| *kept).map(|(name, _)| name).collect(),
        best: best.and_then(|best| shown.iter().position(|&index| index == best)),
        rows,
        note,
    })
}

/// Which of `count` rows are shown: all if they are at most `most`, else so many evenly spread, always the best.
fn spread(count: usize, most: usize, best: Option<usize>) -> Vec<usize> {
    let shown = count.min(most);
    let mut rows: Vec<usize> = (0..shown).map(|i| i * (count - 1).max(1) / (shown - 1).max(1)).collect();
    rows.extend(best);
    rows.retain(|&row| row < count);
    rows.sort_unstable();
    rows.dedup();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::loss_chart;

    #[test]
    fn evaluations_are_thinned_but_the_best_stays() {
        assert_eq!(spread(3, 8, Some(1)), [0, 1, 2]);
        assert_eq!(spread(1, 8, None), [0]);
        assert!(spread(0, 8, None).is_empty());
        let many = spread(100, MOST, Some(3));
        assert!(many.len() == MOST + 1 && many.contains(&3) && many.ends_with(&[99]));
        let evals: Vec<(usize, f64)> = (0..100).map(|i| (i * 10, if i == 3 { 1.0 } else { 2.0 })).collect();
        let shown = evaluations(&loss_chart("", &[(1, 1.5)], &evals, 1000), Some(995)).expect("there are evaluations");
        assert_eq!(shown.rows[shown.best.expect("a best one")][0], Cell::Count(30));
        assert_eq!(shown.note, "91 evaluations not shown");
        assert_eq!(shown.rows.last().map(|row| row[4].clone()), Some("running".into()));
        assert!(evaluations(&Chart::default(), None).is_none());
    }

    #[test]
    fn a_general_text_has_a_column_and_rows_of_its_own() {
        let chart = loss_chart("", &[(1, 1.5)], &[(0, 2.0), (2, 1.0)], 4);
        let both = evaluations(&chart.clone().with_probes(&[(0, 3.0), (4, 3.5)]), None).expect("evaluations");
        assert_eq!(both.columns, ["step", "train", "held out", "perplexity", "general", ""]);
        let general: Vec<&Cell> = both.rows.iter().map(|row| &row[4]).collect();
        assert_eq!(general, [&Cell::Number(3.0, 2), &Cell::Empty, &Cell::Number(3.5, 2)]);
        assert_eq!((both.best, &both.rows[2][2]), (Some(1), &Cell::Empty));
        let alone = loss_chart("", &[(1, 1.5)], &[], 4).with_probes(&[(0, 3.0)]);
        let alone = evaluations(&alone, Some(3)).expect("evaluations");
        assert_eq!(alone.columns, ["step", "train", "general", ""]);
        assert_eq!((alone.rows.len(), alone.best), (2, None));
        assert_eq!(evaluations(&chart, None).expect("evaluations").columns.len(), 5);
    }
}
