//! The micro-kernel for AVX-512 on f32 tiles, as attention uses it: 14 rows by 32 columns.

use super::kernel::{Corner, Rows, by_rows};
use std::arch::x86_64::*;

const NR: usize = 32;
/// Steps of k between two branches: short products stay within what the branch predictor remembers.
const UNROLL: usize = 2;

/// See [`super::kernel::Tile::kernel`] for its contract.
pub(super) unsafe fn kernel(k: usize, a: Rows, b: *const f32, c: Corner, accumulate: bool) {
    // SAFETY: the contract of `Tile::kernel`.
    unsafe { by_rows!(rows, k, a, b, c, accumulate, 1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
}

/// 28 accumulators of 16, two loads of `B` and a broadcast of `A`: 31 of 32 registers.
///
/// `PACKED`: the rows of `A` are neighbours.
#[target_feature(enable = "avx512f")]
unsafe fn rows<const ROWS: usize, const PACKED: bool>(
    k: usize,
    a: Rows,
    b: *const f32,
    c: Corner,
    accumulate: bool,
) {
    for i in 0..ROWS {
        let c = c.data.wrapping_add(i * c.stride);
        _mm_prefetch::<_MM_HINT_T0>(c.cast());
        _mm_prefetch::<_MM_HINT_T0>(c.wrapping_add(NR / 2).cast());
    }
    let row = if PACKED { 1 } else { a.row };
    let step = if PACKED { a.k } else { 1 };
    let mut acc = [[_mm512_setzero_ps(); 2]; ROWS];
    let (mut a_k, mut b_k) = (a.data, b);
    for _ in 0..k / UNROLL {
        for p in 0..UNROLL {
            // SAFETY: the contract of `Tile::kernel`.
            unsafe { outer_product(a_k, row, b_k.add(p * NR), &mut acc) };
            a_k = a_k.wrapping_add(step);
        }
        b_k = b_k.wrapping_add(UNROLL * NR);
    }
    for _ in 0..k % UNROLL {
        // SAFETY: as above.
        unsafe { outer_product(a_k, row, b_k, &mut acc) };
        a_k = a_k.wrapping_add(step);
        b_k = b_k.wrapping_add(NR);
    }
    // SAFETY: the corner has this many rows.
    unsafe { store(&acc, c, accumulate) };
}

/// Writes the accumulators to a corner, or adds them.
///
/// # Safety
/// `c` has `ROWS` writable rows.
#[inline(always)]
pub(super) unsafe fn store<const ROWS: usize>(
    acc: &[[__m512; 2]; ROWS],
    c: Corner,
    accumulate: bool,
) {
    let (m0, m1) = masks(c.cols);
    for (i, acc) in acc.iter().enumerate() {
        let (c0, c1) = (c.data.wrapping_add(i * c.stride), c.data.wrapping_add(i * c.stride + 16));
        let [mut v0, mut v1] = *acc;
        // SAFETY: the masks keep loads and stores inside the columns of the corner.
        unsafe {
            if accumulate {
                v0 = _mm512_add_ps(_mm512_maskz_loadu_ps(m0, c0), v0);
                v1 = _mm512_add_ps(_mm512_maskz_loadu_ps(m1, c1), v1);
            }
            _mm512_mask_storeu_ps(c0, m0, v0);
            _mm512_mask_storeu_ps(c1, m1, v1);
        }
    }
}

/// Adds a column of `A` times a row of `B`.
///
/// # Safety
/// `a` points to a value every `row` floats for each accumulator, `b` to 32.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn outer_product<const ROWS: usize>(
    a: *const f32,
    row: usize,
    b: *const f32,
    acc: &mut [[__m512; 2]; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let b = [_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16))];
        for (i, acc) in acc.iter_mut().enumerate() {
            let a = _mm512_set1_ps(*a.add(i * row));
            acc[0] = _mm512_fmadd_ps(a, b[0], acc[0]);
            acc[1] = _mm512_fmadd_ps(a, b[1], acc[1]);
        }
    }
}

/// The masks of the two halves of a row with `cols` columns.
fn masks(cols: usize) -> (__mmask16, __mmask16) {
    let mask = ((1u64 << cols) - 1) as u32;
    (mask as u16, (mask >> 16) as u16)
}
