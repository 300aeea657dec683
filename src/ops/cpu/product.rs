//! Products of matrices: what is to be computed, shared out among the threads.
//!
//! A [`Job`] is one result: a sum of terms `rows · factor`, column by column of panels. Each thread packs the panels of its share
//! (a 4-bit weight is expanded only there, into memory that stays in the cache) and lets all rows pass over them. The order of
//! additions of an element depends on nothing but the shapes, so the number of threads does not change a bit.

use std::ops::Range;
use std::sync::Arc;

use half::bf16;

use super::Cpu;
use super::factor::Factor;
use super::kept::Panels;
use super::kernel::{Panel, Rows, Unit, multiply, padded};
use super::pointwise;
use super::threads::{self, SharedSlice};
use crate::device::Activation;
use crate::device::Level;
use crate::error::Result;
use crate::ops::Dropout;

/// Floats of packed panels that stay in the second-level cache.
const PANELS: usize = 128 << 10;

/// One summand of a result: left rows `rows` of it (the others have no part in it) times a factor.
pub(super) struct Term<'a> {
    pub(super) left: Rows<'a>,
    pub(super) rows: Range<usize>,
    pub(super) factor: Factor<'a>,
    /// Elements summed over.
    pub(super) inner: usize,
    /// What the term's part of the result is multiplied by, and the width of that mask's rows.
    pub(super) mask: Option<(Dropout, usize)>,
}

/// A result, `[rows, cols]`. Its first term has all rows.
pub(super) struct Job<'a> {
    pub(super) terms: Vec<Term<'a>>,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) sink: Sink<'a>,
}

/// What becomes of a result.
pub(super) enum Sink<'a> {
    /// `out = factor · product + bias`, rows `stride` apart.
    Store { out: Out<'a>, stride: usize, factor: f32, bias: Option<&'a [f32]> },
    /// `out = residual + product + bias`, all of the result's size.
    Residual { out: &'a mut [f32], residual: &'a [f32], bias: Option<&'a [f32]> },
    /// `out[i] += product row i`, wherever that row lies.
    AddRows(Vec<&'a mut [f32]>),
    /// `out += productᵀ`, `[cols, rows]`.
    AddTransposed(&'a mut [f32]),
}

/// Numbers of either type, to be written.
pub(super) enum Out<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

impl<'a> From<&'a mut Activation> for Out<'a> {
    fn from(x: &'a mut Activation) -> Self {
        match x {
            Activation::F32(x) => Out::F32(x.host_mut()),
            Activation::Bf16(x) => Out::Bf16(x.host_mut()),
        }
    }
}

/// Columns of a panel, and rows that pass over packed panels at a time.
fn tile(level: Level) -> (usize, usize) {
    match level {
        // The crate packs the panel anew for each product: few, large ones.
        Level::Portable => (256, 512),
        // 48 is a multiple of the height of every tile but one, and the tiles' results stay in the first-level cache.
        _ => (64, 48),
    }
}

/// Some panels of one job and the rows that pass over them.
#[derive(Debug, Clone, PartialEq)]
struct Piece {
    job: usize,
    panels: Range<usize>,
    rows: Range<usize>,
}

/// Computes all jobs.
pub(super) fn run(cpu: &Cpu, unit: Unit, jobs: Vec<Job<'_>>) -> Result<()> {
    let jobs: Vec<Shared<'_>> = jobs.into_iter().map(|job| Shared::new(cpu, unit, job)).collect::<Result<_>>()?;
    let sizes: Vec<_> = jobs.iter().map(|job| (job.rows, job.cols, job.inner())).collect();
    let parts = share(&sizes, tile(cpu.level), threads::count());
    threads::try_each(parts.len(), |part| {
        parts[part].iter().try_for_each(|piece| jobs[piece.job].compute(cpu, unit, piece))
    })
}

/// Multiplications below which a second thread is not worth waking.
const SMALL: usize = 1 << 18;
/// Parts for each thread, where there are panels enough: another program may take a processor away at any time.
const PARTS: usize = 3;

/// Parts of the work, to be taken by `threads` threads as they get to it. A job is `(rows, cols, inner)`.
///
/// Most panels go whole, several together, to whoever is free next. The few at the end that do not come out even are cut by rows, so
/// that all threads end together; each thread that takes some rows of a panel packs it for itself.
fn share(jobs: &[(usize, usize, usize)], (width, block): (usize, usize), threads: usize) -> Vec<Vec<Piece>> {
    let work: usize = jobs.iter().map(|(rows, cols, inner)| rows * cols * inner).sum();
    let panels: Vec<(usize, usize)> = (jobs.iter().enumerate())
        .flat_map(|(job, (_, cols, _))| (0..cols.div_ceil(width)).map(move |panel| (job, panel)))
        .collect();
    let whole = |(job, panel): &(usize, usize)| Piece { job: *job, panels: *panel..panel + 1, rows: 0..jobs[*job].0 };
    if threads == 1 || work < SMALL {
        let mut all = Vec::new();
        panels.iter().for_each(|panel| push(&mut all, whole(panel)));
        return vec![all];
    }
    let (even, rest) = panels.split_at(panels.len() - panels.len() % threads);
    let mut parts = Vec::new();
    for some in even.chunks((even.len() / (PARTS * threads)).max(1)) {
        let mut part = Vec::new();
        some.iter().for_each(|panel| push(&mut part, whole(panel)));
        parts.push(part);
    }
    for panel in rest {
        let rows = jobs[panel.0].0;
        let some = rows.div_ceil(threads.div_ceil(rest.len())).next_multiple_of(block / 4).max(block / 2);
        let cut = (0..rows).step_by(some).map(|start| Piece { rows: start..(start + some).min(rows), ..whole(panel) });
        parts.extend(cut.map(|piece| vec![piece]));
    }
    parts
}

/// Adds a piece, joined with the one before it where they are neighbours.
fn push(part: &mut Vec<Piece>, piece: Piece) {
    match part.last_mut() {
        Some(last) if last.job == piece.job && last.rows == piece.rows && last.panels.end == piece.panels.start => {
            last.panels.end = piece.panels.end;
        }
        _ => part.push(piece),
    }
}

/// A job whose result several threads write, each its own rows and columns.
struct Shared<'a> {
    terms: Vec<Term<'a>>,
    /// The panels of each term that need not be packed.
    kept: Vec<Option<Arc<Panels>>>,
    rows: usize,
    cols: usize,
    target: Target<'a>,
}

/// A [`Sink`] that threads share.
enum Target<'a> {
    F32 { out: SharedSlice<'a, f32>, stride: usize, factor: f32, bias: Option<&'a [f32]> },
    Bf16 { out: SharedSlice<'a, bf16>, stride: usize, factor: f32, bias: Option<&'a [f32]> },
    Residual { out: SharedSlice<'a, f32>, residual: &'a [f32], bias: Option<&'a [f32]> },
    AddRows(Vec<SharedSlice<'a, f32>>),
    AddTransposed(SharedSlice<'a, f32>),
}

impl<'a> Shared<'a> {
    fn new(cpu: &Cpu, unit: Unit, job: Job<'a>) -> Result<Self> {
        let Job { terms, rows, cols, sink } = job;
        assert!(terms.first().is_some_and(|term| term.rows == (0..rows)), "the first term has all rows");
        let target = match sink {
            Sink::Store { out: Out::F32(out), stride, factor, bias } => {
                Target::F32 { out: SharedSlice::new(out), stride, factor, bias }
            }
            Sink::Store { out: Out::Bf16(out), stride, factor, bias } => {
                Target::Bf16 { out: SharedSlice::new(out), stride, factor, bias }
            }
            Sink::Residual { out, residual, bias } => Target::Residual { out: SharedSlice::new(out), residual, bias },
            Sink::AddRows(rows) => Target::AddRows(rows.into_iter().map(SharedSlice::new).collect()),
            Sink::AddTransposed(out) => Target::AddTransposed(SharedSlice::new(out)),
        };
        let width = tile(cpu.level).0;
        let kept = |term: &Term<'_>| cpu.kept.of(cpu, unit, term.factor, (cols, term.inner), width);
        let kept = terms.iter().map(kept).collect::<Result<_>>()?;
        Ok(Self { terms, kept, rows, cols, target })
    }

    /// Elements summed over, of all terms.
    fn inner(&self) -> usize {
        self.terms.iter().map(|term| term.inner).sum()
    }

    fn compute(&self, cpu: &Cpu, unit: Unit, piece: &Piece) -> Result<()> {
        let (width, block) = tile(cpu.level);
        let units: usize = self.terms.iter().map(|term| term.left.units()).sum();
        if units * width > PANELS {
            return self.compute_in_steps(cpu, unit, piece);
        }
        let each = units * width;
        let group = (PANELS / each.max(1)).clamp(1, piece.panels.len());
        let mut panels = cpu.pool.take(group * each)?;
        let mut tile = cpu.pool.take(block * width)?;
        for first in piece.panels.clone().step_by(group) {
            let some = first..(first + group).min(piece.panels.end);
            for (panel, space) in some.clone().zip(panels.chunks_exact_mut(each.max(1))) {
                let columns = self.columns(panel, width);
                let mut space = space;
                for (term, kept) in self.terms.iter().zip(&self.kept) {
                    let (here, rest) = space.split_at_mut(term.left.units() * width);
                    if kept.is_none() {
                        let panel = Panel { data: here, width: padded(cpu.level, columns.len(), width) };
                        term.factor.pack(cpu, unit, columns.clone(), 0..term.inner, panel)?;
                    }
                    space = rest;
                }
            }
            for start in piece.rows.clone().step_by(block) {
                let rows = start..(start + block).min(piece.rows.end);
                for (panel, space) in some.clone().zip(panels.chunks_exact(each.max(1))) {
                    let columns = self.columns(panel, width);
                    let wide = padded(cpu.level, columns.len(), width);
                    let mut space = space;
                    for (i, term) in self.terms.iter().enumerate() {
                        let (here, rest) = space.split_at(term.left.units() * width);
                        let all = 0..term.left.units();
                        let data = self.kept[i].as_ref().map_or(here, |kept| kept.panel(panel));
                        let panel = Packed { data, width: wide, first: columns.start };
                        term.add_to(cpu, unit, &rows, all, &panel, (&mut tile, width), i > 0)?;
                        space = rest;
                    }
                    self.finish(&rows, &columns, &tile, width);
                }
            }
        }
        Ok(())
    }

    /// As [`Shared::compute`] where a panel is too long for the cache: a part of what is summed over at a time, while the results of
    /// all rows wait in memory.
    fn compute_in_steps(&self, cpu: &Cpu, unit: Unit, piece: &Piece) -> Result<()> {
        let (width, block) = tile(cpu.level);
        let step = PANELS / width * unit.elements();
        let mut space = cpu.pool.take(unit.count(step) * width)?;
        let mut sums = cpu.pool.take(piece.rows.len() * width)?;
        for panel in piece.panels.clone() {
            let columns = self.columns(panel, width);
            let wide = padded(cpu.level, columns.len(), width);
            for (i, term) in self.terms.iter().enumerate() {
                for start in (0..term.inner).step_by(step) {
                    let inner = start..(start + step).min(term.inner);
                    let units = unit.count(inner.start)..unit.count(inner.end);
                    let data = match &self.kept[i] {
                        Some(kept) => &kept.panel(panel)[units.start * wide..],
                        None => {
                            let panel = Panel { data: &mut space, width: wide };
                            term.factor.pack(cpu, unit, columns.clone(), inner, panel)?;
                            &space[..]
                        }
                    };
                    for first in piece.rows.clone().step_by(block) {
                        let rows = first..(first + block).min(piece.rows.end);
                        let tile = &mut sums[(first - piece.rows.start) * width..];
                        let panel = Packed { data, width: wide, first: columns.start };
                        term.add_to(cpu, unit, &rows, units.clone(), &panel, (tile, width), i > 0 || start > 0)?;
                    }
                }
            }
            for first in piece.rows.clone().step_by(block) {
                let rows = first..(first + block).min(piece.rows.end);
                self.finish(&rows, &columns, &sums[(first - piece.rows.start) * width..], width);
            }
        }
        Ok(())
    }

    fn columns(&self, panel: usize, width: usize) -> Range<usize> {
        panel * width..((panel + 1) * width).min(self.cols)
    }

    /// Puts a tile, `rows` by `columns`, where it belongs.
    fn finish(&self, rows: &Range<usize>, columns: &Range<usize>, tile: &[f32], stride: usize) {
        let tile = tile.chunks(stride).map(|row| &row[..columns.len()]);
        let of = |bias: &Option<&'a [f32]>| bias.map(|bias| &bias[columns.clone()]);
        match &self.target {
            Target::F32 { out, stride, factor, bias } => {
                for (row, tile) in rows.clone().zip(tile) {
                    // SAFETY: no other piece has these rows and columns.
                    let out = unsafe { out.part(row * stride + columns.start..row * stride + columns.end) };
                    pointwise::scale_into(tile, *factor, of(bias), out);
                }
            }
            Target::Bf16 { out, stride, factor, bias } => {
                for (row, tile) in rows.clone().zip(tile) {
                    // SAFETY: as above.
                    let out = unsafe { out.part(row * stride + columns.start..row * stride + columns.end) };
                    pointwise::scale_into(tile, *factor, of(bias), out);
                }
            }
            Target::Residual { out, residual, bias } => {
                for (row, tile) in rows.clone().zip(tile) {
                    let at = row * self.cols + columns.start..row * self.cols + columns.end;
                    // SAFETY: as above.
                    let out = unsafe { out.part(at.clone()) };
                    pointwise::sum_into(tile, &residual[at], of(bias), out);
                }
            }
            Target::AddRows(outs) => {
                for (row, tile) in rows.clone().zip(tile) {
                    // SAFETY: as above.
                    pointwise::add(tile, unsafe { outs[row].part(columns.clone()) });
                }
            }
            Target::AddTransposed(out) => {
                for (row, tile) in rows.clone().zip(tile) {
                    for (column, value) in columns.clone().zip(tile) {
                        let at = column * self.rows + row;
                        // SAFETY: as above.
                        let out = unsafe { out.part(at..at + 1) };
                        out[0] += value;
                    }
                }
            }
        }
    }
}

/// A packed panel and the first of the result's columns it stands for.
struct Packed<'a> {
    data: &'a [f32],
    width: usize,
    first: usize,
}

impl Term<'_> {
    /// Adds this term's part of `units` to the tile of `rows`.
    #[allow(clippy::too_many_arguments)]
    fn add_to(
        &self,
        cpu: &Cpu,
        unit: Unit,
        rows: &Range<usize>,
        units: Range<usize>,
        panel: &Packed<'_>,
        (tile, stride): (&mut [f32], usize),
        add: bool,
    ) -> Result<()> {
        let (start, end) = (rows.start.max(self.rows.start), rows.end.min(self.rows.end));
        if start >= end {
            return Ok(());
        }
        let (first, count) = (start - self.rows.start, end - start);
        let left = self.left.part(first, units);
        let tile = &mut tile[(start - rows.start) * stride..];
        let Some((dropout, width)) = &self.mask else {
            multiply(cpu.level, unit, left, count, panel.data, panel.width, tile, stride, add);
            return Ok(());
        };
        let mut part = cpu.pool.take(count * panel.width)?;
        multiply(cpu.level, unit, left, count, panel.data, panel.width, &mut part, panel.width, false);
        for (i, part) in part.chunks_exact_mut(panel.width).enumerate() {
            pointwise::mask(dropout, (first + i) * width + panel.first, part);
            pointwise::add(part, &mut tile[i * stride..]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_is_computed_once_and_shares_are_alike() {
        for jobs in [
            vec![(1024, 576, 576), (1024, 192, 576), (1024, 192, 576)],
            vec![(3, 64, 10)],
            vec![(7, 1000, 64), (500, 16, 64)],
            // An adapter on no row has products of no rows, and gradients that sum nothing.
            vec![(64, 576, 0)],
            vec![(1024, 64, 576), (96, 576, 0), (0, 16, 576)],
        ] {
            for threads in 1..6 {
                let parts = share(&jobs, (64, 48), threads);
                let mut covered: Vec<_> = parts
                    .iter()
                    .flatten()
                    .flat_map(|p| p.panels.clone().map(|panel| (p.job, panel, p.rows.clone())))
                    .collect();
                covered.sort_by_key(|(job, panel, rows)| (*job, *panel, rows.start));
                for (job, &(rows, cols, _)) in jobs.iter().enumerate() {
                    for panel in 0..cols.div_ceil(64) {
                        let mut next = 0;
                        for (_, _, part) in covered.iter().filter(|c| (c.0, c.1) == (job, panel)) {
                            assert_eq!(part.start, next);
                            next = part.end;
                        }
                        assert_eq!(next, rows, "panel {panel} of job {job} with {threads} threads");
                    }
                }
            }
        }
    }

    #[test]
    fn two_threads_get_halves_of_nine_panels() {
        let parts = share(&[(1024, 576, 576)], (64, 48), 2);
        let rows = |part: &[Piece]| part.iter().map(|p| p.panels.len() * p.rows.len()).sum::<usize>();
        assert_eq!(parts.iter().map(|part| rows(part)).sum::<usize>(), 9 * 1024);
        assert_eq!(parts.iter().filter(|part| rows(part) == 1024).count(), 8);
        let [.., a, b] = parts.as_slice() else { panic!("two halves at the end") };
        assert!(rows(a).abs_diff(rows(b)) <= 48, "{parts:?}");
    }
}
