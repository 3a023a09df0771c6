//! The micro-kernels for AVX-512 on packed words, 14 rows by 32 columns: f32 values, or pairs of bf16 values.
//!
//! `VDPBF16PS` adds two products to each of sixteen f32 sums. It takes and gives denormal numbers as 0 and
//! rounds to nearest even, whatever the thread's settings.

use super::avx512::store;
use super::kernel::Corner;
use crate::simd::{Level, level};
use std::arch::x86_64::*;

/// Rows of a panel of `A`.
pub(super) const MR: usize = 14;
const NR: usize = 32;

/// Whether the CPU has the instructions for f32 values, or for pairs of bf16 values.
pub(super) fn available(pairs: bool) -> bool {
    level() == Level::Avx512 && (!pairs || is_x86_feature_detected!("avx512bf16"))
}

/// Multiplies a panel of `A` with a panel of `B`, `words` words a row.
///
/// # Safety
/// `a` holds the rows of `c` in blocks of 16 words, `b` holds blocks of 2 · 16 · 16 words; `c` has `1..=14`
/// writable rows of `1..=32` columns; [`available`] is true.
pub(super) unsafe fn kernel<const PAIRS: bool>(
    words: usize,
    a: *const f32,
    b: *const f32,
    c: Corner,
    accumulate: bool,
) {
    macro_rules! by_rows {
        ($($n:literal)*) => {
            match (PAIRS, c.rows) {
                $((true, $n) => pairs::<$n>(words, a, b, c, accumulate),
                  (false, $n) => values::<$n>(words, a, b, c, accumulate),)*
                _ => unreachable!("rows of a tile"),
            }
        };
    }
    // SAFETY: the caller's promise.
    unsafe { by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pairs<const ROWS: usize>(
    words: usize,
    a: *const f32,
    b: *const f32,
    c: Corner,
    accumulate: bool,
) {
    // SAFETY: the caller's promise.
    unsafe { rows::<ROWS, true>(words, a, b, c, accumulate) }
}

#[target_feature(enable = "avx512f")]
unsafe fn values<const ROWS: usize>(
    words: usize,
    a: *const f32,
    b: *const f32,
    c: Corner,
    accumulate: bool,
) {
    // SAFETY: the caller's promise.
    unsafe { rows::<ROWS, false>(words, a, b, c, accumulate) }
}

/// 28 accumulators of 16, two loads of `B` and a broadcast of `A`: 31 of 32 registers.
///
/// # Safety
/// See [`kernel`].
#[inline(always)]
unsafe fn rows<const ROWS: usize, const PAIRS: bool>(
    words: usize,
    mut a: *const f32,
    mut b: *const f32,
    c: Corner,
    accumulate: bool,
) {
    for i in 0..ROWS {
        let c = c.data.wrapping_add(i * c.stride);
        // SAFETY: a prefetch changes nothing but caches.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(c.cast());
            _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(NR / 2).cast());
        }
    }
    let mut acc = [[ZERO; 2]; ROWS];
    for _ in 0..words / 16 {
        for i in 0..ROWS {
            // SAFETY: a prefetch changes nothing but caches.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(a.wrapping_add(16 * (ROWS + i)).cast()) };
        }
        for p in 0..16 {
            // SAFETY: the caller's promise.
            unsafe {
                outer_product::<ROWS, PAIRS>(a.wrapping_add(p), b.wrapping_add(16 * p), &mut acc)
            };
        }
        (a, b) = (a.wrapping_add(16 * ROWS), b.wrapping_add(16 * NR));
    }
    for p in 0..words % 16 {
        // SAFETY: as above.
        unsafe {
            outer_product::<ROWS, PAIRS>(a.wrapping_add(p), b.wrapping_add(16 * p), &mut acc)
        };
    }
    // SAFETY: the corner has this many rows.
    unsafe { store(&acc, c, accumulate) };
}

/// A register of zeros.
// SAFETY: every bit pattern is valid.
const ZERO: __m512 = unsafe { std::mem::zeroed() };

/// Adds a column of words of `A` times a row of words of `B`.
///
/// # Safety
/// `a` points to a word every 16 words for each row, `b` to 16 words and as many 256 words further.
#[inline(always)]
unsafe fn outer_product<const ROWS: usize, const PAIRS: bool>(
    a: *const f32,
    b: *const f32,
    acc: &mut [[__m512; 2]; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let b = [_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(256))];
        for (i, acc) in acc.iter_mut().enumerate() {
            let a = _mm512_set1_ps(*a.add(i * 16));
            acc[0] = add_product::<PAIRS>(acc[0], a, b[0]);
            acc[1] = add_product::<PAIRS>(acc[1], a, b[1]);
        }
    }
}

/// `acc + a · b`, of values or of pairs.
///
/// # Safety
/// [`available`] is true.
#[inline(always)]
unsafe fn add_product<const PAIRS: bool>(acc: __m512, a: __m512, b: __m512) -> __m512 {
    // SAFETY: as promised; all these types are 64 bytes in which every bit pattern is valid.
    unsafe {
        if PAIRS {
            let [a, b] = std::mem::transmute::<[__m512; 2], [__m512bh; 2]>([a, b]);
            _mm512_dpbf16_ps(acc, a, b)
        } else {
            _mm512_fmadd_ps(a, b, acc)
        }
    }
}
