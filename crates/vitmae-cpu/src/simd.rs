//! Run-time choice of vector instructions, and the vector maths shared by the kernels.
//!
//! A kernel is written once as plain loops over [`LANES`] values and compiled three times by
//! [`multiversion!`]. Rust never reorders float sums, so a sum is kept in `LANES` partial sums by
//! hand, which the compiler then turns into vector registers.

use std::sync::OnceLock;

/// Width of the lane arrays that kernels accumulate in: one 512-bit register of `f32`.
pub(crate) const LANES: usize = 16;

/// The instruction set the kernels use on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Avx512,
    Avx2,
    Portable,
}

/// Detected once per process.
pub(crate) fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
            {
                return Level::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Level::Avx2;
            }
        }
        Level::Portable
    })
}

/// Compiles a function for AVX-512, for AVX2 with FMA and portably, and calls the best one.
///
/// The body may use the constant `FMA`: whether [`fma`] is one instruction.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take plain slices and sizes")]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, unused_variables, reason = "kernels take plain slices and sizes")]
            fn body<const FMA: bool>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "kernels take plain slices and sizes")]
            fn avx512($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "kernels take plain slices and sizes")]
            fn avx2($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }

            match $crate::simd::level() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `level` found every feature that `avx512` enables.
                $crate::simd::Level::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `level` found AVX2 and FMA.
                $crate::simd::Level::Avx2 => unsafe { avx2($($arg),*) },
                _ => body::<false>($($arg),*),
            }
        }
    };
}
pub(crate) use multiversion;

/// `a · b + c`, fused where the hardware does it in one instruction.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Asks for values that are needed soon, so that they are in the second-level cache by then.
#[inline(always)]
pub(crate) fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch changes nothing but caches.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// The sum of the lanes in a fixed order (pairwise halves).
#[inline(always)]
pub(crate) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    fold_lanes(lanes, |a, b| a + b)
}

/// The largest of the lanes.
#[inline(always)]
pub(crate) fn max_lanes(lanes: [f32; LANES]) -> f32 {
    fold_lanes(lanes, |a, b| if a > b { a } else { b })
}

/// Halves the number of lanes until one is left.
#[inline(always)]
fn fold_lanes(lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let l: [f32; 8] = std::array::from_fn(|i| f(lanes[i], lanes[i + 8]));
    let l: [f32; 4] = std::array::from_fn(|i| f(l[i], l[i + 4]));
    f(f(l[0], l[2]), f(l[1], l[3]))
}

/// e^x for x in [-87.3, 88.0]; arguments outside are clamped to it. Error at most 1 ulp or so.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, and a polynomial of degree 6 for e^r.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Adding 1.5·2²³ leaves round(x·log₂e) in the low bits of the mantissa.
    const MAGIC: f32 = 12_582_912.0;
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.0);
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = fma::<FMA>(n, -LN2_LO, fma::<FMA>(n, -LN2_HI, x));
    let mut p = 1.987_569_1e-4;
    p = fma::<FMA>(p, r, 1.398_2e-3);
    p = fma::<FMA>(p, r, 8.333_452e-3);
    p = fma::<FMA>(p, r, 4.166_579_6e-2);
    p = fma::<FMA>(p, r, 1.666_666_5e-1);
    p = fma::<FMA>(p, r, 0.5);
    let p = fma::<FMA>(p, r * r, r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(exponent)
}

/// 2^x for x ≤ 127, about 1 ulp off; arguments below -126 are taken for it.
///
/// x = n + r with |r| ≤ ½, and a polynomial of degree 6 (minimax in relative error, 1e-8) for 2^r.
/// Cheaper than [`exp`], which has to split off a multiple of ln 2.
#[inline(always)]
pub(crate) fn exp2<const FMA: bool>(x: f32) -> f32 {
    // Adding 1.5·2²³ + 127 leaves the biased exponent round(x) + 127 in the low bits of the mantissa.
    const MAGIC: f32 = 12_582_912.0 + 127.0;
    let x = if x < -126.0 { -126.0 } else { x };
    let shifted = x + MAGIC;
    let r = x - (shifted - MAGIC);
    let mut p = 1.532_711_8e-4;
    p = fma::<FMA>(p, r, 1.340_854_9e-3);
    p = fma::<FMA>(p, r, 9.618_528e-3);
    p = fma::<FMA>(p, r, 5.550_302e-2);
    p = fma::<FMA>(p, r, 2.402_264_7e-1);
    p = fma::<FMA>(p, r, 6.931_472e-1);
    p = fma::<FMA>(p, r, 1.0);
    p * f32::from_bits(shifted.to_bits() << 23)
}

/// erf(x), error a few ulp: a rational function in x² up to where erf rounds to ±1, and exactly ±1 there.
///
/// Coefficients: Eigen's `generic_fast_erf_float`; against erf in f64 the function itself is off by 1e-7.
#[inline(always)]
#[allow(clippy::approx_constant, reason = "a fitted coefficient, one ulp from 2/√π")]
pub(crate) fn erf<const FMA: bool>(x: f32) -> f32 {
    let s = x * x;
    let mut p = 2.123_732_2e-6;
    p = fma::<FMA>(p, s, 2.861_979_6e-4);
    p = fma::<FMA>(p, s, 3.658_048_3e-3);
    p = fma::<FMA>(p, s, 5.243_302e-2);
    p = fma::<FMA>(p, s, 1.874_160_8e-1);
    p = fma::<FMA>(p, s, 1.128_379_1);
    let mut q = 3.891_857_3e-5;
    q = fma::<FMA>(q, s, 1.143_296e-3);
    q = fma::<FMA>(q, s, 1.475_208_8e-2);
    q = fma::<FMA>(q, s, 1.129_456_76e-1);
    q = fma::<FMA>(q, s, 4.994_258e-1);
    q = fma::<FMA>(q, s, 1.0);
    if x.abs() < 3.832_507 || x.is_nan() { x * p / q } else { 1f32.copysign(x) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its Taylor series in f64, exact enough for |x| < 5.
    fn erf_series(x: f64) -> f64 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * sum.abs() + 1e-300 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn exp_is_within_two_ulp() {
        for i in 0..=400_000 {
            let x = -87.0 + i as f32 * (175.0 / 400_000.0);
            let exact = (x as f64).exp();
            for y in [exp::<true>(x), exp::<false>(x)] {
                let ulp = (exact as f32).to_bits().abs_diff(y.to_bits());
                assert!(ulp <= 2, "exp({x}) = {y}, expected {exact}, {ulp} ulp");
            }
        }
    }

    #[test]
    fn exp2_is_within_two_ulp() {
        for i in 0..=400_000 {
            let x = -126.0 + i as f32 * (253.0 / 400_000.0);
            let exact = (x as f64).exp2();
            for y in [exp2::<true>(x), exp2::<false>(x)] {
                let ulp = (exact as f32).to_bits().abs_diff(y.to_bits());
                assert!(ulp <= 2, "exp2({x}) = {y}, expected {exact}, {ulp} ulp");
            }
        }
        for x in [-127.0, -1e9, f32::NEG_INFINITY] {
            assert_eq!(exp2::<true>(x), f32::MIN_POSITIVE);
        }
        for bits in [0x7fc0_0000, 0xffc0_0000, 0x7fff_ffff, 0x7fc0_dead] {
            assert!(exp2::<true>(f32::from_bits(bits)).is_nan());
        }
    }

    #[test]
    fn erf_is_within_4e_7_and_constant_in_its_tails() {
        for i in -90_000..=90_000 {
            let x = i as f32 * 5e-5;
            let exact = erf_series(x as f64);
            for y in [erf::<true>(x), erf::<false>(x)] {
                assert!((y as f64 - exact).abs() < 4e-7, "erf({x}) = {y}, expected {exact}");
            }
        }
        for x in [4.0, 1e4, 1e30, f32::INFINITY] {
            assert_eq!([erf::<true>(x), erf::<false>(x)], [1.0; 2]);
            assert_eq!([erf::<true>(-x), erf::<false>(-x)], [-1.0; 2]);
        }
        assert!(erf::<true>(f32::NAN).is_nan() && exp::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn lanes_are_reduced() {
        let lanes = std::array::from_fn(|i| (i * i) as f32);
        assert_eq!(sum_lanes(lanes), 1240.0);
        assert_eq!(max_lanes(lanes), 225.0);
        assert_eq!(max_lanes(lanes.map(|lane| -lane)), 0.0);
    }
}
