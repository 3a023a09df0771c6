//! Rounding to bf16, the upper half of an f32: 8 bits of precision, the same range.

use crate::simd::multiversion;

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
}
