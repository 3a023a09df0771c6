//! Matrix product `C = A·B` or `C += A·B` with the epilogues of a linear layer.
//!
//! Blocking in the manner of Goto and van de Geijn ("Anatomy of high-performance matrix multiplication",
//! TOMS 2008): rows of `A` are packed into panels of `mr` rows, once a call; for the matrix unit by each task for itself, or
//! they are read in place. A task owns a group of columns: it packs them into panels of `nr` columns, which stay in its
//! second-level cache, and goes down the rows block by block. Micro-kernels keep an `mr × nr` tile of `C` in registers while
//! they walk one k-block; a block of `C` gets all its k-blocks, of a long sum in f32 some thousand terms, before the next one
//! is touched, and its epilogue behind the last.
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
mod grid;
mod int8;
mod kernel;
mod left;
mod method;
mod output;
mod pack;
mod packed;
mod product;
mod small;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod words;

use crate::activation::Activation;
use crate::bf16;
use crate::values::{Values, ValuesMut};
#[cfg(target_arch = "x86_64")]
pub(crate) use amx::chains as amx_chains;
use grid::Grid;
#[cfg(target_arch = "x86_64")]
pub(crate) use int8::has_vnni;
pub use int8::{QuantisedB, gemm_int8};
pub(crate) use method::Method;
use output::Output;
use packed::Right;
pub use packed::{PackedB, Panels};
use product::Product;
pub(crate) use small::Small;
use std::ops::Range;

/// Words of the longest k-block: a panel of `B` stays in the first-level cache beside a panel of `A`.
const K_BLOCK: usize = 256;
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

/// What happens to `C` after the product, while it is still in cache: `+ bias`, then the activation or the derivative of one,
/// then `+ residual`. In bf16 the argument of the activation is rounded, kept or not.
#[derive(Default)]
pub struct Epilogue<'a> {
    /// `[n]`, added to every row.
    pub bias: Option<&'a [f32]>,
    /// The activation.
    pub activation: Option<Activation>,
    /// Where to keep its argument for the backward pass, `[m, n]`, of the type of `C`; not written without an activation.
    pub pre: Option<ValuesMut<'a>>,
    /// An activation and its arguments, `[m, n]`: `C` is multiplied by its derivative there.
    pub derivative: Option<(Activation, Values<'a>)>,
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
    let output = Output::new(c, epilogue, n);
    let k_blocks = method.words(k).div_ceil(K_BLOCK).max(1);
    let k_block = k.div_ceil(k_blocks).next_multiple_of(method.k_step()).max(1);
    let k_part = if output.is_f32() && !b.is_packed() { method.k_part(&a) * k_block } else { k };
    for k_start in (0..k.max(1)).step_by(k_part.max(1)) {
        let terms = k_start..(k_start + k_part).min(k);
        let (a, b) = (a.columns(terms.clone()), b.rows(terms.clone()));
        let (accumulate, is_last) = (accumulate || k_start > 0, terms.end == k);
        Product { method, a, b, accumulate, k_block, output: &output, is_last }.run();
    }
}
