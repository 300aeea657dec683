//! The evaluations of a training run as a table.

use crate::event::{Cell, Chart, Style, Table, units};

/// The table shows at most this many of a run that has ended and of one that goes on, spread over it, the best among them.
const MOST: usize = 20;
const MOST_RUNNING: usize = 8;

/// The evaluations of a run as a table, read off its chart: the marked line, beside it the smoothed loss of that step.
/// `running` adds a last row for the step a run is at.
pub(super) fn evaluations(chart: &Chart, running: Option<usize>) -> Option<Table> {
    let points = |style: Style| chart.series.iter().find(|series| series.style == style).map(|series| &series.points);
    let held_out = points(Style::Marked).filter(|points| !points.is_empty())?;
    let train = |step: f64| {
        let smooth = points(Style::Bold).into_iter().flatten().rev().find(|point| point.0 <= step);
        smooth.map_or(Cell::Empty, |point| Cell::Number(point.1, 2))
    };
    let finite = || held_out.iter().enumerate().filter(|(_, point)| point.1.is_finite());
    let best = finite().min_by(|a, b| a.1.1.total_cmp(&b.1.1)).map(|(index, _)| index);
    let shown = spread(held_out.len(), if running.is_some() { MOST_RUNNING } else { MOST }, best);
    let row = |&index: &usize| {
        let (step, loss) = held_out[index];
        let mut row = vec![Cell::Count(step.max(0.0) as u64), train(step)];
        row.extend([Cell::Number(loss, 2), Cell::Number(loss.exp(), 2)]);
        row.push(if best == Some(index) { "best".into() } else { Cell::Empty });
        row
    };
    let mut rows: Vec<Vec<Cell>> = shown.iter().map(row).collect();
    let last = held_out.last().map_or(0.0, |point| point.0);
    if let Some(step) = running.filter(|&step| step as f64 > last) {
        rows.push(vec![Cell::Count(step as u64), train(step as f64), "…".into(), Cell::Empty, "running".into()]);
    }
    let note = match held_out.len() - shown.len() {
        0 => String::new(),
        hidden => format!("{} not shown", units::plural(hidden, "evaluation")),
    };
    Some(Table {
        title: String::new(),
        columns: vec!["step", "train", "held out", "perplexity", ""],
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
}
