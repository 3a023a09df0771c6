//! Rounding to bf16, the upper half of an f32: 8 bits of precision, the same range.

use crate::simd::multiversion;
use crate::values::Bf16;

/// The nearest value that bf16 has, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn round(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
    f32::from_bits(if x.is_nan() { bits | 0x0040_0000 } else { rounded })
}

multiversion! {
    /// Rounds every value.
    pub(crate) fn round_all(values: &mut [f32]) {
        for value in values {
            *value = round(*value);
        }
    }
}

/// The values in f32, exactly.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn widen(values: &[Bf16], out: &mut [f32]) {
    assert_eq!(values.len(), out.len(), "bf16: widen");
    shift(bytemuck::cast_slice(values), out);
}

multiversion! {
    fn shift(bits: &[u16], out: &mut [f32]) {
        for (out, bits) in out.iter_mut().zip(bits) {
            *out = f32::from_bits(u32::from(*bits) << 16);
        }
    }
}

/// The nearest values that bf16 has, as [`round`]; by the CPU's own instruction, where it has one, which takes denormal
/// numbers as 0.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn narrow(values: &[f32], out: &mut [Bf16]) {
    assert_eq!(values.len(), out.len(), "bf16: narrow");
    #[cfg(target_arch = "x86_64")]
    if has_instruction() {
        // SAFETY: the instructions are there.
        return unsafe { narrow_avx512(values, out) };
    }
    cut(values, bytemuck::cast_slice_mut(out));
}

/// Whether the CPU rounds to bf16 itself; detected once, since short rows ask as well.
#[cfg(target_arch = "x86_64")]
fn has_instruction() -> bool {
    use crate::simd::{Level, level};
    static HAS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *HAS.get_or_init(|| level() == Level::Avx512 && is_x86_feature_detected!("avx512bf16"))
}

multiversion! {
    fn cut(values: &[f32], out: &mut [u16]) {
        for (out, value) in out.iter_mut().zip(values) {
            *out = (round(*value).to_bits() >> 16) as u16;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn narrow_avx512(values: &[f32], out: &mut [Bf16]) {
    use std::arch::x86_64::*;
    let (parts, rest) = values.as_chunks::<32>();
    let (outs, out_rest) = out.as_chunks_mut::<32>();
    for (part, out) in parts.iter().zip(outs) {
        // SAFETY: 32 values are read and 32 written.
        unsafe {
            let (low, high) =
                (_mm512_loadu_ps(part.as_ptr()), _mm512_loadu_ps(part[16..].as_ptr()));
            let words = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(out.as_mut_ptr().cast(), words);
        }
    }
    for (values, out) in rest.chunks(16).zip(out_rest.chunks_mut(16)) {
        let mask = ((1u32 << values.len()) - 1) as u16;
        // SAFETY: the mask keeps both accesses inside the slices.
        unsafe {
            let low = _mm512_maskz_loadu_ps(mask, values.as_ptr());
            let words = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(low));
            _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), mask, words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_even_and_nan_stays() {
        for (bits, expected) in [
            (0x3f80_0000, 0x3f80_0000),
            (0x3f80_8000, 0x3f80_0000),
            (0x3f81_8000, 0x3f82_0000),
            (0x3f80_8001, 0x3f81_0000),
            (0xbf80_7fff, 0xbf80_0000),
            (0x7f7f_ffff, 0x7f80_0000),
            (0xff80_0000, 0xff80_0000),
            (0x8000_0000, 0x8000_0000),
        ] {
            assert_eq!(round(f32::from_bits(bits)).to_bits(), expected, "{bits:08x}");
        }
        let mut nans = [0x7fff_ffff, 0x7f80_0001, 0xffc0_0000].map(f32::from_bits);
        round_all(&mut nans);
        assert!(nans.iter().all(|nan| nan.is_nan()));
    }

    #[test]
    fn narrow_and_widen_agree_with_round() {
        for len in [0, 1, 15, 16, 17, 31, 32, 33, 95] {
            let draw = |i: usize| crate::random::philox4x32([3, 0], [i as u32, 0, 0, 0])[0];
            let mut values: Vec<f32> = (0..len).map(|i| draw(i) as f32 / 1e6 - 2e3).collect();
            if len > 2 {
                (values[0], values[1], values[2]) = (f32::INFINITY, f32::NAN, -0.0);
            }
            let (mut narrow_ones, mut wide) = (vec![Bf16::ZERO; len], vec![0.0; len]);
            narrow(&values, &mut narrow_ones);
            widen(&narrow_ones, &mut wide);
            for (value, wide) in values.iter().zip(&wide) {
                assert!(
                    wide.to_bits() == round(*value).to_bits() || value.is_nan() && wide.is_nan()
                );
            }
            let mut cut_ones = vec![0; len];
            cut(&values, &mut cut_ones);
            let same =
                |(i, bits): (usize, &u16)| values[i].is_nan() || *bits == narrow_ones[i].to_bits();
            assert!(cut_ones.iter().enumerate().all(same));
        }
    }
}
