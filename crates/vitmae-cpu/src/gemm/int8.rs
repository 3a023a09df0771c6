//! Products in 8-bit integers, for inference: `C = A·B` with a weight quantised once and activations on the way.
//!
//!   b_pj ≈ t_j·w_pj            w in −127..=127        t_j = max_p |b_pj| / 127
//!   a_ip ≈ s_i·(u_ip − z_i)    u in 0..=255           s_i = (max_p a_ip − min_p a_ip) / 255, both ends beyond 0
//!   c_ij = s_i·t_j·(Σ_p u_ip·w_pj − z_i·Σ_p w_pj)
//!
//! A scale for each column of `B` (an output of a linear map), a scale and a zero for each row of `A` (a token): what
//! GELU gives is hardly negative, and a zero in the middle would waste half of the integers. Sums are exact in 32 bits
//! up to k = 2¹⁵, so every machine, at any number of threads, gives the same bits. A row with NaN or infinity is NaN.
//!
//! Four neighbours along k are a word; a panel of `A` holds, for every 16 words, those of each of its rows, a panel
//! of `B` for each word those of its 32 columns.

#[cfg(test)]
mod tests;

use super::kernel::Corner;
use super::output::Output;
use super::{Epilogue, Grid, MatRef, TASK_WORDS};
use crate::parallel::{self, SharedMut};
use crate::scratch::{self, Line};
use crate::simd::fma;
use crate::values::{Values, ValuesMut};

/// Rows of a panel of `A`.
const MR: usize = 14;
/// Columns of a panel of `B`.
const NR: usize = 32;
/// Values of k of a block of 16 words.
const BLOCK: usize = 64;
/// Rows that are multiplied with one panel of `B` after the other.
const BLOCK_ROWS: usize = 14 * MR;
/// Words of `B` of a task, at most: they stay in the second-level cache.
const GROUP_WORDS: usize = 128 * 1024;

/// A matrix `B: [k, n]` in 8 bits and in the order of the kernels.
pub struct QuantisedB {
    k: usize,
    n: usize,
    panels: Box<[Line]>,
    /// t, by column.
    scales: Vec<f32>,
    /// Σ w, by column.
    sums: Vec<i32>,
}

impl QuantisedB {
    /// The longest sum that 32 bits hold for certain.
    pub const MAX_K: usize = 1 << 15;

    /// Quantises a matrix of f32. A column with NaN or infinity gives NaN.
    ///
    /// # Panics
    /// If k is above [`QuantisedB::MAX_K`], or if the values are bf16.
    pub fn new(b: MatRef) -> Self {
        let (k, n) = (b.rows, b.cols);
        assert!(k <= Self::MAX_K, "gemm: {k} terms are too many for 8-bit products");
        let words = words(k);
        let mut panels = scratch::kept(n.next_multiple_of(NR) * words);
        let (mut scales, mut sums) = (vec![0.0; n], vec![0; n]);
        let bytes: &mut [i8] = bytemuck::cast_slice_mut(&mut panels);
        for j in 0..n {
            let at = |p: usize| b.f32()[p * b.row_stride + j * b.col_stride];
            let column = || (0..k).map(at);
            let scale = column().fold(0.0f32, |largest, b| largest.max(b.abs())) / 127.0;
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let panel = &mut bytes[j / NR * NR * 4 * words..];
            for (p, value) in column().enumerate() {
                let w = (value * inverse).round_ties_even() as i8;
                panel[(p / 4 * NR + j % NR) * 4 + p % 4] = w;
                sums[j] += i32::from(w);
            }
            scales[j] = if column().all(f32::is_finite) { scale } else { f32::NAN };
        }
        Self { k, n, panels, scales, sums }
    }

    /// Bytes of the matrix as it is kept.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.panels) + 8 * self.n
    }
}

/// `C = A·B`, then the epilogue; `A: [m, k]` and `C: [m, n]` are row-major.
///
/// # Panics
/// If a length does not fit.
pub fn gemm_int8<'a, 'c>(
    a: impl Into<Values<'a>>,
    b: &QuantisedB,
    c: impl Into<ValuesMut<'c>>,
    epilogue: Epilogue,
) {
    let (a, c): (Values, ValuesMut) = (a.into(), c.into());
    let (k, n) = (b.k, b.n);
    let m = c.len().checked_div(n).unwrap_or(0);
    assert_eq!(c.len(), m * n, "gemm: C is {m}x{n}");
    assert_eq!(a.len(), m * k, "gemm: A is {m}x{k}");
    if m * n == 0 {
        return;
    }
    let output = Output::new(c, epilogue, n);
    let words = words(k);
    let lens = [m * words, m, m];
    let mut memory = scratch::take(scratch::total(lens));
    let [packed, scales, zeros] = scratch::split(&mut memory, lens);
    quantise_rows(a, k, packed, scales, zeros);
    let (packed, scales, zeros) = (&*packed, &*scales, &*zeros);

    let level = Level::here();
    let grid = Grid::new([MR, NR], [m, n], words, GROUP_WORDS);
    let panels: &[f32] = bytemuck::cast_slice(&b.panels);
    parallel::for_each(grid.tasks(), |task| {
        let (rows, cols) = grid.task(task);
        let lens = [output.sums_len(BLOCK_ROWS), Output::SPARE];
        let mut memory = scratch::take(scratch::total(lens));
        let [beside, spare] = scratch::split(&mut memory, lens);
        let blocks = rows.clone().step_by(BLOCK_ROWS);
        let blocks = blocks.map(|first| first..(first + BLOCK_ROWS).min(rows.end));
        for (block, strip) in
            blocks.flat_map(|b| output.strips(cols.clone()).map(move |s| (b.clone(), s)))
        {
            let sums = output.sums(block.clone(), strip.clone(), beside);
            for col in strip.clone().step_by(NR) {
                let of_b = &panels[col * words..][..NR * words];
                for row in block.clone().step_by(MR) {
                    let height = MR.min(block.end - row);
                    let data = sums.data.at((row - block.start) * sums.stride + col - strip.start);
                    let width = NR.min(strip.end - col);
                    let corner = Corner { data, stride: sums.stride, rows: height, cols: width };
                    let of_a = &packed[row * words..][..height * words];
                    let columns = col..col + width;
                    let scaling = Scaling {
                        scales: &scales[row..row + height],
                        zeros: bytemuck::cast_slice(&zeros[row..row + height]),
                        column_scales: &b.scales[columns.clone()],
                        sums: &b.sums[columns],
                    };
                    // SAFETY: the panels have these sizes, and the task alone owns the corner.
                    unsafe { level.multiply(of_a, of_b, &scaling, corner) };
                }
            }
            // SAFETY: the task alone owns these rows and columns.
            unsafe { output.finish(sums, block, strip, spare) };
        }
    });
}

/// Words of a packed row or column: whole blocks.
fn words(k: usize) -> usize {
    k.div_ceil(BLOCK) * (BLOCK / 4)
}

/// Quantises the rows of `A` into panels; scales and zeros (as integers) by row.
fn quantise_rows(a: Values, k: usize, packed: &mut [f32], scales: &mut [f32], zeros: &mut [f32]) {
    let (rows, words) = (scales.len(), words(k));
    let panels_a_task = (TASK_WORDS / (MR * words).max(1)).max(1);
    let out = [packed, scales, zeros].map(SharedMut::new);
    let [packed, scales, zeros] = out;
    parallel::for_each(rows.div_ceil(MR * panels_a_task), |task| {
        let first = task * MR * panels_a_task;
        let mut wide = scratch::take(a.buffer_len(k));
        for row in (first..rows.min(first + MR * panels_a_task)).step_by(MR) {
            let height = MR.min(rows - row);
            // SAFETY: tasks own disjoint panels and rows.
            let (panel, scales, zeros) = unsafe {
                let panel = packed.slice(row * words, height * words);
                (panel, scales.slice(row, height), zeros.slice(row, height))
            };
            let panel: &mut [u8] = bytemuck::cast_slice_mut(panel);
            for i in 0..height {
                let source = a.widened((row + i) * k..(row + i + 1) * k, &mut wide);
                let (scale, zero) = range(source);
                scales[i] = scale;
                zeros[i] = f32::from_bits(zero as u32);
                let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                for (block, values) in source.chunks(BLOCK).enumerate() {
                    let place = &mut panel[(block * height + i) * BLOCK..][..BLOCK];
                    quantise(values, inverse, zero as f32, place);
                }
            }
        }
    });
}

crate::simd::multiversion! {
    /// The scale of a row and the integer that stands for 0; NaN if a value is not finite.
    fn range(values: &[f32]) -> (f32, i32) {
        const LANES: usize = crate::simd::LANES;
        let (mut low, mut high, mut finite) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            for (i, &value) in chunk.iter().enumerate() {
                low[i] = low[i].min(value);
                high[i] = high[i].max(value);
                // 0 for every finite value, else NaN.
                finite[i] += value * 0.0;
            }
        }
        for (i, &value) in rest.iter().enumerate() {
            low[i] = low[i].min(value);
            high[i] = high[i].max(value);
            finite[i] += value * 0.0;
        }
        let low = low.into_iter().fold(0.0f32, f32::min);
        let high = high.into_iter().fold(0.0f32, f32::max);
        let finite: f32 = finite.iter().sum();
        let scale = (high - low) / 255.0 + finite;
        let zero = if scale > 0.0 { (-low / scale).round_ties_even() as i32 } else { 0 };
        (scale, zero)
    }
}

/// 1.5·2²³: a sum with it has its nearest integer, ties to even, in the lowest bits.
const TO_INTEGER: f32 = 12_582_912.0;

crate::simd::multiversion! {
    /// The integers of some values; what is left of the place becomes 0, which counts since `B` is 0 there.
    fn quantise(values: &[f32], inverse: f32, zero: f32, place: &mut [u8]) {
        for (place, value) in place.iter_mut().zip(values) {
            *place = integer::<FMA>(*value, inverse, zero);
        }
        place[values.len()..].fill(0);
    }
}

/// The integer of a value; of NaN any.
#[inline(always)]
fn integer<const FMA: bool>(value: f32, inverse: f32, zero: f32) -> u8 {
    let u = fma::<FMA>(value, inverse, zero);
    let u = u.clamp(0.0, 255.0);
    (u + TO_INTEGER).to_bits() as u8
}

/// What makes numbers of sums.
struct Scaling<'a> {
    scales: &'a [f32],
    zeros: &'a [i32],
    column_scales: &'a [f32],
    sums: &'a [i32],
}

impl Scaling<'_> {
    /// Writes a row of a corner.
    fn write(&self, i: usize, sums: &[i32; NR], out: &mut [f32]) {
        let (scale, zero) = (self.scales[i], self.zeros[i]);
        let columns = self.column_scales.iter().zip(self.sums);
        for ((out, sum), (column_scale, column_sum)) in out.iter_mut().zip(sums).zip(columns) {
            *out = (sum - zero * column_sum) as f32 * (scale * column_scale);
        }
    }
}

/// Whether the CPU multiplies 8-bit integers by VPDPBUSD.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_vnni() -> bool {
    let wide = crate::simd::level() == crate::simd::Level::Avx512;
    wide && is_x86_feature_detected!("avx512vnni")
}

/// Which instructions multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// VPDPBUSD.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// What the compiler makes of it for AVX2 or for any machine.
    Plain,
}

impl Level {
    fn here() -> Self {
        #[cfg(target_arch = "x86_64")]
        if has_vnni() {
            return Self::Vnni;
        }
        Self::Plain
    }

    /// Multiplies a panel of `A` with a panel of `B`.
    ///
    /// # Safety
    /// The panels have `corner.rows` rows and `NR` columns of as many words; the corner is the caller's; the CPU has the
    /// instructions.
    unsafe fn multiply(self, a: &[f32], b: &[f32], scaling: &Scaling, corner: Corner) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller's promise.
            Self::Vnni => unsafe { vnni::multiply(a, b, scaling, corner) },
            Self::Plain => {
                let mut sums = [[0i32; NR]; MR];
                plain(bytemuck::cast_slice(a), bytemuck::cast_slice(b), corner.rows, &mut sums);
                for (i, sums) in sums.iter().enumerate().take(corner.rows) {
                    // SAFETY: row i of the corner is the caller's.
                    let out = unsafe {
                        std::slice::from_raw_parts_mut(
                            corner.data.add(i * corner.stride),
                            corner.cols,
                        )
                    };
                    scaling.write(i, sums, out);
                }
            }
        }
    }
}

crate::simd::multiversion! {
    /// The sums of a panel of `A` of `rows` rows and a panel of `B`.
    fn plain(a: &[u8], b: &[i8], rows: usize, sums: &mut [[i32; NR]; MR]) {
        let blocks = a.chunks_exact(BLOCK * rows).zip(b.chunks_exact(BLOCK * NR));
        for (a, b) in blocks {
            for (i, sums) in sums.iter_mut().enumerate().take(rows) {
                let a = &a[i * BLOCK..][..BLOCK];
                for (a, b) in a.as_chunks::<4>().0.iter().zip(b.as_chunks::<{ 4 * NR }>().0) {
                    let a = a.map(i32::from);
                    for (sum, b) in sums.iter_mut().zip(b.as_chunks::<4>().0) {
                        let [b0, b1, b2, b3] = b.map(i32::from);
                        *sum += a[0] * b0 + a[1] * b1 + a[2] * b2 + a[3] * b3;
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    use super::{BLOCK, Corner, NR, Scaling};
    use std::arch::x86_64::*;

    /// Multiplies a panel of `A` with a panel of `B`.
    ///
    /// # Safety
    /// The CPU has AVX-512 VNNI; the panels have `corner.rows` rows and `NR` columns of as many words; the scaling is that
    /// of the corner, which is the caller's.
    pub(super) unsafe fn multiply(a: &[f32], b: &[f32], scaling: &Scaling, corner: Corner) {
        let words = b.len() / NR;
        assert!(a.len() >= corner.rows * words, "gemm: packed panels");
        macro_rules! by_rows {
            ($($n:literal)*) => {
                match corner.rows {
                    $($n => tile::<$n>(words, a.as_ptr(), b.as_ptr(), scaling, corner),)*
                    _ => unreachable!("rows of a tile"),
                }
            };
        }
        // SAFETY: the caller's promise.
        unsafe { by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
    }

    /// 28 accumulators of 16, two loads of `B` and a broadcast of `A`: 31 of 32 registers.
    ///
    /// # Safety
    /// See [`multiply`].
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn tile<const ROWS: usize>(
        words: usize,
        mut a: *const f32,
        mut b: *const f32,
        scaling: &Scaling,
        corner: Corner,
    ) {
        const WORDS: usize = BLOCK / 4;
        let mut acc = [[_mm512_setzero_si512(); 2]; ROWS];
        for _ in 0..words / WORDS {
            for p in 0..WORDS {
                // SAFETY: word p of every row and column of this block.
                unsafe {
                    let b = b.wrapping_add(p * NR);
                    let b = [b, b.wrapping_add(NR / 2)].map(|b| _mm512_loadu_si512(b.cast()));
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let a = _mm512_set1_epi32(*a.wrapping_add(i * WORDS + p).cast::<i32>());
                        acc[0] = _mm512_dpbusd_epi32(acc[0], a, b[0]);
                        acc[1] = _mm512_dpbusd_epi32(acc[1], a, b[1]);
                    }
                }
            }
            (a, b) = (a.wrapping_add(ROWS * WORDS), b.wrapping_add(WORDS * NR));
        }
        let masks = ((1u64 << corner.cols) - 1) as u32;
        for half in 0..2 {
            let (first, mask) = (half * NR / 2, (masks >> (half * NR / 2)) as __mmask16);
            // SAFETY: the masks keep loads and stores inside the columns of the corner.
            unsafe {
                let sums =
                    _mm512_maskz_loadu_epi32(mask, scaling.sums.as_ptr().wrapping_add(first));
                let scales = scaling.column_scales.as_ptr().wrapping_add(first);
                let scales = _mm512_maskz_loadu_ps(mask, scales);
                for (i, acc) in acc.iter().enumerate() {
                    // The formula of `Scaling::write`.
                    let shift = _mm512_mullo_epi32(_mm512_set1_epi32(scaling.zeros[i]), sums);
                    let sum = _mm512_cvtepi32_ps(_mm512_sub_epi32(acc[half], shift));
                    let scale = _mm512_mul_ps(_mm512_set1_ps(scaling.scales[i]), scales);
                    let out = corner.data.wrapping_add(i * corner.stride + first);
                    _mm512_mask_storeu_ps(out, mask, _mm512_mul_ps(sum, scale));
                }
            }
        }
    }
}
