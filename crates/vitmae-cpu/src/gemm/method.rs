//! The ways to multiply: which instructions, and how the operands are packed for them.
//!
//! Packed operands are made of 32-bit words: one f32 value, or two neighbours along k in bf16.

use super::kernel::{Corner, Rows, Tile, tile};
use super::left::Panel;
use super::pack::{pack_a, pack_b};
#[cfg(target_arch = "x86_64")]
use super::words::{self, Register};
use super::{MatRef, Precision};
#[cfg(target_arch = "x86_64")]
use super::{amx, dot};
use crate::bf16;
use crate::scratch;
use crate::values::Values;
use std::ops::Range;

/// How a product is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Method {
    /// In f32, by AVX2 or portably.
    F32(&'static Tile),
    /// In f32, by AVX-512.
    #[cfg(target_arch = "x86_64")]
    Fma,
    /// Operands are rounded to bf16 while they are packed, and multiplied like f32 values.
    Rounded(&'static Tile),
    /// Pairs of bf16 values, multiplied by the instruction VDPBF16PS.
    #[cfg(target_arch = "x86_64")]
    Dot,
    /// Pairs of bf16 values, multiplied by the matrix unit of Intel's server CPUs.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Method {
    /// The fastest on this machine.
    ///
    /// A CPU that has the matrix unit runs VDPBF16PS at half the speed of f32 multiply-adds, so where the
    /// system does not let us use the unit, f32 is the better way.
    pub(crate) fn of(precision: Precision) -> Self {
        match precision {
            #[cfg(target_arch = "x86_64")]
            Precision::F32 if dot::available(false) => Self::Fma,
            Precision::F32 => Self::F32(tile()),
            #[cfg(target_arch = "x86_64")]
            Precision::Bf16 if amx::available() => Self::Amx,
            #[cfg(target_arch = "x86_64")]
            Precision::Bf16 if dot::available(true) && !amx::exists() => Self::Dot,
            Precision::Bf16 => Self::Rounded(tile()),
        }
    }

    /// Every one that this machine can run for a precision.
    #[cfg(test)]
    pub(super) fn all(precision: Precision) -> Vec<Self> {
        let tiles = super::kernel::tiles().into_iter();
        let (mut all, pairs): (Vec<Self>, bool) = match precision {
            Precision::F32 => (tiles.map(Self::F32).collect(), false),
            Precision::Bf16 => (tiles.map(Self::Rounded).collect(), true),
        };
        #[cfg(target_arch = "x86_64")]
        {
            let method = if pairs { Self::Dot } else { Self::Fma };
            all.extend(dot::available(pairs).then_some(method));
            all.extend((pairs && amx::available()).then_some(Self::Amx));
        }
        all
    }

    /// Rows of a panel of `A`.
    pub(super) fn mr(self) -> usize {
        match self {
            Self::F32(tile) | Self::Rounded(tile) => tile.mr,
            #[cfg(target_arch = "x86_64")]
            Self::Fma | Self::Dot => dot::MR,
            #[cfg(target_arch = "x86_64")]
            Self::Amx => amx::MR,
        }
    }

    /// Columns of a panel of `B`.
    pub(super) fn nr(self) -> usize {
        match self {
            Self::F32(tile) | Self::Rounded(tile) => tile.nr,
            #[cfg(target_arch = "x86_64")]
            Self::Fma | Self::Dot | Self::Amx => words::NR,
        }
    }

    /// Words of `k` packed values of a row of `A` or a column of `B`.
    pub(super) fn words(self, k: usize) -> usize {
        match self {
            Self::F32(_) | Self::Rounded(_) => k,
            #[cfg(target_arch = "x86_64")]
            _ => k.div_ceil(self.k_step()) * 16,
        }
    }

    /// Values of k after which a block may end.
    pub(super) fn k_step(self) -> usize {
        match self {
            Self::F32(_) | Self::Rounded(_) => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Fma => words::k_step(false),
            #[cfg(target_arch = "x86_64")]
            Self::Dot | Self::Amx => words::k_step(true),
        }
    }

    /// Words of some packed rows of `A`. The panel that starts at row i starts at word i · `words(k)`.
    pub(super) fn packed_a_len(self, rows: usize, k: usize) -> usize {
        let rows = match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => rows.next_multiple_of(amx::SIDE),
            _ => rows,
        };
        rows * self.words(k)
    }

    /// Words of `B` that a task may pack for this `A`: they stay in the second-level cache, of which CPUs with the matrix
    /// unit have 2 MiB, beside a block of `A` if that is packed.
    ///
    /// Every group of columns reads `A` again, so groups grow with `A`.
    pub(super) fn group_words(self, a: &MatRef) -> usize {
        let (least, most) = (160 * 1024, 512 * 1024);
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx if self.reads_in_place(a) => 256 * 1024,
            #[cfg(target_arch = "x86_64")]
            Self::Amx => least,
            _ => (a.rows * self.words(a.cols)).clamp(least, most),
        }
    }

    /// k-blocks that are multiplied before the next ones are packed, where sums can wait in `C`: with more of them, few
    /// columns of `B` would fit into the second-level cache, and `A` would be read again for each few.
    pub(super) fn k_part(self, a: &MatRef) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx if !self.reads_in_place(a) => 2,
            _ => 4,
        }
    }

    /// Rows that are multiplied with one panel of `B` after the other.
    ///
    /// The matrix unit goes through `B` panel by panel for two panels of `A`, which keeps its part of `C` in the
    /// nearest caches, or for more where the rows of `A` are neighbours, so that packing reads more of each line; the
    /// others keep a panel of `B` in the first-level cache and rows of `A` in the second level.
    pub(super) fn block_rows(self, a: &MatRef) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx if a.row_stride == 1 => 8 * amx::MR,
            #[cfg(target_arch = "x86_64")]
            Self::Amx => 2 * amx::MR,
            // Without AVX-512: Zen's cores of that kind have half a megabyte of second level.
            Self::F32(tile) | Self::Rounded(tile) if tile.nr == 16 => {
                96usize.next_multiple_of(tile.mr)
            }
            _ => 192usize.next_multiple_of(self.mr()),
        }
    }

    /// Whether each task packs its rows of `A`, since reading packed ones from afar would take longer than packing.
    pub(super) fn packs_in_tasks(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => true,
            _ => false,
        }
    }

    /// Whether whole panels of this `A` are read where they lie.
    pub(super) fn reads_in_place(self, a: &MatRef) -> bool {
        match (self, a.data) {
            #[cfg(target_arch = "x86_64")]
            (Self::Amx, Values::Bf16(_)) => {
                a.cols > 0 && a.col_stride == 1 && a.cols.is_multiple_of(words::k_step(true))
            }
            _ => false,
        }
    }

    /// Whether packed words are the values that they were made of.
    pub(super) fn keeps_values(self) -> bool {
        match self {
            Self::F32(_) => true,
            #[cfg(target_arch = "x86_64")]
            Self::Fma => true,
            _ => false,
        }
    }

    /// Whether words are f32 values, as which bf16 is packed in two steps.
    fn packs_f32(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Dot | Self::Amx => false,
            _ => true,
        }
    }

    /// Packs rows of `A`, which start at a multiple of `mr`.
    pub(super) fn pack_a(self, a: &MatRef, rows: Range<usize>, packed: &mut [f32]) {
        let packed = &mut packed[..self.packed_a_len(rows.len(), a.cols)];
        if let (true, Values::Bf16(_)) = (self.packs_f32(), a.data) {
            let mut wide = scratch::take(rows.len() * a.cols);
            let a = a.widened(rows, &mut wide);
            return self.pack_a(&a, 0..a.rows, packed);
        }
        match self {
            Self::F32(tile) | Self::Rounded(tile) => {
                pack_a(tile, a, rows.start, rows.len(), 0, a.cols, packed);
                if let Self::Rounded(_) = self {
                    bf16::round_all(packed);
                }
            }
            // SAFETY: a method is chosen where its instructions are.
            #[cfg(target_arch = "x86_64")]
            _ => unsafe {
                let line = Register::Line;
                match self {
                    Self::Fma => words::pack::<false>(a, rows, [dot::MR, 1], line, packed),
                    Self::Dot => words::pack::<true>(a, rows, [dot::MR, 1], line, packed),
                    _ => words::pack::<true>(a, rows, [amx::MR, amx::SIDE], line, packed),
                }
            },
        }
    }

    /// Packs columns of `B` into panels of `nr · words(k)` words.
    pub(super) fn pack_b(self, b: &MatRef, cols: Range<usize>, packed: &mut [f32]) {
        if let (true, Values::Bf16(_)) = (self.packs_f32(), b.data) {
            let mut wide = scratch::take(cols.len() * b.rows);
            let b = b.transposed().widened(cols, &mut wide).transposed();
            return self.pack_b(&b, 0..b.cols, packed);
        }
        match self {
            Self::F32(tile) | Self::Rounded(tile) => {
                pack_b(tile, b, 0, b.rows, cols.start, cols.len(), packed);
                if let Self::Rounded(_) = self {
                    bf16::round_all(packed);
                }
            }
            // SAFETY: a method is chosen where its instructions are.
            #[cfg(target_arch = "x86_64")]
            _ => unsafe {
                let (b, panel) = (b.transposed(), [words::NR; 2]);
                match self {
                    Self::Fma => words::pack::<false>(&b, cols, panel, Register::Word, packed),
                    _ => words::pack::<true>(&b, cols, panel, Register::Word, packed),
                }
            },
        }
    }

    /// Prepares the calling thread for [`Method::multiply`] until the guard is dropped.
    pub(super) fn begin(self) -> Ready {
        #[cfg(target_arch = "x86_64")]
        if let Self::Amx = self {
            return Ready { _tiles: Some(amx::Configured::new()) };
        }
        Ready::default()
    }

    /// Multiplies a panel of `A` with a packed panel of `B`.
    ///
    /// # Safety
    /// The panels were made for this method, with as many rows as `c` has; `c` lies inside a matrix whose
    /// elements the caller owns; the thread holds what [`Method::begin`] returned.
    pub(super) unsafe fn multiply(
        self,
        k: usize,
        a: Panel,
        b: &[f32],
        c: Corner,
        accumulate: bool,
    ) {
        let a_len = self.packed_a_len(c.rows, k);
        let there = match a {
            Panel::Packed(a) => a.len() >= a_len,
            Panel::InPlace(a, stride) => {
                let whole = c.rows.is_multiple_of(16) && k.is_multiple_of(self.k_step());
                whole && a.len() >= (c.rows - 1) * stride + k
            }
        };
        assert!(there && b.len() >= self.nr() * self.words(k), "gemm: panels");
        let b = b.as_ptr();
        // SAFETY: the panels are as long as the kernels demand; C as promised by the caller.
        unsafe {
            match (self, a) {
                (Self::F32(tile) | Self::Rounded(tile), Panel::Packed(a)) => {
                    let a = Rows { data: a.as_ptr(), row: 1, k: c.rows };
                    (tile.kernel)(k, a, b, c, accumulate);
                }
                #[cfg(target_arch = "x86_64")]
                (Self::Fma, Panel::Packed(a)) => {
                    dot::kernel::<false>(k, a.as_ptr(), b, c, accumulate);
                }
                #[cfg(target_arch = "x86_64")]
                (Self::Dot, Panel::Packed(a)) => {
                    dot::kernel::<true>(k.div_ceil(2), a.as_ptr(), b, c, accumulate);
                }
                #[cfg(target_arch = "x86_64")]
                (Self::Amx, a) => {
                    let a = match a {
                        Panel::Packed(a) => amx::Rows::packed(a.as_ptr(), c.rows),
                        Panel::InPlace(a, stride) => amx::Rows::in_place(a.as_ptr(), stride),
                    };
                    amx::kernel(self.words(k) / 16, a, b, c, accumulate);
                }
                _ => unreachable!("gemm: a way to read A"),
            }
        }
    }
}

/// What a thread holds while it multiplies; dropped behind the last product.
#[derive(Default)]
pub(super) struct Ready {
    #[cfg(target_arch = "x86_64")]
    _tiles: Option<amx::Configured>,
}
