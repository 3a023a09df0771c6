//! Products small enough for one core, of operands that lie in its caches, as attention has them.

use super::kernel::{Corner, Rows, tile};
use super::left::Panel;
use super::{MatRef, Method, Precision};

/// How small products of a precision are computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Small {
    pub(super) method: Method,
}

impl Small {
    /// In f32 by tiles that read `A` as it lies; in bf16 as every product.
    pub(crate) fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self { method: Method::F32(tile()) },
            Precision::Bf16 => Self { method: Method::of(precision) },
        }
    }

    /// Rows of a tile.
    pub(crate) fn mr(self) -> usize {
        self.method.mr()
    }

    /// Columns of a tile: widths of `C` are multiples of it.
    pub(crate) fn nr(self) -> usize {
        self.method.nr()
    }

    /// Whether `A` is packed: short blocks of rows do not pay then.
    pub(crate) fn packs_a(self) -> bool {
        !matches!(self.method, Method::F32(_))
    }

    /// Words of a packed `B` of `k × cols`.
    pub(crate) fn packed_len(self, k: usize, cols: usize) -> usize {
        cols.next_multiple_of(self.nr()) * self.method.words(k)
    }

    /// Words that [`Small::multiply`] wants for an `A` of `rows × k`.
    pub(crate) fn scratch_len(self, rows: usize, k: usize) -> usize {
        if self.packs_a() { self.method.packed_a_len(rows, k) } else { 0 }
    }

    /// Packs `B`.
    pub(crate) fn pack(self, b: &MatRef, packed: &mut [f32]) {
        self.method.pack_b(b, 0..b.cols, packed);
    }

    /// `A` times a packed `B`, or that added to `c`, row-major with `width` columns, a multiple of `nr`; the columns
    /// behind those of `B` become 0.
    ///
    /// # Panics
    /// If a buffer is too short, or if neither stride of `A` is 1.
    pub(crate) fn multiply(
        self,
        a: MatRef,
        packed_b: &[f32],
        width: usize,
        c: &mut [f32],
        accumulate: bool,
        scratch: &mut [f32],
    ) {
        let (method, rows, k) = (self.method, a.rows, a.cols);
        let (mr, nr, words) = (self.mr(), self.nr(), method.words(k));
        assert!(a.row_stride == 1 || a.col_stride == 1, "gemm: strides of a small product");
        assert!(width.is_multiple_of(nr) && c.len() >= rows * width, "gemm: C of a small product");
        assert!(packed_b.len() >= width * words, "gemm: B of a small product");
        let corner = |c: &mut [f32], row: usize, rows: usize, panel: usize| {
            let data = c[row * width + panel * nr..].as_mut_ptr();
            Corner { data, stride: width, rows, cols: nr }
        };
        if let Method::F32(tile) = method {
            for panel in 0..width / nr {
                for row in (0..rows).step_by(mr) {
                    let height = mr.min(rows - row);
                    let data = a.f32().as_ptr().wrapping_add(row * a.row_stride);
                    let a = Rows { data, row: a.row_stride, k: a.col_stride };
                    let c = corner(c, row, height, panel);
                    let b = packed_b[panel * nr * k..].as_ptr();
                    // SAFETY: `MatRef` holds all its elements; B and C by the assertions above.
                    unsafe { (tile.kernel)(k, a, b, c, accumulate) };
                }
            }
            return;
        }
        method.pack_a(&a, 0..rows, scratch);
        let _ready = method.begin();
        for panel in 0..width / nr {
            for row in (0..rows).step_by(mr) {
                let c = corner(c, row, mr.min(rows - row), panel);
                let (a, b) =
                    (Panel::Packed(&scratch[row * words..]), &packed_b[panel * nr * words..]);
                // SAFETY: both were packed for this method; this thread owns C.
                unsafe { method.multiply(k, a, b, c, accumulate) };
            }
        }
    }
}
