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
use kernel::{Corner, Rows};
pub(crate) use kernel::{Tile, tile};
pub(crate) use pack::{pack_a, pack_b, packed_a_len, packed_b_len};

/// Longest k-block: a panel of `B` (k-block × nr) stays in the second-level cache.
const K_BLOCK: usize = 512;
/// Widest block of `B` packed at a time.
const N_BLOCK: usize = 3072;
/// Most rows of `A` a task packs; a block (rows × k-block) stays in the second-level cache.
const M_BLOCK: usize = 112;

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
    let shared = SharedEpilogue::new(epilogue, m, n);
    if m * n == 0 {
        return;
    }
    if k == 0 && !accumulate {
        c.fill(0.0);
    }
    let tile = tile();
    let k_blocks = k.div_ceil(K_BLOCK).max(1);
    let k_block = k.div_ceil(k_blocks);
    let c = SharedMut::new(c);
    for n_start in (0..n).step_by(N_BLOCK) {
        let n_len = N_BLOCK.min(n - n_start);
        let panels = n_len.div_ceil(tile.nr);
        let mut packed_b = scratch::take(packed_b_len(tile, k_block, n_len));
        for block in 0..k_blocks {
            let k_start = block * k_block;
            let k_len = k_block.min(k - k_start);
            pack_b_parallel(tile, b, k_start, k_len, n_start, n_len, &mut packed_b);

            let add = accumulate || block > 0;
            let last = block + 1 == k_blocks;
            let grid = Grid::new(m, panels, tile.mr);
            parallel::for_each(grid.tasks(), |task| {
                let (rows, panels) = grid.task(task);
                let mut packed_a = scratch::take(packed_a_len(k_len, rows.len()));
                pack_a(tile, &a, rows.start, rows.len(), k_start, k_len, &mut packed_a);
                for panel in panels {
                    let j = panel * tile.nr;
                    let width = tile.nr.min(n_len - j);
                    let b_panel = &packed_b[panel * tile.nr * k_len..][..tile.nr * k_len];
                    let corner = rows.start * n + n_start + j;
                    // SAFETY: this task alone owns rows × [n_start + j, + width) of C.
                    unsafe {
                        column_strip(
                            tile,
                            &packed_a,
                            rows.len(),
                            b_panel,
                            k_len,
                            width,
                            c.at(corner),
                            n,
                            add,
                        );
                    }
                    if last {
                        shared.apply(c, rows.clone(), n_start + j, width, n);
                    }
                }
            });
        }
    }
}

/// Multiplies packed rows of `A` with one packed panel of `B`: `rows × width` elements at `c`.
///
/// # Safety
/// `c` points to rows with stride `ldc` that hold at least `width` valid elements each, owned by the
/// caller; the packed buffers were made by [`pack_a`] and [`pack_b`] with the same `tile` and `k`.
#[allow(clippy::too_many_arguments, reason = "the inner interface of the blocked product")]
unsafe fn column_strip(
    tile: &Tile,
    packed_a: &[f32],
    rows: usize,
    b_panel: &[f32],
    k: usize,
    width: usize,
    c: *mut f32,
    ldc: usize,
    accumulate: bool,
) {
    debug_assert!(packed_a.len() >= rows * k && b_panel.len() >= tile.nr * k);
    let mut row = 0;
    while row < rows {
        let height = tile.mr.min(rows - row);
        // SAFETY: the panel starts at row·k and holds height·k values; C as promised by the caller.
        unsafe {
            let a = Rows { data: packed_a.as_ptr().add(row * k), row: 1, k: height };
            let c = Corner { data: c.add(row * ldc), stride: ldc, rows: height, cols: width };
            (tile.kernel)(k, a, b_panel.as_ptr(), c, accumulate);
        }
        row += height;
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
                let data = a.data.as_ptr().add(row * a.row_stride);
                let a = Rows { data, row: a.row_stride, k: a.col_stride };
                let data = c.as_mut_ptr().add(row * width + panel * tile.nr);
                let c = Corner { data, stride: width, rows: height, cols: tile.nr };
                (tile.kernel)(k, a, packed_b.as_ptr().add(panel * tile.nr * k), c, accumulate);
            }
        }
    }
}

/// Packs a block of `B`, several panels a task.
fn pack_b_parallel(
    tile: &Tile,
    b: MatRef,
    k_start: usize,
    k_len: usize,
    n_start: usize,
    n_len: usize,
    packed: &mut [f32],
) {
    let panels_per_task = (32 * 1024 / (tile.nr * k_len.max(1))).max(1);
    let task_cols = panels_per_task * tile.nr;
    let out = SharedMut::new(packed);
    parallel::for_each(n_len.div_ceil(task_cols), |task| {
        let j = task * task_cols;
        let cols = task_cols.min(n_len - j);
        let len = packed_b_len(tile, k_len, cols);
        // SAFETY: tasks own consecutive, disjoint panels.
        let packed = unsafe { out.slice(j * k_len, len) };
        pack_b(tile, &b, k_start, k_len, n_start + j, cols, packed);
    });
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
    fn task(&self, task: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
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
    fn apply(
        &self,
        c: SharedMut,
        rows: std::ops::Range<usize>,
        col: usize,
        width: usize,
        n: usize,
    ) {
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
