//! Matrix product `C = A·B` or `C += A·B` with the epilogues of a linear layer.
//!
//! The classical blocking (Goto and van de Geijn, "Anatomy of high-performance matrix
//! multiplication", TOMS 2008): a block of `B` is packed into panels of `nr` columns, each task packs
//! its rows of `A` into panels of `mr` rows, and a micro-kernel keeps an `mr × nr` tile of `C` in
//! registers while it walks the common dimension. Rows at the edge run a kernel of exactly their
//! number, so that no work is spent on padding.
//!
//! Every element of `C` is one chain of multiply-adds over k in ascending order, interrupted only at
//! multiples of the k-block; the chain does not depend on how rows and columns are shared out, so the
//! result is bit-identical at any number of threads.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod kernel;
mod pack;

use crate::activation::{self, Activation};
use crate::parallel::{self, SharedMut};
use crate::scratch;
use crate::simd;
use kernel::{Corner, Rows};
pub(crate) use kernel::{Tile, tile};
pub(crate) use pack::{pack_a, pack_b, packed_a_len, packed_b_len};
use std::ops::Range;

/// Longest k-block: a panel of `B` (k-block × nr) stays in the first-level cache beside a panel of `A`.
const K_BLOCK: usize = 256;
/// Rows of `A` that a task packs at a time, about; a block stays in the second-level cache.
const M_BLOCK: usize = 192;
/// Widest block of `B` packed at a time.
const N_BLOCK: usize = 4096;
/// Floats of `B` packed at a time, about: every task reads them again, from a third-level cache that
/// other programs use too.
const B_BLOCK: usize = 256 * 1024;

/// A view of a matrix inside a slice, with any strides.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    data: &'a [f32],
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
    pub fn row_major(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "gemm: a {rows}x{cols} matrix");
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Element (i, j) is `data[i · row_stride + j · col_stride]`.
    ///
    /// # Panics
    /// If the last element lies outside `data`.
    pub fn strided(
        data: &'a [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
        col_stride: usize,
    ) -> Self {
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
}

/// What happens to `C` after the product, while it is still in cache: `+ bias`, then the activation
/// (the value before it is kept for the backward pass), then `+ residual`.
#[derive(Default)]
pub struct Epilogue<'a> {
    /// `[n]`, added to every row.
    pub bias: Option<&'a [f32]>,
    /// The activation and where to keep its argument, `[m, n]`.
    pub activation: Option<(Activation, &'a mut [f32])>,
    /// `[m, n]`, added last.
    pub residual: Option<&'a [f32]>,
}

/// `C = A·B` (`accumulate`: `C += A·B`), then the epilogue. `C` is row-major `[m, n]`.
///
/// # Panics
/// If the sizes do not fit together.
pub fn gemm(a: MatRef, b: MatRef, c: &mut [f32], accumulate: bool, epilogue: Epilogue) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(b.rows, k, "gemm: rows of B");
    assert_eq!(c.len(), m * n, "gemm: C is {m}x{n}");
    let epilogue = SharedEpilogue::new(epilogue, m, n);
    if m * n == 0 {
        return;
    }
    if k == 0 && !accumulate {
        c.fill(0.0);
    }
    let k_blocks = k.div_ceil(K_BLOCK).max(1);
    let k_block = k.div_ceil(k_blocks);
    let product =
        Product { tile: tile(), a, b, c: SharedMut::new(c), accumulate, k_block, epilogue };
    for n_start in (0..n).step_by(N_BLOCK) {
        let n_len = N_BLOCK.min(n - n_start);
        let columns = n_start..n_start + n_len;
        let span = (B_BLOCK / (k_block * n_len).max(1)).clamp(1, k_blocks);
        let len = span * packed_b_len(product.tile, k_block, n_len);
        let mut packed_b = scratch::take(len);
        for first in (0..k_blocks).step_by(span) {
            let blocks = first..(first + span).min(k_blocks);
            product.pack_b(blocks.clone(), columns.clone(), &mut packed_b);
            product.add_blocks(blocks, columns.clone(), &packed_b);
        }
    }
}

/// One call of [`gemm`].
struct Product<'a> {
    tile: &'static Tile,
    a: MatRef<'a>,
    b: MatRef<'a>,
    c: SharedMut,
    accumulate: bool,
    k_block: usize,
    epilogue: SharedEpilogue<'a>,
}

impl Product<'_> {
    /// The range of k of a block.
    fn k_range(&self, block: usize) -> Range<usize> {
        let end = (block + 1) * self.k_block;
        block * self.k_block..end.min(self.a.cols)
    }

    /// Packs k-blocks of some columns of `B`, one behind the other, several panels a task.
    fn pack_b(&self, blocks: Range<usize>, columns: Range<usize>, packed: &mut [f32]) {
        let nr = self.tile.nr;
        let task_cols = (32 * 1024 / (nr * self.k_block.max(1))).max(1) * nr;
        let tasks = columns.len().div_ceil(task_cols);
        let block_len = packed_b_len(self.tile, self.k_block, columns.len());
        let out = SharedMut::new(packed);
        parallel::for_each(blocks.len() * tasks, |task| {
            let (block, j) = (task / tasks, task % tasks * task_cols);
            let k = self.k_range(blocks.start + block);
            let cols = task_cols.min(columns.len() - j);
            let len = packed_b_len(self.tile, k.len(), cols);
            // SAFETY: tasks own disjoint panels.
            let packed = unsafe { out.slice(block * block_len + j * k.len(), len) };
            pack_b(self.tile, &self.b, k.start, k.len(), columns.start + j, cols, packed);
        });
    }

    /// Adds the products of some k-blocks to some columns of `C`; the last block ends with the epilogue.
    fn add_blocks(&self, blocks: Range<usize>, columns: Range<usize>, packed_b: &[f32]) {
        let (tile, n) = (self.tile, self.b.cols);
        let block_len = packed_b_len(tile, self.k_block, columns.len());
        let grid = Grid::new(self.a.rows, columns.len().div_ceil(tile.nr), tile.mr);
        parallel::for_each(grid.tasks(), |task| {
            let (rows, panels) = grid.task(task);
            let mut packed_a = scratch::take(packed_a_len(self.k_block, rows.len()));
            for block in blocks.clone() {
                let packed_b = &packed_b[(block - blocks.start) * block_len..];
                let k = self.k_range(block);
                let add = self.accumulate || block > 0;
                let last = k.end == self.a.cols;
                pack_a(tile, &self.a, rows.start, rows.len(), k.start, k.len(), &mut packed_a);
                for panel in panels.clone() {
                    let (b, next_b) =
                        packed_b[panel * tile.nr * k.len()..].split_at(tile.nr * k.len());
                    let j = columns.start + panel * tile.nr;
                    let width = tile.nr.min(columns.end - j);
                    let corner = self.c.at(rows.start * n + j);
                    // SAFETY: this task alone owns rows × [j, j + width) of C.
                    unsafe {
                        let c = Corner { data: corner, stride: n, rows: rows.len(), cols: width };
                        column_strip(tile, &packed_a, b, next_b, k.len(), c, add);
                    }
                    if last {
                        self.epilogue.apply(self.c, rows.clone(), j, width, n);
                    }
                }
            }
        });
    }
}

/// Multiplies packed rows of `A` with one packed panel of `B`, and asks for the panel behind it, if any.
///
/// # Safety
/// `c` lies inside a matrix, and the caller owns its elements; the packed buffers were made by
/// [`pack_a`] and [`pack_b()`] with the same `tile` and `k`.
unsafe fn column_strip(
    tile: &Tile,
    packed_a: &[f32],
    b_panel: &[f32],
    next_b: &[f32],
    k: usize,
    c: Corner,
    accumulate: bool,
) {
    assert!(packed_a.len() >= c.rows * k && b_panel.len() >= tile.nr * k, "gemm: packed blocks");
    for row in (0..c.rows).step_by(tile.mr) {
        let height = tile.mr.min(c.rows - row);
        let ahead = b_panel.len() * row / c.rows..b_panel.len() * (row + height) / c.rows;
        simd::prefetch(next_b.get(ahead).unwrap_or_default());
        // SAFETY: the panel starts at row·k and holds height·k values; C as promised by the caller.
        unsafe {
            let a = Rows { data: packed_a.as_ptr().add(row * k), row: 1, k: height };
            let c = Corner { data: c.data.add(row * c.stride), rows: height, ..c };
            (tile.kernel)(k, a, b_panel.as_ptr(), c, accumulate);
        }
    }
}

/// A product small enough for one core: `A` as it lies, times `B` packed by [`pack_b`], into row-major
/// `c` with `width` columns, a multiple of `nr`; the columns behind those of `B` become 0.
///
/// # Panics
/// If a buffer is too short, or if neither stride of `A` is 1.
pub(crate) fn small(
    tile: &Tile,
    a: MatRef,
    packed_b: &[f32],
    width: usize,
    c: &mut [f32],
    accumulate: bool,
) {
    let (rows, k) = (a.rows, a.cols);
    assert!(a.row_stride == 1 || a.col_stride == 1, "gemm: strides of a small product");
    assert!(width.is_multiple_of(tile.nr) && c.len() >= rows * width, "gemm: C of a small product");
    assert!(packed_b.len() >= width * k, "gemm: B of a small product");
    let strips = rows.div_ceil(tile.mr);
    for panel in 0..width / tile.nr {
        for strip in 0..strips {
            // Strips of nearly equal height: a low one would leave the multipliers waiting.
            let row = strip * rows / strips;
            let height = (strip + 1) * rows / strips - row;
            // SAFETY: `MatRef` holds all its elements; B and C by the assertions above.
            unsafe {
                let data = a.data.as_ptr().wrapping_add(row * a.row_stride);
                let a = Rows { data, row: a.row_stride, k: a.col_stride };
                let data = c.as_mut_ptr().add(row * width + panel * tile.nr);
                let c = Corner { data, stride: width, rows: height, cols: tile.nr };
                (tile.kernel)(k, a, packed_b.as_ptr().add(panel * tile.nr * k), c, accumulate);
            }
        }
    }
}

/// How the tiles of `C` are shared out: row blocks × column parts.
struct Grid {
    rows: usize,
    row_panels: usize,
    mr: usize,
    row_blocks: usize,
    col_panels: usize,
    col_parts: usize,
}

impl Grid {
    fn new(rows: usize, col_panels: usize, mr: usize) -> Self {
        let threads = rayon::current_num_threads();
        let row_panels = rows.div_ceil(mr);
        // A multiple of the thread count, so that equal blocks finish together.
        let wanted = rows.div_ceil(M_BLOCK).div_ceil(threads) * threads;
        let row_blocks = wanted.min(row_panels);
        let col_parts = (4 * threads).div_ceil(row_blocks).min(col_panels);
        let col_parts = if threads == 1 { 1 } else { col_parts };
        Self { rows, row_panels, mr, row_blocks, col_panels, col_parts }
    }

    fn tasks(&self) -> usize {
        self.row_blocks * self.col_parts
    }

    /// The rows and the column panels of one task.
    fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let (i, j) = (task / self.col_parts, task % self.col_parts);
        let row = |i: usize| (i * self.row_panels / self.row_blocks * self.mr).min(self.rows);
        let col = |j: usize| j * self.col_panels / self.col_parts;
        (row(i)..row(i + 1), col(j)..col(j + 1))
    }
}

/// An [`Epilogue`] that tasks can share.
struct SharedEpilogue<'a> {
    bias: Option<&'a [f32]>,
    activation: Option<(Activation, SharedMut)>,
    residual: Option<&'a [f32]>,
}

impl<'a> SharedEpilogue<'a> {
    fn new(epilogue: Epilogue<'a>, m: usize, n: usize) -> Self {
        if let Some(bias) = epilogue.bias {
            assert_eq!(bias.len(), n, "gemm: bias");
        }
        if let Some(residual) = epilogue.residual {
            assert_eq!(residual.len(), m * n, "gemm: residual");
        }
        let activation = epilogue.activation.map(|(activation, kept)| {
            assert_eq!(kept.len(), m * n, "gemm: argument of the activation");
            (activation, SharedMut::new(kept))
        });
        Self { bias: epilogue.bias, activation, residual: epilogue.residual }
    }

    /// Finishes `rows × [col, col + width)` of `C`.
    fn apply(&self, c: SharedMut, rows: Range<usize>, col: usize, width: usize, n: usize) {
        for row in rows {
            let offset = row * n + col;
            // SAFETY: the calling task owns this part of C and of the kept arguments.
            let c = unsafe { c.slice(offset, width) };
            if let Some(bias) = self.bias {
                c.iter_mut().zip(&bias[col..col + width]).for_each(|(c, b)| *c += b);
            }
            if let Some((activation, kept)) = self.activation {
                // SAFETY: as above.
                let kept = unsafe { kept.slice(offset, width) };
                kept.copy_from_slice(c);
                activation::forward_slice(activation, kept, c);
            }
            if let Some(residual) = self.residual {
                c.iter_mut().zip(&residual[offset..offset + width]).for_each(|(c, r)| *c += r);
            }
        }
    }
}
