//! What mixing costs and saves: held-out loss against the loss on a general text.

use super::compare::Row;
use crate::eval::mean;
use crate::event::{Chart, Series, Style};

/// A point for each share that is mixed in, where shares and a general text were asked for; settings that differ in nothing else are
/// joined by a line.
pub(super) fn tradeoff(title: &str, rows: &[Row<'_>]) -> Option<Chart> {
    let varies = rows.iter().any(|row| row.setting.mix != rows[0].setting.mix);
    let has_general = rows.iter().flat_map(|row| &row.trials).any(|(_, trial)| trial.probe_before.is_some());
    if !varies || !has_general {
        return None;
    }
    let mut lines: Vec<Vec<&Row<'_>>> = Vec::new();
    for row in rows {
        let is_same = |other: &Row<'_>| {
            let (a, b) = (row.setting, other.setting);
            a.lora == b.lora && a.learning_rate == b.learning_rate
        };
        match lines.iter_mut().find(|line| is_same(line[0])) {
            Some(line) => line.push(row),
            None => lines.push(vec![row]),
        }
    }
    let point = |row: &Row<'_>| Some((row.general()?, mean(&row.losses())?));
    let percent = |row: &Row<'_>| format!("{:.0} % mixed in", 100.0 * row.setting.mix);
    let series = match lines.as_mut_slice() {
        // One line: each of its points has a name.
        [line] => {
            line.sort_by(|a, b| a.setting.mix.total_cmp(&b.setting.mix));
            let all = line.iter().filter_map(|row| point(row)).collect();
            let behind = Series { name: String::new(), points: all, style: Style::Faint };
            let named = line
                .iter()
                .filter_map(|row| Some(Series { name: percent(row), points: vec![point(row)?], style: Style::Points }));
            std::iter::once(behind).chain(named).collect()
        }
        several => several
            .iter_mut()
            .map(|line| {
                line.sort_by(|a, b| a.setting.mix.total_cmp(&b.setting.mix));
                let name = line[0].setting.name.rsplit_once("-mix").map_or("", |(name, _)| name);
                let points = line.iter().filter_map(|row| point(row)).collect();
                Series { name: name.to_owned(), points, style: Style::Points }
            })
            .collect(),
    };
    Some(Chart { title: title.to_owned(), x: "general loss", y: "held-out loss", series, x_max: None })
}

#[cfg(test)]
mod tests {
    use super::super::grid::Setting;
    use super::*;
    use crate::lora::LoraConfig;
    use crate::train::sweep::{Standing, State};

    fn setting(rank: usize, mix: f64) -> Setting {
        let lora = LoraConfig { rank, alpha: 1.0, ..LoraConfig::default() };
        Setting { name: format!("r{rank}-mix{mix}"), lora, learning_rate: 1e-3, mix }
    }

    fn standing(held_out: f64, general: f64) -> Standing {
        let probe = (Some(3.0), Some(general));
        let evals = vec![(5, held_out)];
        let new = Standing::new("x", 4);
        Standing { state: State::Done, step: 5, evals, probe_before: probe.0, probe_after: probe.1, ..new }
    }

    #[test]
    fn a_share_is_a_point() {
        let settings = [setting(4, 0.3), setting(4, 0.0), setting(8, 0.0), setting(8, 0.3)];
        let standings = [standing(2.2, 3.1), standing(2.0, 3.5), standing(1.9, 3.6), standing(2.1, 3.2)];
        let row = |i: usize| Row { setting: &settings[i], trials: vec![(1, &standings[i])] };
        let one = tradeoff("", &[row(0), row(1)]).expect("a chart");
        assert_eq!((one.x, one.y), ("general loss", "held-out loss"));
        let names: Vec<&str> = one.series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!(names, ["", "0 % mixed in", "30 % mixed in"]);
        assert_eq!(one.series[0].points, [(3.5, 2.0), (3.1, 2.2)]);
        assert_eq!(one.series[2].points, [(3.1, 2.2)]);
        let two = tradeoff("", &[row(0), row(1), row(2), row(3)]).expect("a chart");
        let lines: Vec<(&str, usize)> = two.series.iter().map(|s| (s.name.as_str(), s.points.len())).collect();
        assert_eq!(lines, [("r4", 2), ("r8", 2)]);
        assert!(tradeoff("", &[row(1), row(2)]).is_none(), "the same share twice");
    }

    #[test]
    fn without_a_general_text_there_is_nothing_to_draw() {
        let settings = [setting(4, 0.0), setting(4, 0.3)];
        let bare = |standing: Standing| Standing { probe_before: None, probe_after: None, ..standing };
        let standings = [bare(standing(2.0, 3.0)), bare(standing(2.0, 3.0))];
        let row = |i: usize| Row { setting: &settings[i], trials: vec![(1, &standings[i])] };
        assert!(tradeoff("", &[row(0), row(1)]).is_none());
    }
}
