//! Packing for AVX-512 and AMX, into words of one f32 value or of two neighbours along k in bf16.
//!
//! A panel of `A` holds, for every 16 words of k, the 16 words of each of its rows. A panel of `B` holds, for
//! every 16 words of k, its first 16 columns and then its last: each word of all columns after the other.
//! Missing values are 0: k is filled up to 16 words.
//!
//! Values come in f32, or in bf16 for pairs. `VCVTNE2PS2BF16` rounds to nearest even, keeps NaN and infinities, and takes
//! denormal numbers as 0.
//!
//! Functions with `PAIRS` need AVX-512 BF16 where it is true, and AVX-512F and BW always.

use super::MatRef;
use crate::values::{Bf16, Values};
use std::arch::x86_64::*;
use std::ops::Range;

/// Columns of a panel of `B`.
pub(super) const NR: usize = 32;
/// Lines and words of a block.
const SIDE: usize = 16;
/// A register of zeros.
// SAFETY: every bit pattern is valid.
const ZERO: __m512i = unsafe { std::mem::zeroed() };

/// Values of k of a block of 16 words.
pub(super) const fn k_step(pairs: bool) -> usize {
    if pairs { 2 * SIDE } else { SIDE }
}

/// Packs lines of a matrix (rows of `A`, columns of `B`) into panels of `size` lines, the last one of its lines
/// rounded up to `step`.
///
/// # Safety
/// The CPU has the instructions.
pub(super) unsafe fn pack<const PAIRS: bool>(
    matrix: &MatRef,
    lines: Range<usize>,
    panel: [usize; 2],
    register: Register,
    packed: &mut [f32],
) {
    // SAFETY: the caller's promise.
    unsafe {
        if PAIRS {
            pack_pairs(matrix, lines, panel, register, packed);
        } else {
            pack_values(matrix, lines, panel, register, packed);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack_pairs(m: &MatRef, lines: Range<usize>, panel: [usize; 2], r: Register, out: &mut [f32]) {
    // SAFETY: this function has the instructions.
    unsafe { pack_with::<true>(m, lines, panel, r, out) }
}

#[target_feature(enable = "avx512f,avx512bw")]
fn pack_values(m: &MatRef, lines: Range<usize>, panel: [usize; 2], r: Register, out: &mut [f32]) {
    // SAFETY: this function has the instructions.
    unsafe { pack_with::<false>(m, lines, panel, r, out) }
}

/// See [`pack`].
#[inline(always)]
unsafe fn pack_with<const PAIRS: bool>(
    matrix: &MatRef,
    lines: Range<usize>,
    panel: [usize; 2],
    register: Register,
    packed: &mut [f32],
) {
    // SAFETY: the caller's promise.
    unsafe {
        match matrix.data {
            Values::F32(data) => {
                pack_from::<f32, PAIRS>(data, matrix, lines, panel, register, packed)
            }
            Values::Bf16(data) if PAIRS => {
                pack_from::<Bf16, PAIRS>(data, matrix, lines, panel, register, packed)
            }
            Values::Bf16(_) => unreachable!("gemm: bf16 where f32 is packed"),
        }
    }
}

/// See [`pack`].
#[inline(always)]
unsafe fn pack_from<T: Value, const PAIRS: bool>(
    data: &[T],
    matrix: &MatRef,
    lines: Range<usize>,
    [size, step]: [usize; 2],
    register: Register,
    packed: &mut [f32],
) {
    let k = k_step(PAIRS);
    let (panels, blocks) = (lines.len().div_ceil(size), matrix.cols.div_ceil(k));
    // Where neighbours in memory belong to different panels, the panels grow together.
    let together = matrix.row_stride == 1;
    for i in 0..panels * blocks {
        let (panel, block) =
            if together { (i % panels, i / panels) } else { (i / blocks, i % blocks) };
        let first = panel * size;
        let count = size.min(lines.len() - first);
        let height = count.next_multiple_of(step);
        let source = Lines::new(data, matrix, lines.start + first, count);
        let start = (first * blocks + block * height) * SIDE;
        let packed = &mut packed[start..][..height * SIDE];
        for (part, packed) in packed.chunks_mut(SIDE * SIDE).enumerate() {
            // SAFETY: the caller's promise.
            unsafe { source.write::<PAIRS>(part * SIDE, block * k, register, packed) };
        }
    }
}

/// What a register of a block of 16 lines by 16 words holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    /// All words of a line.
    Line,
    /// A word of all lines.
    Word,
}

/// Lines to be packed: value p of line i is `data[i · across + p · along]`.
struct Lines<'a, T> {
    data: &'a [T],
    across: usize,
    along: usize,
    count: usize,
    k: usize,
}

impl<'a, T: Value> Lines<'a, T> {
    /// Rows of a matrix.
    fn new(data: &'a [T], matrix: &MatRef, row: usize, count: usize) -> Self {
        let (across, along, k) = (matrix.row_stride, matrix.col_stride, matrix.cols);
        let data = data.get(row * across..).unwrap_or_default();
        assert!(k == 0 || (count - 1) * across + (k - 1) * along < data.len(), "gemm: lines");
        Self { data, across, along, count, k }
    }

    /// Writes 16 words from value `p` of 16 lines from `first`, 0 where there are none, one register behind the
    /// other as far as the place goes.
    ///
    /// # Safety
    /// The CPU has the instructions.
    #[inline(always)]
    unsafe fn write<const PAIRS: bool>(
        &self,
        first: usize,
        p: usize,
        register: Register,
        place: &mut [f32],
    ) {
        let lines = self.count.saturating_sub(first).min(SIDE);
        let values = self.k.saturating_sub(p).min(k_step(PAIRS));
        let base = self.data.as_ptr().wrapping_add(first * self.across + p * self.along);
        // SAFETY: the lines and values exist; a copy has 16 lines of 32 values.
        let words = unsafe {
            if self.across == 1 && self.along != 1 {
                let words = by_words::<T, PAIRS>(base, self.along, lines, values);
                if register == Register::Word { words } else { transpose(words) }
            } else {
                let words = if self.along == 1 {
                    by_lines::<T, PAIRS>(base, self.across, lines, values)
                } else {
                    let copy = self.copy(first, p, lines, values);
                    by_lines::<T, PAIRS>(copy.as_ptr().cast(), 2 * SIDE, lines, values)
                };
                if register == Register::Line { words } else { transpose(words) }
            }
        };
        for (place, words) in place.as_chunks_mut::<SIDE>().0.iter_mut().zip(words) {
            // SAFETY: the place has 64 bytes.
            unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), words) };
        }
    }

    /// A block with neighbouring values, where no distance is 1.
    fn copy(&self, first: usize, p: usize, lines: usize, values: usize) -> [[T; 2 * SIDE]; SIDE] {
        let mut copy = [[T::default(); 2 * SIDE]; SIDE];
        for (i, line) in copy.iter_mut().enumerate().take(lines) {
            for (q, value) in line.iter_mut().enumerate().take(values) {
                *value = self.data[(first + i) * self.across + (p + q) * self.along];
            }
        }
        copy
    }
}

/// A register a line, from lines whose values are neighbours.
///
/// # Safety
/// At most 16 lines of at most 16 words can be read, `across` values from line to line; the CPU has the
/// instructions.
#[inline(always)]
unsafe fn by_lines<T: Value, const PAIRS: bool>(
    data: *const T,
    across: usize,
    lines: usize,
    values: usize,
) -> [__m512i; SIDE] {
    let mut words = [ZERO; SIDE];
    let whole = lines == SIDE && values == k_step(PAIRS);
    for (i, words) in words.iter_mut().enumerate() {
        let line = data.wrapping_add(i * across);
        // SAFETY: these values can be read.
        *words = unsafe {
            if whole {
                T::neighbours::<PAIRS>(line, k_step(PAIRS))
            } else if i < lines {
                T::neighbours::<PAIRS>(line, values)
            } else {
                ZERO
            }
        };
    }
    words
}

/// A register a word, from lines whose first values are neighbours.
///
/// # Safety
/// At most 16 lines of at most 16 words can be read, `along` values from value to value; the CPU has the
/// instructions.
#[inline(always)]
unsafe fn by_words<T: Value, const PAIRS: bool>(
    data: *const T,
    along: usize,
    lines: usize,
    values: usize,
) -> [__m512i; SIDE] {
    let mut words = [ZERO; SIDE];
    let whole = lines == SIDE && values == k_step(PAIRS);
    let each = if PAIRS { 2 } else { 1 };
    for (w, words) in words.iter_mut().enumerate() {
        let row = data.wrapping_add(each * w * along);
        // SAFETY: these values can be read.
        *words = unsafe {
            if whole {
                T::rows::<PAIRS>(row, along, SIDE, SIDE)
            } else if each * w < values {
                T::rows::<PAIRS>(row, along, lines, if each * w + 1 < values { lines } else { 0 })
            } else {
                ZERO
            }
        };
    }
    words
}

/// Values as they lie in memory.
trait Value: Copy + Default {
    /// Words of the first `count` values from `data`, at most 16 words; the rest is 0.
    ///
    /// # Safety
    /// They can be read; the CPU has the instructions.
    unsafe fn neighbours<const PAIRS: bool>(data: *const Self, count: usize) -> __m512i;

    /// Words of `count` lines, at most 16, from the values at `data`; as pairs, each with that of the first `odd` lines
    /// `along` values further, 0 for the others.
    ///
    /// # Safety
    /// They can be read; the CPU has the instructions.
    unsafe fn rows<const PAIRS: bool>(
        data: *const Self,
        along: usize,
        count: usize,
        odd: usize,
    ) -> __m512i;
}

impl Value for f32 {
    #[inline(always)]
    unsafe fn neighbours<const PAIRS: bool>(data: *const Self, count: usize) -> __m512i {
        // SAFETY: the masks keep the loads inside the values.
        unsafe {
            if count == k_step(PAIRS) {
                return word::<PAIRS>(_mm512_loadu_ps(data), || _mm512_loadu_ps(data.add(SIDE)));
            }
            let (low, high) = (mask(count), mask(count.saturating_sub(SIDE)));
            let high = || _mm512_maskz_loadu_ps(high, data.wrapping_add(SIDE));
            word::<PAIRS>(_mm512_maskz_loadu_ps(low, data), high)
        }
    }

    #[inline(always)]
    unsafe fn rows<const PAIRS: bool>(
        data: *const Self,
        along: usize,
        count: usize,
        odd: usize,
    ) -> __m512i {
        // SAFETY: the masks keep the loads inside the values.
        unsafe {
            if count == SIDE && odd == SIDE {
                return interleave::<PAIRS>(_mm512_loadu_ps(data), || {
                    _mm512_loadu_ps(data.add(along))
                });
            }
            let odd = || _mm512_maskz_loadu_ps(mask(odd), data.wrapping_add(along));
            interleave::<PAIRS>(_mm512_maskz_loadu_ps(mask(count), data), odd)
        }
    }
}

/// Pairs only.
impl Value for Bf16 {
    #[inline(always)]
    unsafe fn neighbours<const PAIRS: bool>(data: *const Self, count: usize) -> __m512i {
        // SAFETY: the mask keeps the load inside the values.
        unsafe {
            if count == k_step(PAIRS) {
                _mm512_loadu_si512(data.cast())
            } else {
                _mm512_maskz_loadu_epi16(((1u64 << count) - 1) as u32, data.cast())
            }
        }
    }

    #[inline(always)]
    unsafe fn rows<const PAIRS: bool>(
        data: *const Self,
        along: usize,
        count: usize,
        odd: usize,
    ) -> __m512i {
        // SAFETY: the masks keep the loads inside the values; AVX-512BW and F are there, and a load of 512 bits under a
        // mask of 16 values reads 32 bytes.
        unsafe {
            let low = |data: *const Self, count: usize| {
                let values = _mm512_maskz_loadu_epi16(u32::from(mask(count)), data.cast());
                _mm512_cvtepu16_epi32(_mm512_castsi512_si256(values))
            };
            let odd = low(data.wrapping_add(along), odd);
            _mm512_or_si512(low(data, count), _mm512_slli_epi32::<16>(odd))
        }
    }
}

/// The first `count` of 16 lanes.
#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    ((1u32 << count.min(SIDE)) - 1) as u16
}

/// 16 words of neighbours: the values of `low`, or those of `low` and then of `high` in bf16.
///
/// # Safety
/// The CPU has the instructions.
#[inline(always)]
unsafe fn word<const PAIRS: bool>(low: __m512, high: impl FnOnce() -> __m512) -> __m512i {
    // SAFETY: as promised; all these types are 64 bytes in which every bit pattern is valid.
    unsafe {
        if PAIRS {
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high(), low))
        } else {
            _mm512_castps_si512(low)
        }
    }
}

/// 16 words from two rows: the values of `even`, or each of them in bf16 with its neighbour of `odd`.
///
/// # Safety
/// The CPU has the instructions.
#[inline(always)]
unsafe fn interleave<const PAIRS: bool>(even: __m512, odd: impl FnOnce() -> __m512) -> __m512i {
    // Value i of the lower half and value i of the upper half become word i.
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 16 {
            (order[2 * i], order[2 * i + 1]) = (i as u16, 16 + i as u16);
            i += 1;
        }
        order
    };
    // SAFETY: as promised; the order has 64 bytes.
    unsafe {
        let words = word::<PAIRS>(even, odd);
        if PAIRS {
            _mm512_permutexvar_epi16(_mm512_loadu_si512(ORDER.as_ptr().cast()), words)
        } else {
            words
        }
    }
}

/// The transpose of a 16 × 16 block of words: within quarters of registers first, then whole quarters.
///
/// # Safety
/// The CPU has AVX-512F.
#[inline(always)]
unsafe fn transpose(r: [__m512i; SIDE]) -> [__m512i; SIDE] {
    // SAFETY: these shuffles are part of AVX-512F.
    unsafe {
        let mut t = r;
        for i in (0..SIDE).step_by(2) {
            t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
            t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
        }
        // u[4 g + j]: word 4 q + j of lines 4 g to 4 g + 3 in quarter q.
        let mut u = t;
        for i in (0..SIDE).step_by(4) {
            u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
            u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
            u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
            u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
        }
        let mut out = u;
        for j in 0..4 {
            let [a, b, c, d] = [u[j], u[4 + j], u[8 + j], u[12 + j]];
            let even = [_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d)];
            let odd = [_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d)];
            out[j] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
            out[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
            out[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
            out[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
        }
        out
    }
}
