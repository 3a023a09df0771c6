//! Matrix product `C = A·B` or `C += A·B` with the epilogues of a linear layer.
//!
//! Blocking in the manner of Goto and van de Geijn ("Anatomy of high-performance matrix multiplication",
//! TOMS 2008): rows of `A` are packed into panels of `mr` rows, once a call. A task owns a group of columns:
//! it packs them into panels of `nr` columns, which stay in its second-level cache, and goes down the rows
//! block by block. Micro-kernels keep an `mr × nr` tile of `C` in registers while they walk one k-block; a
//! block of `C` gets all its k-blocks and its epilogue before the next one is touched.
//!
//! Every element of `C` is one chain of multiply-adds over k in ascending order, interrupted only at
//! multiples of the k-block; the chain does not depend on how rows and columns are shared out, so the
//! result is bit-identical at any number of threads.
//!
//! Matrices are f32 in memory, whatever the [`Precision`], or bf16: f32 is rounded while packing. A `C` in bf16 is summed
//! and finished beside it, strip by strip, and rounded once. Which instructions multiply is chosen at run time
//! (`gemm/method.rs`).

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod dot;
mod end;
mod int8;
mod kernel;
mod method;
mod pack;
mod packed;
mod small;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod words;

use crate::activation::Activation;
use crate::bf16;
use crate::parallel::{self, SharedMut};
use crate::scratch;
use crate::values::{Values, ValuesMut};
#[cfg(target_arch = "x86_64")]
pub(crate) use amx::chains as amx_chains;
use end::{End, Sums};
#[cfg(target_arch = "x86_64")]
pub(crate) use int8::has_vnni;
pub use int8::{QuantisedB, gemm_int8};
use kernel::Corner;
pub(crate) use method::Method;
pub use packed::PackedB;
use packed::Right;
pub(crate) use small::Small;
use std::ops::Range;

/// Words of the longest k-block: a panel of `B` stays in the first-level cache beside a panel of `A`.
const K_BLOCK: usize = 256;
/// Tasks a thread, if there are columns enough.
const TASKS: usize = 2;
/// k-blocks that are multiplied before the next ones are packed, where sums can wait in `C`: with more of them, few columns
/// of `B` would fit into the second-level cache, and `A` would be read again for each few.
const K_PART: usize = 4;
/// Words of `A` packed at a time, about, and the fewest rows: `B` is packed again for the next ones.
const A_WORDS: usize = 4 << 20;
const MIN_ROWS: usize = 512;
/// Columns that are summed beside a `C` in bf16 at a time: their sums stay in the second-level cache.
const STRIP: usize = 256;
/// Words of `A` that a task packs, at least.
const TASK_WORDS: usize = 32 * 1024;

/// A view of a matrix inside a slice, with any strides.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    data: Values<'a>,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// `rows × cols` elements in row-major order.
    ///
    /// # Panics
    /// If `data` does not have exactly `rows · cols` elements.
    pub fn row_major(data: impl Into<Values<'a>>, rows: usize, cols: usize) -> Self {
        let data = data.into();
        assert_eq!(data.len(), rows * cols, "gemm: a {rows}x{cols} matrix");
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Element (i, j) is `data[i · row_stride + j · col_stride]`.
    ///
    /// # Panics
    /// If the last element lies outside `data`.
    pub fn strided(
        data: impl Into<Values<'a>>,
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
        let data = data.into();
        let last = (rows.max(1) - 1) * row_stride + (cols.max(1) - 1) * col_stride;
        assert!(rows * cols == 0 || last < data.len(), "gemm: strided {rows}x{cols} matrix");
        Self { data, rows, cols, row_stride, col_stride }
    }

    /// The transposed view; nothing moves.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Some columns.
    fn columns(&self, columns: Range<usize>) -> Self {
        let data = self.data.range(columns.start * self.col_stride..self.data.len());
        Self { data, cols: columns.len(), ..*self }
    }

    /// The values, of which the caller knows that they are f32.
    fn f32(&self) -> &'a [f32] {
        match self.data {
            Values::F32(data) => data,
            Values::Bf16(_) => unreachable!("gemm: bf16 where f32 is packed"),
        }
    }

    /// Some rows in f32, side by side in `wide`.
    fn widened<'w>(&self, rows: Range<usize>, wide: &'w mut [f32]) -> MatRef<'w> {
        let Values::Bf16(data) = self.data else { unreachable!("gemm: only bf16 is widened") };
        let (rows_len, cols) = (rows.len(), self.cols);
        if self.col_stride == 1 {
            for (row, wide) in rows.zip(wide.chunks_exact_mut(cols.max(1))) {
                bf16::widen(&data[row * self.row_stride..][..cols], wide);
            }
            MatRef::row_major(&*wide, rows_len, cols)
        } else {
            for (col, wide) in (0..cols).zip(wide.chunks_exact_mut(rows_len.max(1))) {
                for (row, wide) in rows.clone().zip(wide) {
                    *wide = data[row * self.row_stride + col * self.col_stride].to_f32();
                }
            }
            MatRef::row_major(&*wide, cols, rows_len).transposed()
        }
    }
}

/// What happens to `C` after the product, while it is still in cache: `+ bias`, then the activation, then
/// `+ residual`. In bf16 the argument of the activation is rounded, kept or not.
#[derive(Default)]
pub struct Epilogue<'a> {
    /// `[n]`, added to every row.
    pub bias: Option<&'a [f32]>,
    /// The activation.
    pub activation: Option<Activation>,
    /// Where to keep its argument for the backward pass, `[m, n]`, of the type of `C`; not written without an activation.
    pub pre: Option<ValuesMut<'a>>,
    /// `[m, n]`, added last.
    pub residual: Option<&'a [f32]>,
}

/// How the values of `A` and `B` are rounded before they are multiplied; sums are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Not at all.
    F32,
    /// To bf16, ties to even; NaN stays NaN. Denormal numbers may count as 0.
    Bf16,
}

/// `C = A·B` (`accumulate`: `C += A·B`), then the epilogue. `C` is row-major `[m, n]`.
///
/// # Panics
/// If the sizes do not fit together, or if a `C` in bf16 is to be added to.
pub fn gemm<'c>(
    precision: Precision,
    a: MatRef,
    b: MatRef,
    c: impl Into<ValuesMut<'c>>,
    accumulate: bool,
    epilogue: Epilogue,
) {
    gemm_by(Method::of(precision), a, Right::from(b), c.into(), accumulate, epilogue);
}

/// [`gemm`] with a matrix `B` that was packed before.
///
/// # Panics
/// As [`gemm`].
pub fn gemm_packed<'c>(
    a: MatRef,
    b: &PackedB,
    c: impl Into<ValuesMut<'c>>,
    accumulate: bool,
    epilogue: Epilogue,
) {
    gemm_by(b.method, a, Right::from(b), c.into(), accumulate, epilogue);
}

/// [`gemm`] by a certain method.
fn gemm_by(
    method: Method,
    a: MatRef,
    b: Right,
    c: ValuesMut,
    accumulate: bool,
    epilogue: Epilogue,
) {
    let (m, k, n) = (a.rows, a.cols, b.n);
    assert_eq!(b.k, k, "gemm: rows of B");
    assert_eq!(c.len(), m * n, "gemm: C is {m}x{n}");
    assert!(!accumulate || matches!(c, ValuesMut::F32(_)), "gemm: sums in bf16");
    if m * n == 0 {
        return;
    }
    let end = End::new(c, epilogue, n);
    let k_blocks = method.words(k).div_ceil(K_BLOCK).max(1);
    let k_block = k.div_ceil(k_blocks).next_multiple_of(method.k_step()).max(1);
    let k_part = if end.is_f32() && !b.is_packed() { K_PART * k_block } else { k };
    for k_start in (0..k.max(1)).step_by(k_part.max(1)) {
        let terms = k_start..(k_start + k_part).min(k);
        let (a, b) = (a.columns(terms.clone()), b.rows(terms.clone()));
        let (accumulate, is_last) = (accumulate || k_start > 0, terms.end == k);
        Product { method, a, b, accumulate, k_block, end: &end, is_last }.run();
    }
}

/// One call of [`gemm`], or a part of its terms.
struct Product<'a> {
    method: Method,
    a: MatRef<'a>,
    b: Right<'a>,
    accumulate: bool,
    k_block: usize,
    end: &'a End<'a>,
    /// Whether the sums are whole behind this part.
    is_last: bool,
}

impl Product<'_> {
    /// Goes down the rows of `A`, as many at a time as are packed together.
    fn run(&self) {
        let (method, m, k) = (self.method, self.a.rows, self.a.cols);
        let parts = m.div_ceil((A_WORDS / method.words(k).max(1)).max(MIN_ROWS));
        let part = m.div_ceil(parts).next_multiple_of(method.mr());
        let mut packed_a = scratch::take(method.packed_a_len(part.min(m), k));
        for start in (0..m).step_by(part) {
            let rows = start..(start + part).min(m);
            self.pack_a(rows.clone(), &mut packed_a);
            self.multiply(rows, &packed_a);
        }
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

    /// Multiplies packed rows of `A` with `B`. Each task packs its columns of `B`.
    fn multiply(&self, rows: Range<usize>, packed_a: &[f32]) {
        let (method, k, n) = (self.method, self.b.k, self.b.n);
        let words = method.words(k).max(1);
        let (sizes, group) = ([rows.len(), n], method.group_words(rows.len() * words));
        let grid = Grid::new([method.mr(), method.nr()], sizes, words, group);
        parallel::for_each(grid.tasks(), |task| {
            let (of_task, cols) = grid.task(task);
            let mut scratch = scratch::take(self.b.scratch_len(method, cols.len()));
            let packed_b = self.b.packed(method, cols.clone(), &mut scratch);
            let mut beside = scratch::take(self.end.sums_len(method.block_rows()));
            let _ready = method.begin();
            for first in of_task.clone().step_by(method.block_rows()) {
                let block = first..(first + method.block_rows()).min(of_task.end);
                let a = &packed_a[first * method.words(self.a.cols)..];
                let c_rows = rows.start + block.start..rows.start + block.end;
                for strip in self.end.strips(cols.clone()) {
                    let b = &packed_b[(strip.start - cols.start) * method.words(k)..];
                    // SAFETY: this task alone has these rows and columns of C.
                    unsafe {
                        let sums = self.end.sums(c_rows.clone(), strip.clone(), &mut beside);
                        self.multiply_block(c_rows.clone(), strip.clone(), a, b, sums);
                        if self.is_last {
                            self.end.finish(sums, c_rows.clone(), strip);
                        }
                    }
                }
            }
        });
    }

    /// Multiplies a block of packed rows with packed columns, one k-block after the other.
    ///
    /// # Safety
    /// The calling task alone has the sums of these rows and columns.
    unsafe fn multiply_block(
        &self,
        rows: Range<usize>,
        cols: Range<usize>,
        a: &[f32],
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
                    let a = &a[row * words + method.packed_a_len(height, k_start)..];
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

/// How `C` is shared out: parts of rows × groups of columns.
struct Grid {
    /// Rows, their panels, and the parts they are cut into.
    rows: [usize; 3],
    mr: usize,
    /// The same of columns.
    cols: [usize; 3],
    nr: usize,
}

impl Grid {
    /// For panels of this size, `[rows, cols]` of C, and columns of so many words, of which a task takes at most `group`.
    fn new([mr, nr]: [usize; 2], [rows, cols]: [usize; 2], words: usize, group: usize) -> Self {
        let threads = rayon::current_num_threads();
        let (row_panels, col_panels) = (rows.div_ceil(mr), cols.div_ceil(nr));
        let largest = (group / (nr * words.max(1))).clamp(1, col_panels);
        let wanted = if threads == 1 { 1 } else { TASKS * threads };
        // Each group of columns reads `A`, and each part of rows packs `B`: parts of rows have to be high.
        let high = rows >= TASKS * MIN_ROWS;
        let groups = col_panels.div_ceil(largest).max(if high { threads } else { wanted });
        // A multiple of the thread count, so that equal tasks finish together.
        let groups = groups.next_multiple_of(threads).min(col_panels);
        let enough = high || groups < threads;
        let row_parts = if enough { wanted.div_ceil(groups).min(row_panels) } else { 1 };
        Self { rows: [rows, row_panels, row_parts], mr, cols: [cols, col_panels, groups], nr }
    }

    fn tasks(&self) -> usize {
        self.rows[2] * self.cols[2]
    }

    /// The rows and the columns of one task.
    fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let part = |[len, panels, parts]: [usize; 3], size: usize, i: usize| {
            let start = |i: usize| (i * panels / parts * size).min(len);
            start(i)..start(i + 1)
        };
        (
            part(self.rows, self.mr, task / self.cols[2]),
            part(self.cols, self.nr, task % self.cols[2]),
        )
    }
}
