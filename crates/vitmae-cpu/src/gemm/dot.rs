//! The micro-kernel for AVX-512 BF16: 14 rows by 32 columns, pairs of bf16 values.
//!
//! `VDPBF16PS` adds two products to each of sixteen f32 sums. It takes and gives denormal numbers as 0 and
//! rounds to nearest even, whatever the thread's settings.

use super::avx512::store;
use super::kernel::Corner;
use std::arch::x86_64::*;

/// Rows of a panel of `A`.
pub(super) const MR: usize = 14;
const NR: usize = 32;

/// Whether the CPU has the instructions of this kernel and of its packing.
pub(super) fn available() -> bool {
    crate::simd::level() == crate::simd::Level::Avx512 && is_x86_feature_detected!("avx512bf16")
}

/// Multiplies a panel of `A` with a panel of `B`, `words` pairs a row.
///
/// # Safety
/// `a` holds the rows of `c` in blocks of 16 words, `b` holds blocks of 2 · 16 · 16 words; `c` has `1..=14` writable
/// rows of `1..=32` columns; [`available`] is true.
pub(super) unsafe fn kernel(
    words: usize,
    a: *const f32,
    b: *const f32,
    c: Corner,
    accumulate: bool,
) {
    macro_rules! by_rows {
        ($($n:literal)*) => {
            match c.rows {
                $($n => rows::<$n>(words, a, b, c, accumulate),)*
                _ => unreachable!("rows of a tile"),
            }
        };
    }
    // SAFETY: the caller's promise.
    unsafe { by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
}

/// 28 accumulators of 16, two loads of `B` and a broadcast of `A`: 31 of 32 registers.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn rows<const ROWS: usize>(
    words: usize,
    mut a: *const f32,
    mut b: *const f32,
    c: Corner,
    accumulate: bool,
) {
    for i in 0..ROWS {
        let c = c.data.wrapping_add(i * c.stride);
        _mm_prefetch::<_MM_HINT_T0>(c.cast());
        _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(NR / 2).cast());
    }
    let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
    for _ in 0..words / 16 {
        for p in 0..16 {
            // SAFETY: the caller's promise.
            unsafe { outer_product(a.wrapping_add(p), b.wrapping_add(16 * p), &mut acc) };
        }
        (a, b) = (a.wrapping_add(16 * ROWS), b.wrapping_add(16 * NR));
    }
    for p in 0..words % 16 {
        // SAFETY: as above.
        unsafe { outer_product(a.wrapping_add(p), b.wrapping_add(16 * p), &mut acc) };
    }
    // SAFETY: the corner has this many rows.
    unsafe { store(&acc, c, accumulate) };
}

/// Adds two columns of `A` times two rows of `B`.
///
/// # Safety
/// `a` points to a word every 16 words for each row, `b` to 16 words and as many 256 words further.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn outer_product<const ROWS: usize>(
    a: *const f32,
    b: *const f32,
    acc: &mut [[__m512; 2]; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let b = [_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(256))].map(|b| pairs(b));
        for (i, acc) in acc.iter_mut().enumerate() {
            let a = pairs(_mm512_set1_ps(*a.add(i * 16)));
            acc[0] = _mm512_dpbf16_ps(acc[0], a, b[0]);
            acc[1] = _mm512_dpbf16_ps(acc[1], a, b[1]);
        }
    }
}

/// Words as pairs of bf16 values.
#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(words: __m512) -> __m512bh {
    // SAFETY: both are 64 bytes in which every bit pattern is valid.
    unsafe { std::mem::transmute::<__m512, __m512bh>(words) }
}
