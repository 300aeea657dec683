//! What a chart shows, worked out once for every picture of it: finite points, ranges, ticks, where the names stand.

use crate::event::{Chart, Style, units};

/// Colours for a light or a dark page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    Light,
    Dark,
}

/// Values beyond this are as good as infinite.
const LARGEST: f64 = 1e30;

/// A chart ready to be drawn.
pub(super) struct Plot {
    pub(super) lines: Vec<Line>,
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// The lowest point of the marked line, if there is one of losses and something to compare.
    pub(super) best: Option<(f64, f64)>,
    /// Points outside the vertical range, which are drawn at its edge.
    clipped: usize,
    /// The extreme values among all points.
    extremes: (f64, f64),
    /// Points that are not finite, which are left out.
    left_out: usize,
}

/// A line with its finite points.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) style: Style,
    pub(super) points: Vec<(f64, f64)>,
    /// Lines of one colour share this index; a faint line has that of the line it stands behind.
    pub(super) color: usize,
}

/// A range with ticks at round numbers.
pub(super) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    pub(super) ticks: Vec<(f64, String)>,
}

impl Plot {
    /// Prepares a chart for about this many ticks across and upwards.
    pub(super) fn new(chart: &Chart, across: usize, upwards: usize) -> Self {
        let mut color = 0;
        let mut left_out = 0;
        let mut lines = Vec::with_capacity(chart.series.len());
        for series in &chart.series {
            let is_finite = |&(x, y): &(f64, f64)| x.abs() <= LARGEST && y.abs() <= LARGEST;
            let points: Vec<_> = series.points.iter().copied().filter(is_finite).collect();
            left_out += series.points.len() - points.len();
            lines.push(Line {
                name: super::ansi::clean(&series.name).replace('\n', " "),
                style: series.style,
                points,
                color,
            });
            color += usize::from(matches!(series.style, Style::Bold | Style::Marked | Style::Points));
        }
        let all = || lines.iter().flat_map(|line| &line.points);
        let mut ys: Vec<f64> = all().map(|p| p.1).collect();
        ys.sort_by(f64::total_cmp);
        let extremes = (ys.first().copied().unwrap_or(0.0), ys.last().copied().unwrap_or(0.0));
        // Only among the raw values an outlier may fall off the picture: what the other lines say is never left out.
        let of = |is_faint: bool| {
            let lines = lines.iter().filter(move |line| (line.style == Style::Faint) == is_faint);
            let mut ys: Vec<f64> = lines.flat_map(|line| &line.points).map(|p| p.1).collect();
            ys.sort_by(f64::total_cmp);
            ys
        };
        let (raw, told) = (of(true), of(false));
        let (low, high) = match (told.first(), told.last()) {
            (Some(&least), Some(&most)) if !raw.is_empty() => {
                let (low, high) = robust_range(&raw);
                (low.min(least), high.max(most))
            }
            _ => robust_range(&ys),
        };
        let xs: Vec<f64> = all().map(|p| p.0).collect();
        let x_max = chart.x_max.filter(|x| x.abs() <= LARGEST);
        Self {
            x: Axis::across(xs, x_max, across, matches!(chart.x, "rank" | "learning rate")),
            y: Axis::upwards(low, high, upwards),
            best: lowest(chart, &lines),
            clipped: ys.iter().filter(|&&y| y < low || y > high).count(),
            extremes,
            left_out,
            lines,
        }
    }

    /// Where the data ends to the right, as a share of the axis from 0 to 1.
    pub(super) fn end(&self) -> f64 {
        let ends = self.lines.iter().flat_map(|line| &line.points).map(|p| self.x.place(p.0));
        ends.fold(0.0, f64::max)
    }

    /// The lines with a name and at least a point, with their last value's place from 0 at the bottom to 1.
    pub(super) fn names(&self) -> impl Iterator<Item = (&Line, f64)> {
        let named = self.lines.iter().filter(|line| !line.name.is_empty() && line.style != Style::Best);
        named.filter_map(|line| line.points.last().map(|p| (line, self.y.place(p.1))))
    }

    /// Room to keep free on the right for names `needed` long (gap included) that stand behind the data's end, on a
    /// picture `total` wide whose plot begins at `left`.
    pub(super) fn margin(&self, total: f64, left: f64, needed: f64) -> f64 {
        let end = self.end();
        if end <= 0.0 { 0.0 } else { ((left + (total - left) * end + needed - total) / end).max(0.0) }
    }
}

impl Axis {
    /// The axis of values: a little wider than the data.
    fn upwards(low: f64, high: f64, ticks: usize) -> Self {
        let pad = if high > low { (high - low) * 0.06 } else { (low.abs() * 0.1).max(0.01) };
        Self::linear(low - pad, high + pad, ticks)
    }

    /// The axis of steps, ranks or rates: from 0 if the data begins near it; logarithmic `by_factors`, or if the data's own steps are.
    fn across(mut xs: Vec<f64>, x_max: Option<f64>, ticks: usize, by_factors: bool) -> Self {
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let by_factors = by_factors && (2..=12).contains(&xs.len()) && xs[0] > 0.0;
        if x_max.is_none() && (by_factors || is_geometric(&xs)) {
            let ticks = xs.iter().map(|&x| (x, tick_text(x, x))).collect();
            // A little air before the first and behind the last point.
            let air = (xs[xs.len() - 1] / xs[0]).powf(0.04);
            return Self { low: xs[0] / air, high: xs[xs.len() - 1] * air, logarithmic: true, ticks };
        }
        let first = xs.first().copied().unwrap_or(0.0);
        let last = xs.last().copied().unwrap_or(1.0).max(x_max.unwrap_or(f64::NEG_INFINITY));
        let low = if first >= 0.0 && first <= 0.2 * last { 0.0 } else { first };
        let pad = if last > low { 0.0 } else { (last.abs() * 0.5).max(0.5) };
        let (low, high) = (low - pad, last + pad);
        // Between whole steps there is nothing to mark.
        let whole = xs.iter().all(|x| x.fract() == 0.0) && high - low >= 1.0;
        let least = if whole { 1.0 } else { 0.0 };
        Self::ticked(low, high, round_step((high - low) / ticks.max(1) as f64).max(least), ticks)
    }

    fn linear(low: f64, high: f64, wanted: usize) -> Self {
        Self::ticked(low, high, round_step((high - low) / wanted.max(1) as f64), wanted)
    }

    fn ticked(low: f64, high: f64, step: f64, wanted: usize) -> Self {
        let first = (low / step - 1e-9).ceil() as i64;
        let ticks = (first..).map(|i| i as f64 * step).take_while(|&v| v <= high + step * 1e-9).take(4 * wanted.max(1));
        Self { low, high, logarithmic: false, ticks: ticks.map(|v| (v, tick_text(v, step))).collect() }
    }

    /// Where a value stands, from 0 at the low end to 1 at the high end; values outside stand at the end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let scale = |v: f64| if self.logarithmic { v.max(f64::MIN_POSITIVE).ln() } else { v };
        ((scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))).clamp(0.0, 1.0)
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= step * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * power
}

/// A tick's text with the digits that a distance of `step` needs.
fn tick_text(value: f64, step: f64) -> String {
    let size = value.abs();
    if size < step * 1e-6 {
        return "0".to_owned();
    }
    let sign = if value < 0.0 { "−" } else { "" };
    if size >= 1e6 || step < 1e-4 {
        let digits = (size.log10().floor() - step.log10().floor() + 1e-9).clamp(0.0, 4.0) as usize;
        return format!("{sign}{size:.digits$e}").replace("e-", "e−");
    }
    let digits = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
    if digits == 0 { format!("{sign}{}", units::count(size.round() as u64)) } else { format!("{sign}{size:.digits$}") }
}

/// The range that shows the data: all of it, unless some values lie more than ten times the spread of the middle nine
/// tenths away, which would press everything else flat; then as far as half that spread beyond.
fn robust_range(sorted: &[f64]) -> (f64, f64) {
    let (Some(&low), Some(&high)) = (sorted.first(), sorted.last()) else { return (0.0, 1.0) };
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    let (p5, p95) = (at(0.05), at(0.95));
    let spread = p95 - p5;
    let high = if high - p95 > 10.0 * spread && spread > 0.0 { p95 + 0.5 * spread } else { high };
    let low = if p5 - low > 10.0 * spread && spread > 0.0 { p5 - 0.5 * spread } else { low };
    (low, high)
}

/// Whether values grow by factors rather than by steps, as ranks and learning rates of a sweep do.
fn is_geometric(sorted: &[f64]) -> bool {
    if !(3..=12).contains(&sorted.len()) || sorted[0] <= 0.0 {
        return false;
    }
    let uneven = |scale: fn(f64) -> f64| {
        let gaps = sorted.windows(2).map(|w| scale(w[1]) - scale(w[0]));
        let (least, most) = gaps.fold((f64::INFINITY, 0.0f64), |(l, m), g| (l.min(g), m.max(g)));
        most / least
    };
    uneven(|x| x) >= 4.0 && uneven(f64::ln) <= 2.5
}

/// The lowest point of the only marked line of losses, unless it is the last one, which its name tells already.
fn lowest(chart: &Chart, lines: &[Line]) -> Option<(f64, f64)> {
    let mut marked = lines.iter().filter(|line| line.style == Style::Marked);
    let (Some(line), None) = (marked.next(), marked.next()) else { return None };
    if !chart.y.contains("loss") {
        return None;
    }
    let best = line.points.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1))?;
    line.points.last().filter(|&&last| last != best).map(|_| best)
}

/// Moves labels apart: `wanted` places come back at least `gap` from each other and between `low` and `high` as far as
/// they fit, in the order given, each as near to its place as can be.
pub(super) fn push_apart(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let gap = gap.min((high - low).max(0.0) / wanted.len().max(2).saturating_sub(1) as f64);
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    // Labels that would touch form a group that stands centred on the mean of its places.
    let mut groups: Vec<(f64, usize)> = Vec::new();
    for &index in &order {
        groups.push((wanted[index], 1));
        while let [.., (a, n), (b, m)] = groups[..] {
            if b - a >= gap * (n + m) as f64 / 2.0 {
                break;
            }
            groups.truncate(groups.len() - 2);
            let center = (a * n as f64 + b * m as f64) / (n + m) as f64;
            let half = gap * (n + m - 1) as f64 / 2.0;
            groups.push((center.clamp(low + half, (high - half).max(low + half)), n + m));
        }
    }
    let mut placed = vec![0.0; wanted.len()];
    let mut members = order.into_iter();
    for (center, n) in groups {
        for i in 0..n {
            if let Some(index) = members.next() {
                placed[index] = (center + gap * (i as f64 - (n - 1) as f64 / 2.0)).clamp(low, high.max(low));
            }
        }
    }
    placed
}

/// The chart in words, for those who cannot see it.
#[must_use]
pub fn describe(chart: &Chart) -> String {
    let plot = Plot::new(chart, 5, 5);
    let mut out = format!("{} over {}.", or(chart.y, "Values"), or(chart.x, "x"));
    let show = |v: f64| super::number::number(v, 3);
    for line in plot.lines.iter().filter(|line| !matches!(line.style, Style::Faint | Style::Bars | Style::Dots)) {
        if let (Style::Best, [point]) = (line.style, &line.points[..]) {
            out += &format!(" {}: {} at {}.", or(&line.name, "Best"), show(point.1), super::number::number(point.0, 0));
            continue;
        }
        let (Some(first), Some(last)) = (line.points.first(), line.points.last()) else { continue };
        let low = line.points.iter().fold(*first, |a, b| if b.1 < a.1 { *b } else { a });
        let x = |v: f64| super::number::number(v, if v.fract() == 0.0 { 0 } else { 4 });
        out += &format!(
            " {}: {} from {} at {} to {} at {}, lowest {} at {}.",
            or(&line.name, "A line"),
            match last.1.total_cmp(&first.1) {
                std::cmp::Ordering::Less => "fell",
                std::cmp::Ordering::Equal => "stayed",
                std::cmp::Ordering::Greater => "rose",
            },
            show(first.1),
            x(first.0),
            show(last.1),
            x(last.0),
            show(low.1),
            x(low.0)
        );
    }
    if plot.lines.iter().all(|line| line.points.is_empty()) {
        out += " There are no points yet.";
    }
    if plot.clipped > 0 {
        let (low, high) = plot.extremes;
        out += &format!(
            " {} far off the others and drawn at the edge; all values lie between {} and {}.",
            if plot.clipped == 1 { "1 point is".to_owned() } else { format!("{} points are", plot.clipped) },
            show(low),
            show(high)
        );
    }
    if plot.left_out > 0 {
        out += &format!(" Left out: {} not finite.", units::plural(plot.left_out, "point"));
    }
    out
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Series, loss_chart};

    fn one_line(points: Vec<(f64, f64)>) -> Chart {
        Chart {
            x: "step",
            y: "loss",
            series: vec![Series { name: "a".into(), points, style: Style::Bold }],
            ..Chart::default()
        }
    }

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|t| t.1.as_str()).collect()
    }

    #[test]
    fn what_is_held_out_is_never_off_the_picture() {
        let losses: Vec<(usize, f64)> = (1..=400).map(|step| (step, 0.01 + 1e-4 * (step % 7) as f64)).collect();
        let chart = loss_chart("", &losses, &[(0, 2.33), (200, 2.41), (400, 2.5)], 400);
        let plot = Plot::new(&chart, 6, 4);
        assert_eq!(plot.clipped, 0);
        assert!(plot.y.low <= 0.01 && plot.y.high >= 2.5, "{} to {}", plot.y.low, plot.y.high);
    }

    #[test]
    fn ticks_stand_at_round_numbers() {
        assert_eq!(texts(&Axis::linear(0.0, 500.0, 5)), ["0", "100", "200", "300", "400", "500"]);
        assert_eq!(texts(&Axis::linear(1.02, 2.71, 5)), ["1.5", "2.0", "2.5"]);
        assert_eq!(texts(&Axis::linear(-0.1, 0.1, 4)), ["−0.10", "−0.05", "0", "0.05", "0.10"]);
        assert_eq!(texts(&Axis::linear(0.0, 3e6, 3)), ["0", "1e6", "2e6", "3e6"]);
        assert_eq!(texts(&Axis::linear(0.0, 5e-5, 5)), ["0", "1e−5", "2e−5", "3e−5", "4e−5", "5e−5"]);
    }

    #[test]
    fn ranks_and_learning_rates_stand_evenly() {
        let ranks = one_line([2.0, 4.0, 8.0, 16.0, 32.0].map(|r| (r, 1.0 / r)).to_vec());
        let plot = Plot::new(&ranks, 5, 5);
        assert_eq!(texts(&plot.x), ["2", "4", "8", "16", "32"]);
        let gap = plot.x.place(4.0) - plot.x.place(2.0);
        assert!((plot.x.place(32.0) - plot.x.place(16.0) - gap).abs() < 1e-9);
        let rates = one_line([1e-4, 2e-4, 5e-4, 1e-3].map(|r| (r, 1.0)).to_vec());
        assert_eq!(texts(&Plot::new(&rates, 5, 5).x), ["0.0001", "0.0002", "0.0005", "0.001"]);
        let steps = one_line((1..9).map(|s| (f64::from(s), 1.0)).collect());
        assert!(!Plot::new(&steps, 5, 5).x.logarithmic);
    }

    #[test]
    fn a_spike_does_not_flatten_the_rest() {
        let mut losses: Vec<(usize, f64)> = (1..=100).map(|s| (s, 2.0 - s as f64 * 0.01)).collect();
        losses[50].1 = 1e6;
        let chart = Chart { series: vec![loss_chart("", &losses, &[], 100).series.remove(0)], ..one_line(vec![]) };
        let plot = Plot::new(&chart, 5, 5);
        assert!(plot.y.high < 4.0, "{}", plot.y.high);
        assert_eq!(plot.clipped, 1);
        assert!(describe(&chart).contains("1 point is far off"), "{}", describe(&chart));
        assert!(describe(&chart).contains("1,000,000"), "{}", describe(&chart));
    }

    #[test]
    fn an_ordinary_fall_is_shown_whole() {
        let chart = one_line((1..=500).map(|s| (f64::from(s), 1.0 + 10.0 * (-f64::from(s) / 20.0).exp())).collect());
        let plot = Plot::new(&chart, 5, 5);
        assert!(plot.clipped == 0 || plot.y.high > 2.0);
    }

    #[test]
    fn every_odd_series_has_a_range() {
        let odd = [
            vec![],
            vec![(1.0, 2.0)],
            vec![(0.0, 0.0)],
            vec![(1.0, 3.0), (2.0, 3.0)],
            vec![(f64::NAN, 1.0), (1.0, f64::INFINITY), (2.0, f64::NEG_INFINITY)],
            vec![(1.0, 1e308), (2.0, -1e308)],
            vec![(1.0, 1e29), (2.0, -1e29)],
            vec![(-5.0, 1e-300), (5.0, 2e-300)],
            vec![(1e29, 1.0)],
        ];
        for points in odd {
            let plot = Plot::new(&one_line(points.clone()), 5, 5);
            for axis in [&plot.x, &plot.y] {
                assert!(axis.low < axis.high, "{points:?}: {}..{}", axis.low, axis.high);
                assert!(axis.ticks.len() <= 20, "{points:?}");
                assert!(axis.ticks.iter().all(|t| (0.0..=1.0).contains(&axis.place(t.0))));
            }
            assert!((0.0..=1.0).contains(&plot.end()));
            assert!(!describe(&one_line(points)).is_empty());
        }
    }

    #[test]
    fn labels_are_pushed_apart_within_bounds() {
        assert_eq!(push_apart(&[10.0, 50.0], 15.0, 0.0, 100.0), [10.0, 50.0]);
        assert_eq!(push_apart(&[50.0, 50.0], 10.0, 0.0, 100.0), [45.0, 55.0]);
        assert_eq!(push_apart(&[99.0, 100.0, 10.0], 10.0, 0.0, 100.0), [90.0, 100.0, 10.0]);
        let many = push_apart(&[5.0; 20], 15.0, 0.0, 100.0);
        assert!(many.iter().all(|y| (0.0..=100.0).contains(y)));
        assert!(push_apart(&[], 1.0, 0.0, 1.0).is_empty());
    }

    #[test]
    fn names_at_the_right_end_get_room() {
        let full = Plot::new(&one_line(vec![(0.0, 1.0), (100.0, 2.0)]), 5, 5);
        assert!((full.margin(700.0, 50.0, 80.0) - 80.0).abs() < 1e-9);
        let half = Plot::new(&Chart { x_max: Some(200.0), ..one_line(vec![(0.0, 1.0), (100.0, 2.0)]) }, 5, 5);
        assert_eq!(half.margin(700.0, 50.0, 80.0), 0.0);
    }

    #[test]
    fn the_description_tells_first_last_and_lowest() {
        let chart = loss_chart("run", &[(1, 2.0), (2, f64::NAN)], &[(0, 2.5), (2, 1.5), (4, 1.75)], 4);
        let text = describe(&chart);
        assert!(text.contains("held out 1.75: fell from 2.500 at 0 to 1.750 at 4, lowest 1.500 at 2."), "{text}");
        assert!(text.contains("not finite"), "{text}");
    }
}
