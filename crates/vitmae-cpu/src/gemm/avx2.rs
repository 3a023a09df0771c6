//! The micro-kernel for AVX2 with FMA: 6 rows by 16 columns.

use super::kernel::{Corner, Rows, by_rows};
use std::arch::x86_64::*;

pub(super) const NR: usize = 16;

/// See [`super::kernel::Tile::kernel`] for its contract.
pub(super) unsafe fn kernel(k: usize, a: Rows, b: *const f32, c: Corner, accumulate: bool) {
    // SAFETY: the contract of `Tile::kernel`.
    unsafe { by_rows!(rows, k, a, b, c, accumulate, 1 2 3 4 5 6) }
}

/// 12 accumulators of 8, two loads of `B` and a broadcast of `A`: 15 of 16 registers.
///
/// `PACKED`: the rows of `A` are neighbours.
#[target_feature(enable = "avx2,fma")]
unsafe fn rows<const ROWS: usize, const PACKED: bool>(
    k: usize,
    a: Rows,
    b: *const f32,
    c: Corner,
    accumulate: bool,
) {
    let row = if PACKED { 1 } else { a.row };
    let mut acc = [[_mm256_setzero_ps(); 2]; ROWS];
    let (mut a_k, mut b_k) = (a.data, b);
    for _ in 0..k {
        // SAFETY: the contract of `Tile::kernel`.
        unsafe {
            let b0 = _mm256_loadu_ps(b_k);
            let b1 = _mm256_loadu_ps(b_k.add(8));
            for (i, acc) in acc.iter_mut().enumerate() {
                let a = _mm256_broadcast_ss(&*a_k.add(i * row));
                acc[0] = _mm256_fmadd_ps(a, b0, acc[0]);
                acc[1] = _mm256_fmadd_ps(a, b1, acc[1]);
            }
        }
        a_k = a_k.wrapping_add(if PACKED { a.k } else { 1 });
        b_k = b_k.wrapping_add(NR);
    }
    for (i, acc) in acc.iter().enumerate() {
        // SAFETY: row i of the corner.
        unsafe { store(c.data.add(i * c.stride), c.cols, acc[0], acc[1], accumulate) };
    }
}

/// Writes or adds one row of a tile; a narrow one goes through a buffer.
///
/// # Safety
/// `c` points to `cols` writable values.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn store(c: *mut f32, cols: usize, mut v0: __m256, mut v1: __m256, accumulate: bool) {
    if cols == NR {
        // SAFETY: sixteen writable values.
        unsafe {
            if accumulate {
                v0 = _mm256_add_ps(_mm256_loadu_ps(c), v0);
                v1 = _mm256_add_ps(_mm256_loadu_ps(c.add(8)), v1);
            }
            _mm256_storeu_ps(c, v0);
            _mm256_storeu_ps(c.add(8), v1);
        }
        return;
    }
    let mut row = [0.0f32; NR];
    // SAFETY: the buffer holds sixteen values, C at least `cols`.
    let c = unsafe {
        _mm256_storeu_ps(row.as_mut_ptr(), v0);
        _mm256_storeu_ps(row.as_mut_ptr().add(8), v1);
        std::slice::from_raw_parts_mut(c, cols)
    };
    for (c, v) in c.iter_mut().zip(row) {
        *c = if accumulate { *c + v } else { v };
    }
}
