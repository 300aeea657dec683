//! A training run on the screen: what has happened so far, as one live line and as a whole page.

use std::time::Duration;

use super::ansi::{self, Ink};
use super::drawing::Drawing;
use super::evaluations::evaluations;
use super::number::short_bytes;
use super::plain::{Plain, share};
use super::table::{dim_lines, table};
use crate::event::{Chart, Event, Progress, RunEnded, RunInfo, Step, Table, loss_chart, units};

/// What the adapter says is listed this often while the run goes on.
const LATEST_SAMPLES: usize = 3;
/// The bar of the live line is never longer than this, and left out if it would be shorter than the other.
const LONGEST_BAR: usize = 30;
const SHORTEST_BAR: usize = 8;

/// The state of a training run, made from its events.
#[derive(Debug, Clone, Default)]
pub struct Board {
    info: Option<RunInfo>,
    losses: Vec<(usize, f64)>,
    evals: Vec<(usize, f64)>,
    /// Losses on a general text.
    probes: Vec<(usize, f64)>,
    last: Option<Step>,
    tokens: usize,
    /// The smoothed loss and the weight it has gathered, as in [`loss_chart`].
    smooth: (f64, f64),
    /// What the adapter said after how many steps.
    samples: Vec<(usize, String)>,
    /// What is being done between two steps.
    activity: Option<Progress>,
    /// Whether the run has come to its end without saying so.
    stopped: bool,
    ended: Option<RunEnded>,
}

impl Board {
    /// Takes an event in and tells whether it was one of a training run. `RunStarted` begins a new board.
    pub fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::RunStarted(info) => {
                let (losses, evals) = info.earlier.clone();
                let (info, probes) = (Some(info.clone()), info.probes.clone());
                *self = Self { info, losses, evals, probes, ..Self::default() };
            }
            Event::Step(step) => {
                self.losses.push((step.step, step.loss));
                self.tokens += step.tokens;
                if step.loss.is_finite() {
                    self.smooth = (0.9 * self.smooth.0 + 0.1 * step.loss, 0.9 * self.smooth.1 + 0.1);
                }
                self.last = Some(*step);
            }
            Event::Evaluated(evaluated) => self.evals.push((evaluated.step, evaluated.loss)),
            Event::Probed { step, loss } => self.probes.push((*step, *loss)),
            Event::Sampled { step, text } => self.samples.push((*step, text.clone())),
            Event::RunEnded(ended) => self.ended = Some(ended.clone()),
            _ => return false,
        }
        true
    }

    /// Whether a run has started and not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.ended.is_none() && (self.info.is_some() || self.last.is_some())
    }

    /// What the run is about, once it has started.
    #[must_use]
    pub fn info(&self) -> Option<&RunInfo> {
        self.info.as_ref()
    }

    /// How the run ended, once it has.
    pub(super) fn end(&self) -> Option<&RunEnded> {
        self.ended.as_ref()
    }

    /// Says what is being done between two steps.
    pub(super) fn set_activity(&mut self, activity: Option<Progress>) {
        self.activity = activity;
    }

    /// Says that nothing more will come.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.activity = None;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// What the adapter said: lately while the run goes on, then everything.
    pub(super) fn samples(&self) -> &[(usize, String)] {
        let running = self.is_running() && !self.stopped;
        &self.samples[if running { self.samples.len().saturating_sub(LATEST_SAMPLES) } else { 0 }..]
    }

    /// The evaluations so far, or those of the chart that came with the end.
    pub(super) fn evaluations(&self) -> Option<Table> {
        let running = self.is_running() && !self.stopped;
        evaluations(&self.chart(), self.last.filter(|_| running).map(|step| step.step))
    }

    /// How far the run has got, from 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        match (self.last, &self.info) {
            (Some(last), Some(info)) if info.steps > 0 => (last.step as f64 / info.steps as f64).min(1.0),
            _ => 0.0,
        }
    }

    /// Every loss so far, or the chart that came with the end.
    #[must_use]
    pub fn chart(&self) -> Chart {
        if let Some(ended) = &self.ended {
            return ended.chart.clone();
        }
        let title = self.info.as_ref().map_or("", |info| &info.title);
        let last = self.last.map_or(1, |step| step.step);
        let steps = self.info.as_ref().map_or(last, |info| info.steps);
        loss_chart(title, &self.losses, &self.evals, steps).with_probes(&self.probes)
    }

    /// `337/500 · 67 % · loss 1.29 · held out 1.37 · 612 tok/s · 4:33 left · 483 MB` with a bar before it if there is
    /// room; in less than its width the last parts go first. Empty before the first step.
    #[must_use]
    pub fn line(&self, width: usize, ink: Ink) -> String {
        let mut parts = self.parts();
        if parts.is_empty() {
            return String::new();
        }
        let all = parts.len();
        while parts.len() > 1 && ansi::width(&parts.join(" · ")) > width {
            parts.pop();
        }
        let text = parts.join(" · ");
        let room = width.saturating_sub(ansi::width(&text) + 1);
        let text = text.replacen(&parts[0], &ink.bold(&parts[0]), 1);
        let total_known = self.info.as_ref().is_some_and(|info| info.steps > 0);
        if room < SHORTEST_BAR || parts.len() < all || !total_known {
            return text;
        }
        format!("{} {text}", ink.nth(0, &ansi::bar(self.share(), room.min(LONGEST_BAR))))
    }

    fn parts(&self) -> Vec<String> {
        let Some(last) = self.last else { return Vec::new() };
        let steps = self.info.as_ref().map_or(0, |info| info.steps);
        let mut parts = if steps > 0 {
            let done = format!("{}/{}", units::count(last.step as u64), units::count(steps as u64));
            let done = if self.stopped { format!("stopped at {done}") } else { done };
            vec![done, self.percent()]
        } else {
            vec![units::plural(last.step, "step")]
        };
        if self.smooth.1 > 0.0 {
            parts.push(format!("loss {}", super::number::number(self.smooth.0 / self.smooth.1, 2)));
        }
        if let Some(&(_, loss)) = self.evals.last() {
            parts.push(format!("held out {}", super::number::number(loss, 2)));
        }
        parts.extend(self.pace());
        parts
    }

    /// `337` and ` of 500 · 67 % · 612 tok/s · 4:33 left · 483 MB`: what stands below the bar of a page.
    pub(super) fn state(&self) -> (String, String) {
        let info = self.info.as_ref();
        let done = self.last.map_or_else(|| info.map_or(0, |info| info.first_step.saturating_sub(1)), |last| last.step);
        let done = units::count(done as u64);
        let steps = info.map_or(0, |info| info.steps);
        let of = if steps > 0 { format!(" of {}", units::count(steps as u64)) } else { " steps".to_owned() };
        let (begin, then) = if self.stopped { ("stopped".to_owned(), format!(" at {done}{of}")) } else { (done, of) };
        let mut parts = if steps > 0 { vec![then, self.percent()] } else { vec![then] };
        parts.extend(self.pace());
        if let Some(activity) = &self.activity {
            parts.push(format!("{} {:.0} %", activity.label, (share(activity) * 100.0).floor()));
        }
        (begin, parts.join(" · "))
    }

    fn percent(&self) -> String {
        format!("{:.0} %", (self.share() * 100.0).floor())
    }

    /// Tokens a second, the time left, the memory held: as far as they are known.
    fn elapsed(&self, step: &Step) -> Duration {
        step.elapsed.saturating_sub(self.info.as_ref().map_or(Duration::ZERO, |info| info.worked))
    }

    fn pace(&self) -> Vec<String> {
        let mut parts = Vec::new();
        let Some(last) = self.last else { return parts };
        let elapsed = self.elapsed(&last).as_secs_f64();
        if elapsed > 0.0 {
            parts.push(format!("{} tok/s", units::rate(self.tokens as f64 / elapsed)));
        }
        let to_come = self.info.as_ref().is_some_and(|info| last.step < info.steps);
        if let Some(left) = self.left().filter(|_| to_come && !self.stopped) {
            parts.push(format!("{} left", units::seconds(left.as_secs_f64())));
        }
        if last.resident_bytes > 0 {
            parts.push(short_bytes(last.resident_bytes));
        }
        parts
    }

    /// The time left if the steps to come take as long as those made.
    fn left(&self) -> Option<Duration> {
        let (info, last) = (self.info.as_ref()?, self.last?);
        let made = (last.step + 1).checked_sub(info.first_step.max(1)).filter(|&made| made > 0)?;
        let to_come = info.steps.saturating_sub(last.step);
        Duration::try_from_secs_f64(self.elapsed(&last).as_secs_f64() * to_come as f64 / made as f64).ok()
    }

    /// The whole page, ended by a line break: title, settings, live line while it runs, chart, evaluations, and at the
    /// end the sentence that says the result and what was kept.
    #[must_use]
    pub fn page(&self, width: usize, ink: Ink) -> String {
        let mut out = self.info.as_ref().map_or(String::new(), |info| started(info, width, ink));
        let plain = Plain { width, color: ink.is_color() };
        for (step, text) in self.samples() {
            out += &plain.render(&Event::Sampled { step: *step, text: text.clone() });
        }
        if let Some(end) = &self.ended {
            return out + &ended(end, width, ink, Drawing::Braille);
        }
        let line = self.line(width, ink);
        if !line.is_empty() {
            out += &(line + "\n");
            out += &pictures(&self.chart(), self.evaluations(), width, ink, Drawing::Braille);
        }
        out
    }
}

/// The head of a run: its title and its settings.
pub(super) fn started(info: &RunInfo, width: usize, ink: Ink) -> String {
    let mut out = ink.bold(&ansi::wrap(&ansi::clean(&info.title), width)) + "\n";
    if !info.subtitle.is_empty() {
        let parts = ansi::clean(&info.subtitle);
        out += &dim_lines(&ansi::join_wrapped(parts.split(" · ").map(str::to_owned), " · ", "", "", width), ink);
    }
    out
}

/// The end of a run: chart, evaluations, result, what was kept.
pub(super) fn ended(end: &RunEnded, width: usize, ink: Ink, drawing: Drawing) -> String {
    let mut out = pictures(&end.chart, evaluations(&end.chart, None), width, ink, drawing);
    if !end.sentence.is_empty() {
        let sentence = ansi::wrap(&ansi::clean(&end.sentence), width);
        out += &if end.interrupted { ink.warning(&sentence) } else { ink.bold(&sentence) };
        out.push('\n');
    }
    if !end.kept.is_empty() {
        out += &dim_lines(&ansi::wrap(&format!("kept: {}", ansi::clean(&end.kept)), width), ink);
    }
    out
}

/// The chart and the table of evaluations with a blank line around each; nothing for a chart without points.
fn pictures(chart: &Chart, evaluations: Option<Table>, width: usize, ink: Ink, drawing: Drawing) -> String {
    if chart.series.iter().all(|series| series.points.is_empty()) {
        return String::new();
    }
    let mut out = format!("\n{}\n", drawing.draw(chart, width, ink));
    if let Some(evaluations) = evaluations {
        out += &table(&evaluations, width, ink);
        out.push('\n');
    }
    out
}

/// Rows of a chart that is `width` columns wide.
pub(super) fn chart_height(width: usize) -> usize {
    (width / 7).clamp(8, 14)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Evaluated;

    fn running(first: usize, at: usize, steps: usize) -> Board {
        let mut board = Board::default();
        assert!(board.apply(&Event::RunStarted(RunInfo {
            run: "0007".into(),
            title: "jargon-r16".into(),
            subtitle: "rank 16".into(),
            first_step: first,
            steps,
            ..RunInfo::default()
        })));
        for step in first..=at {
            board.apply(&Event::Step(Step {
                step,
                loss: 1.29,
                grad_norm: 1.0,
                learning_rate: 2e-4,
                tokens: 1024,
                elapsed: Duration::from_secs_f64((step + 1 - first) as f64 * 1024.0 / 612.0),
                resident_bytes: 483_200_000,
            }));
        }
        board
    }

    #[test]
    fn the_live_line_says_what_matters() {
        let mut board = running(1, 337, 500);
        board.apply(&Event::Evaluated(Evaluated { step: 300, loss: 1.37, best: false }));
        let text = "337/500 · 67 % · loss 1.29 · held out 1.37 · 612 tok/s · 4:33 left · 483 MB";
        assert_eq!(board.line(80, Ink::PLAIN), text);
        assert_eq!(board.line(89, Ink::PLAIN), format!("━━━━━━━━━╌╌╌╌ {text}"));
        assert_eq!(board.line(40, Ink::PLAIN), "337/500 · 67 % · loss 1.29");
        assert_eq!(board.line(1, Ink::PLAIN), "337/500");
        assert!(board.is_running());
    }

    #[test]
    fn a_resumed_run_counts_its_own_steps_for_the_time_left() {
        let board = running(301, 400, 500);
        assert!(board.line(200, Ink::PLAIN).contains("2:47 left"), "{}", board.line(200, Ink::PLAIN));
    }

    #[test]
    fn odd_steps_do_not_break_the_line() {
        let mut board = Board::default();
        assert_eq!(board.line(80, Ink::PLAIN), "");
        assert_eq!(board.page(80, Ink::PLAIN), "");
        let odd = Step {
            step: 0,
            loss: f64::NAN,
            grad_norm: f64::INFINITY,
            learning_rate: 0.0,
            tokens: 0,
            elapsed: Duration::ZERO,
            resident_bytes: 0,
        };
        board.apply(&Event::Step(odd));
        assert_eq!(board.line(80, Ink::PLAIN), "0 steps");
        board.apply(&Event::RunStarted(RunInfo { steps: 0, first_step: 9, ..running(1, 1, 1).info.expect("started") }));
        board.apply(&Event::Step(odd));
        assert!(!board.page(30, Ink::COLOR).is_empty());
        assert!(!board.apply(&Event::Text("x".into())));
    }
}
