//! A product at work: packing, and the loops around the micro-kernels.

use super::grid::{Grid, MIN_ROWS};
use super::kernel::Corner;
use super::left::Left;
use super::output::{Output, Sums};
use super::packed::Right;
use super::{MatRef, Method, TASK_WORDS};
use crate::parallel::{self, SharedMut};
use crate::scratch;
use std::ops::Range;

/// Words of `A` packed at a time, about.
const A_WORDS: usize = 4 << 20;
/// How often `A` may be packed, by as many groups of columns, before it is packed once for all of them.
const PACKINGS: usize = 4;

/// One call of [`gemm`](super::gemm()), or a part of its terms.
pub(super) struct Product<'a> {
    pub(super) method: Method,
    pub(super) a: MatRef<'a>,
    pub(super) b: Right<'a>,
    pub(super) accumulate: bool,
    pub(super) k_block: usize,
    pub(super) output: &'a Output<'a>,
    /// Whether the sums are whole behind this part.
    pub(super) is_last: bool,
}

impl Product<'_> {
    /// Goes down the rows of `A`: all at once where tasks read or pack their own, else as many at a time as are packed
    /// together.
    pub(super) fn run(&self) {
        let (method, m, k) = (self.method, self.a.rows, self.a.cols);
        if method.packs_in_tasks() {
            let grid = Grid::of_rows(
                [method.mr(), method.nr()],
                [m, self.b.n],
                method.words(k),
                self.group(m),
            );
            if method.reads_in_place(&self.a) || grid.groups() <= PACKINGS {
                return self.multiply(&grid, 0..m, None);
            }
        }
        let parts = m.div_ceil((A_WORDS / method.words(k).max(1)).max(MIN_ROWS));
        let part = m.div_ceil(parts).next_multiple_of(method.mr());
        let mut packed_a = scratch::take(method.packed_a_len(part.min(m), k));
        for start in (0..m).step_by(part) {
            let rows = start..(start + part).min(m);
            self.pack_a(rows.clone(), &mut packed_a);
            let grid = Grid::new(
                [method.mr(), method.nr()],
                [rows.len(), self.b.n],
                method.words(k),
                self.group(rows.len()),
            );
            self.multiply(&grid, rows, Some(&packed_a));
        }
    }

    /// Words of `B` of a task, for so many rows of `A`.
    fn group(&self, rows: usize) -> usize {
        self.method.group_words(&MatRef { rows, ..self.a })
    }

    /// Packs rows of `A`.
    fn pack_a(&self, rows: Range<usize>, packed: &mut [f32]) {
        let (method, k) = (self.method, self.a.cols);
        // Wide tasks, because in a transposed matrix rows are neighbours.
        let wanted = rows.len().div_ceil(4 * rayon::current_num_threads());
        let least = TASK_WORDS / method.words(k).max(1);
        let task_rows = wanted.max(least).next_multiple_of(method.mr());
        let out = SharedMut::new(packed);
        parallel::for_each(rows.len().div_ceil(task_rows), |task| {
            let first = task * task_rows;
            let count = task_rows.min(rows.len() - first);
            let len = method.packed_a_len(count, k);
            // SAFETY: tasks own disjoint panels.
            let packed = unsafe { out.slice(first * method.words(k), len) };
            let first = rows.start + first;
            method.pack_a(&self.a, first..first + count, packed);
        });
    }

    /// Multiplies rows of `A`, which may be packed, with `B`. Each task packs its columns of `B`.
    fn multiply(&self, grid: &Grid, rows: Range<usize>, packed_a: Option<&[f32]>) {
        let (method, k) = (self.method, self.b.k);
        let block_rows = method.block_rows(&self.a);
        parallel::for_each(grid.tasks(), |task| {
            let (of_task, cols) = grid.task(task);
            let own =
                if packed_a.is_some() { 0 } else { Left::scratch_len(method, &self.a, block_rows) };
            let of_b = self.b.scratch_len(method, cols.len());
            let lens = [of_b, self.output.sums_len(block_rows), own, Output::SPARE];
            let mut memory = scratch::take(scratch::total(lens));
            let [of_b, beside, own, spare] = scratch::split(&mut memory, lens);
            let packed_b = self.b.packed(method, cols.clone(), of_b);
            let _ready = method.begin();
            for first in of_task.clone().step_by(block_rows) {
                let block = first..(first + block_rows).min(of_task.end);
                let c_rows = rows.start + block.start..rows.start + block.end;
                let left = match packed_a {
                    Some(packed) => Left::packed(&packed[first * method.words(k)..]),
                    None => Left::new(method, &self.a, c_rows.clone(), own),
                };
                for strip in self.output.strips(cols.clone()) {
                    let b = &packed_b[(strip.start - cols.start) * method.words(k)..];
                    // SAFETY: this task alone has these rows and columns of C.
                    unsafe {
                        let sums = self.output.sums(c_rows.clone(), strip.clone(), beside);
                        self.multiply_block(c_rows.clone(), strip.clone(), &left, b, sums);
                        if self.is_last {
                            self.output.finish(sums, c_rows.clone(), strip, spare);
                        }
                    }
                }
            }
        });
    }

    /// Multiplies a block of rows with packed columns, one k-block after the other.
    ///
    /// # Safety
    /// The calling task alone has the sums of these rows and columns.
    unsafe fn multiply_block(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        a: &Left,
        b: &[f32],
        sums: Sums,
    ) {
        let (method, k) = (self.method, self.a.cols);
        let (mr, nr, words) = (method.mr(), method.nr(), method.words(k));
        if k == 0 && !self.accumulate {
            // SAFETY: the caller's promise.
            (0..rows.len()).for_each(|i| unsafe { sums.row(i, cols.len()) }.fill(0.0));
        }
        for k_start in (0..k).step_by(self.k_block) {
            let k_len = self.k_block.min(k - k_start);
            let skip = method.words(k_start);
            let add = self.accumulate || k_start > 0;
            for col in (0..cols.len()).step_by(nr) {
                let b = &b[col * words + nr * skip..];
                for row in (0..rows.len()).step_by(mr) {
                    let height = mr.min(rows.len() - row);
                    let a = a.panel(method, row, height, k_start, words);
                    let data = sums.data.at(row * sums.stride + col);
                    let width = nr.min(cols.len() - col);
                    let c = Corner { data, stride: sums.stride, rows: height, cols: width };
                    // SAFETY: the caller's promise.
                    unsafe { method.multiply(k_len, a, b, c, add) };
                }
            }
        }
    }
}
