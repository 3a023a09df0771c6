//! The functions themselves, of one f32 each, and their derivatives.
//!
//! Written without infinities, which some GPU APIs do not promise. NaN stays NaN by its bits: drivers make minima and
//! maxima out of comparisons, which lose it (NVIDIA's Vulkan does).

use std::f32::consts::FRAC_1_SQRT_2;

use cubecl::prelude::*;

use super::Activation;

/// 1/√(2π)
const INV_SQRT_TAU: f32 = 0.398_942_3;
/// √(2/π)
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
/// The coefficient of the cube in the tanh approximation of GELU.
const CUBE: f32 = 0.044_715;
const SELU_LAMBDA: f32 = 1.050_701;
const SELU_ALPHA: f32 = 1.673_263_2;
// The reference rounds √½ to these six digits.
#[allow(clippy::approx_constant, reason = "the constant of the reference, not √½")]
const LAPLACE_MU: f32 = 0.707_107;
const LAPLACE_SIGMA: f32 = 0.282_095;

/// The activation at `x`.
#[cube]
pub(crate) fn value(x: f32, #[comptime] activation: Activation) -> f32 {
    unless_nan(x, formula(x, activation))
}

/// Its derivative; at a kink PyTorch's.
#[cube]
pub(super) fn derivative(x: f32, #[comptime] activation: Activation) -> f32 {
    unless_nan(x, slope(x, activation))
}

/// `y`, or `x` if that is NaN.
#[cube]
fn unless_nan(x: f32, y: f32) -> f32 {
    let magnitude = u32::reinterpret(x) & 0x7fff_ffffu32;
    select(magnitude > 0x7f80_0000u32, x, y)
}

#[cube]
fn formula(x: f32, #[comptime] activation: Activation) -> f32 {
    match comptime!(activation) {
        Activation::Gelu => x * normal_cdf(x),
        Activation::Gelu10 => at_most(at_least(x * normal_cdf(x), -10.0f32), 10.0f32),
        Activation::GeluTanh => 0.5f32 * x * (1.0f32 + tanh(gelu_inner(x))),
        Activation::QuickGelu => x * sigmoid(1.702f32 * x),
        Activation::Laplace => normal_cdf((x - LAPLACE_MU) / LAPLACE_SIGMA),
        Activation::LeakyRelu => x * select(x > 0.0f32, 1.0f32, 0.01f32),
        Activation::Linear => x,
        Activation::Mish => x * tanh_softplus(x),
        Activation::Relu => at_least(x, 0.0f32),
        Activation::Relu2 => at_least(x, 0.0f32) * at_least(x, 0.0f32),
        Activation::Relu6 => at_most(at_least(x, 0.0f32), 6.0f32),
        Activation::Selu => SELU_LAMBDA * select(x > 0.0f32, x, SELU_ALPHA * exp_m1(x)),
        Activation::Elu => select(x > 0.0f32, x, exp_m1(x)),
        Activation::Sigmoid => sigmoid(x),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => tanh(x),
    }
}

#[cube]
fn slope(x: f32, #[comptime] activation: Activation) -> f32 {
    match comptime!(activation) {
        Activation::Gelu => gelu_slope(x),
        Activation::Gelu10 => {
            let y = x * normal_cdf(x);
            select(f32::abs(y) > 10.0f32, 0.0f32, gelu_slope(x))
        }
        Activation::GeluTanh => {
            let t = tanh(gelu_inner(x));
            let square = at_most(x * x, 1e8f32);
            let slope = SQRT_2_OVER_PI * (1.0f32 + 3.0f32 * CUBE * square);
            0.5f32 * (1.0f32 + t) + 0.5f32 * x * (1.0f32 - t * t) * slope
        }
        Activation::QuickGelu => {
            let s = sigmoid(1.702f32 * x);
            s + 1.702f32 * x * s * (1.0f32 - s)
        }
        Activation::Laplace => normal_density((x - LAPLACE_MU) / LAPLACE_SIGMA) / LAPLACE_SIGMA,
        Activation::LeakyRelu => select(x > 0.0f32, 1.0f32, 0.01f32),
        Activation::Linear => 1.0f32.runtime(),
        Activation::Mish => {
            let t = tanh_softplus(x);
            t + x * (1.0f32 - t * t) * sigmoid(x)
        }
        Activation::Relu => select(x > 0.0f32, 1.0f32, 0.0f32),
        Activation::Relu2 => 2.0f32 * at_least(x, 0.0f32),
        Activation::Relu6 => select(x > 0.0f32 && x < 6.0f32, 1.0f32, 0.0f32),
        Activation::Selu => SELU_LAMBDA * select(x > 0.0f32, 1.0f32, SELU_ALPHA * exp(x)),
        Activation::Elu => select(x > 0.0f32, 1.0f32, exp(x)),
        Activation::Sigmoid => {
            let s = sigmoid(x);
            s * (1.0f32 - s)
        }
        Activation::Silu => {
            let s = sigmoid(x);
            s + x * s * (1.0f32 - s)
        }
        Activation::Tanh => {
            let t = tanh(x);
            1.0f32 - t * t
        }
    }
}

#[cube]
fn at_least(x: f32, low: f32) -> f32 {
    select(x < low, low, x)
}

#[cube]
fn at_most(x: f32, high: f32) -> f32 {
    select(x > high, high, x)
}

/// e^x for x in [-87, 88]; arguments outside are taken for the nearer end.
#[cube]
fn exp(x: f32) -> f32 {
    f32::exp(at_most(at_least(x, -87.0f32), 88.0f32))
}

/// e^x − 1 without cancellation near 0: there a polynomial of degree 6, off by 5e-8 at most, relatively.
#[cube]
fn exp_m1(x: f32) -> f32 {
    let near = x
        * (1.0f32
            + x * 0.5f32
                * (1.0f32
                    + x * (1.0f32 / 3.0f32)
                        * (1.0f32
                            + x * 0.25f32
                                * (1.0f32 + x * 0.2f32 * (1.0f32 + x * (1.0f32 / 6.0f32))))));
    select(f32::abs(x) < 0.25f32, near, exp(x) - 1.0f32)
}

#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0f32 / (1.0f32 + exp(-x))
}

/// tanh x = 1 − 2/(e^2x + 1), and near 0, where that cancels, the Taylor polynomial of degree 9, off by
/// 5e-8 at most, relatively.
#[cube]
fn tanh(x: f32) -> f32 {
    let s = at_most(x * x, 1.0f32);
    let mut near = 62.0f32 / 2835.0f32 * s - 17.0f32 / 315.0f32;
    near = near * s + 2.0f32 / 15.0f32;
    near = near * s - 1.0f32 / 3.0f32;
    near = (near * s + 1.0f32) * x;
    select(f32::abs(x) < 0.3f32, near, 1.0f32 - 2.0f32 / (exp(2.0f32 * x) + 1.0f32))
}

/// tanh(ln(1 + e^x)) = n/(n + 2) with n = w·(w + 2) and w = e^x; 1 to f32 from x = 20 on.
#[cube]
fn tanh_softplus(x: f32) -> f32 {
    let w = exp(at_most(x, 20.0f32));
    let n = w * (w + 2.0f32);
    n / (n + 2.0f32)
}

/// The inner argument of the tanh approximation of GELU.
#[cube]
fn gelu_inner(x: f32) -> f32 {
    SQRT_2_OVER_PI * (x + CUBE * x * x * x)
}

/// `d/dx x·Φ(x) = Φ(x) + x·φ(x)`.
#[cube]
fn gelu_slope(x: f32) -> f32 {
    normal_cdf(x) + x * normal_density(x)
}

#[cube]
fn normal_cdf(x: f32) -> f32 {
    0.5f32 + 0.5f32 * erf(x * FRAC_1_SQRT_2)
}

#[cube]
fn normal_density(x: f32) -> f32 {
    INV_SQRT_TAU * exp(-0.5f32 * x * x)
}

/// erf(x) to 4e-7: a rational function in x² up to where erf rounds to ±1, and exactly ±1 there.
///
/// Coefficients: Eigen's `generic_fast_erf_float`, as in `vitmae_cpu`. GPU APIs have no erf of their own.
#[cube]
#[allow(clippy::approx_constant, reason = "a fitted coefficient, one ulp from 2/√π")]
fn erf(x: f32) -> f32 {
    let s = at_most(x * x, 16.0f32);
    let mut p = 2.123_732_2e-6f32 * s + 2.861_979_6e-4f32;
    p = p * s + 3.658_048_3e-3f32;
    p = p * s + 5.243_302e-2f32;
    p = p * s + 1.874_160_8e-1f32;
    p = p * s + 1.128_379_1f32;
    let mut q = 3.891_857_3e-5f32 * s + 1.143_296e-3f32;
    q = q * s + 1.475_208_8e-2f32;
    q = q * s + 1.129_456_76e-1f32;
    q = q * s + 4.994_258e-1f32;
    q = q * s + 1.0f32;
    let tail = select(x > 0.0f32, 1.0f32, -1.0f32);
    select(f32::abs(x) >= 3.832_507f32, tail, x * p / q)
}
