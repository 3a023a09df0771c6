//! Activations by their Hugging Face names, element by element, forward and backward.
//!
//! `gelu` is exact: `x · Φ(x)` with `Φ(x) = ½(1 + erf(x/√2))`. Source of the names and formulas:
//! `ACT2FN` in transformers' `activations.py`. Oracle: `vitmae_testing::reference::activation`.

use crate::parallel::{self, CHUNK};
use crate::scratch;
use crate::simd::{self, fma, multiversion};
use crate::values::{SharedValues, Values, ValuesMut};
use std::f32::consts::{FRAC_1_SQRT_2, PI};
use std::ops::Range;

/// An element-wise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x·Φ(x)` (also `gelu_python`).
    Gelu,
    /// `gelu` clipped to [-10, 10].
    Gelu10,
    /// The tanh approximation of GELU: `gelu_new`, `gelu_fast`, `gelu_pytorch_tanh`,
    /// `gelu_python_tanh`, `gelu_accurate`; they differ in rounding only.
    GeluTanh,
    /// `x·σ(1.702 x)`.
    QuickGelu,
    /// `½(1 + erf((x − 0.707107) / (0.282095·√2)))`.
    Laplace,
    /// `max(x, 0.01 x)`.
    LeakyRelu,
    /// `x`.
    Linear,
    /// `x·tanh(ln(1 + e^x))`.
    Mish,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²`.
    Relu2,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `λ·x` above zero, `λα(e^x − 1)` below.
    Selu,
    /// `x` above zero, `e^x − 1` below.
    Elu,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `x·σ(x)` (also `swish`).
    Silu,
    /// `tanh x`.
    Tanh,
}

/// Every accepted name with its function.
const NAMES: [(&str, Activation); 22] = [
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_10", Activation::Gelu10),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("gelu_accurate", Activation::GeluTanh),
    ("quick_gelu", Activation::QuickGelu),
    ("laplace", Activation::Laplace),
    ("leaky_relu", Activation::LeakyRelu),
    ("linear", Activation::Linear),
    ("mish", Activation::Mish),
    ("relu", Activation::Relu),
    ("relu2", Activation::Relu2),
    ("relu6", Activation::Relu6),
    ("selu", Activation::Selu),
    ("elu", Activation::Elu),
    ("sigmoid", Activation::Sigmoid),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("tanh", Activation::Tanh),
];

impl Activation {
    /// The activation Hugging Face calls `name`, or `None`.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
    }

    /// Every name that [`Activation::from_name`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }
}

/// `y = f(x)`.
///
/// # Panics
/// If the lengths differ.
pub fn forward<'x, 'y>(
    activation: Activation,
    x: impl Into<Values<'x>>,
    y: impl Into<ValuesMut<'y>>,
) {
    let (x, y) = (x.into(), y.into());
    assert_eq!(x.len(), y.len(), "activation: y");
    let y = SharedValues::new(y);
    let part = x.rows_together(CHUNK, 1).min(y.rows_together(CHUNK, 1));
    for_each_part(x.len(), part, [x.buffer_len(part), y.buffer_len(part)], |range, [a, b]| {
        let x = x.widened(range.clone(), a);
        // SAFETY: tasks own disjoint ranges.
        unsafe { y.write(range.start, range.len(), b, |y| forward_slice(activation, x, y)) };
    });
}

/// `dx = dy · f'(x)`.
///
/// # Panics
/// If the lengths differ.
pub fn backward<'i, 'o>(
    activation: Activation,
    x: impl Into<Values<'i>>,
    dy: impl Into<Values<'i>>,
    dx: impl Into<ValuesMut<'o>>,
) {
    let (x, dy, dx) = (x.into(), dy.into(), dx.into());
    assert!(x.len() == dy.len() && x.len() == dx.len(), "activation: dx");
    let dx = SharedValues::new(dx);
    let part = x.rows_together(CHUNK, 1).min(dy.rows_together(CHUNK, 1));
    let part = part.min(dx.rows_together(CHUNK, 1));
    let buffers = [x.buffer_len(part), dy.buffer_len(part), dx.buffer_len(part)];
    for_each_part(x.len(), part, buffers, |range, [a, b, c]| {
        let (x, dy) = (x.widened(range.clone(), a), dy.widened(range.clone(), b));
        let fill = |dx: &mut [f32]| backward_slice(activation, x, dy, dx);
        // SAFETY: tasks own disjoint ranges.
        unsafe { dx.write(range.start, range.len(), c, fill) };
    });
}

/// Runs `task` for parts of `0..len` of at most `part` values, with buffers of these lengths.
fn for_each_part<const N: usize>(
    len: usize,
    part: usize,
    buffers: [usize; N],
    task: impl Fn(Range<usize>, [&mut [f32]; N]) + Sync + Send,
) {
    parallel::for_each(len.div_ceil(CHUNK), |chunk| {
        let mut memory = scratch::take(scratch::total(buffers));
        let end = len.min((chunk + 1) * CHUNK);
        for start in (chunk * CHUNK..end).step_by(part) {
            task(start..end.min(start + part), scratch::split(&mut memory, buffers));
        }
    });
}

/// [`backward`] on the calling thread.
pub(crate) fn backward_slice(activation: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    match activation {
        Activation::Gelu => gelu_backward(x, dy, dx),
        Activation::Relu => {
            for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
                *dx = if *x > 0.0 { *dy } else { 0.0 };
            }
        }
        other => {
            for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
                *dx = dy * derivative(other, *x);
            }
        }
    }
}

/// [`forward`] on the calling thread; the epilogue of the matrix product uses it.
pub(crate) fn forward_slice(activation: Activation, x: &[f32], y: &mut [f32]) {
    match activation {
        Activation::Gelu => gelu_forward(x, y),
        Activation::Relu => y.iter_mut().zip(x).for_each(|(y, x)| *y = x.max(0.0)),
        other => y.iter_mut().zip(x).for_each(|(y, x)| *y = value(other, *x)),
    }
}

/// The same where the argument is not needed any more.
pub(crate) fn forward_in_place(activation: Activation, values: &mut [f32]) {
    let mut arguments = [0.0; 256];
    for values in values.chunks_mut(arguments.len()) {
        let arguments = &mut arguments[..values.len()];
        arguments.copy_from_slice(values);
        forward_slice(activation, arguments, values);
    }
}

multiversion! {
    fn gelu_forward(x: &[f32], y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            let half = 0.5 * x;
            *y = fma::<FMA>(half, simd::erf::<FMA>(x * FRAC_1_SQRT_2), half);
        }
    }
}

multiversion! {
    /// `d/dx x·Φ(x) = Φ(x) + x·φ(x)` with `φ(x) = e^(−x²/2) / √(2π)`.
    fn gelu_backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        const INV_SQRT_TAU: f32 = 0.398_942_3;
        for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
            let cdf = fma::<FMA>(0.5, simd::erf::<FMA>(x * FRAC_1_SQRT_2), 0.5);
            let pdf = INV_SQRT_TAU * simd::exp::<FMA>(-0.5 * x * x);
            *dx = dy * fma::<FMA>(*x, pdf, cdf);
        }
    }
}

const SELU_LAMBDA: f32 = 1.050_701;
const SELU_ALPHA: f32 = 1.673_263_2;
// The reference rounds √½ to these six digits.
#[allow(clippy::approx_constant, reason = "the constant of the reference, not √½")]
const LAPLACE_MU: f32 = 0.707_107;
const LAPLACE_SIGMA: f32 = 0.282_095;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// ln(1 + e^x) without overflow.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The inner argument of the tanh approximation and its derivative.
fn gelu_tanh_inner(x: f32) -> (f32, f32) {
    let scale = (2.0 / PI).sqrt();
    (scale * (x + 0.044_715 * x * x * x), scale * (1.0 + 3.0 * 0.044_715 * x * x))
}

fn value(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Gelu => 0.5 * x * (1.0 + simd::erf::<false>(x * FRAC_1_SQRT_2)),
        Activation::Gelu10 => value(Activation::Gelu, x).clamp(-10.0, 10.0),
        Activation::GeluTanh => 0.5 * x * (1.0 + gelu_tanh_inner(x).0.tanh()),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Laplace => {
            0.5 * (1.0 + simd::erf::<false>((x - LAPLACE_MU) / LAPLACE_SIGMA * FRAC_1_SQRT_2))
        }
        Activation::LeakyRelu => {
            if x > 0.0 {
                x
            } else {
                0.01 * x
            }
        }
        Activation::Linear => x,
        Activation::Mish => x * softplus(x).tanh(),
        Activation::Relu => x.max(0.0),
        Activation::Relu2 => x.max(0.0) * x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Selu => SELU_LAMBDA * if x > 0.0 { x } else { SELU_ALPHA * x.exp_m1() },
        Activation::Elu => {
            if x > 0.0 {
                x
            } else {
                x.exp_m1()
            }
        }
        Activation::Sigmoid => sigmoid(x),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
    }
}

fn derivative(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Gelu => {
            let cdf = 0.5 * (1.0 + simd::erf::<false>(x * FRAC_1_SQRT_2));
            cdf + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt()
        }
        Activation::Gelu10 => {
            let y = value(Activation::Gelu, x);
            if (-10.0..=10.0).contains(&y) { derivative(Activation::Gelu, x) } else { 0.0 }
        }
        Activation::GeluTanh => {
            let (inner, slope) = gelu_tanh_inner(x);
            let t = inner.tanh();
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope
        }
        Activation::QuickGelu => {
            let s = sigmoid(1.702 * x);
            s + 1.702 * x * s * (1.0 - s)
        }
        Activation::Laplace => {
            let z = (x - LAPLACE_MU) / LAPLACE_SIGMA;
            (-0.5 * z * z).exp() / (LAPLACE_SIGMA * (2.0 * PI).sqrt())
        }
        Activation::LeakyRelu => {
            if x > 0.0 {
                1.0
            } else {
                0.01
            }
        }
        Activation::Linear => 1.0,
        Activation::Mish => {
            let t = softplus(x).tanh();
            t + x * (1.0 - t * t) * sigmoid(x)
        }
        Activation::Relu => {
            if x > 0.0 {
                1.0
            } else {
                0.0
            }
        }
        Activation::Relu2 => 2.0 * x.max(0.0),
        Activation::Relu6 => {
            if x > 0.0 && x < 6.0 {
                1.0
            } else {
                0.0
            }
        }
        Activation::Selu => SELU_LAMBDA * if x > 0.0 { 1.0 } else { SELU_ALPHA * x.exp() },
        Activation::Elu => {
            if x > 0.0 {
                1.0
            } else {
                x.exp()
            }
        }
        Activation::Sigmoid => {
            let s = sigmoid(x);
            s * (1.0 - s)
        }
        Activation::Silu => {
            let s = sigmoid(x);
            s + x * s * (1.0 - s)
        }
        Activation::Tanh => 1.0 - x.tanh() * x.tanh(),
    }
}
