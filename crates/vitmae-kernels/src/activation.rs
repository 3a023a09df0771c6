//! Activations by their Hugging Face names, element by element, forward and backward, and what surrounds
//! one in a linear layer: bias before, residual behind.
//!
//! `gelu` is exact: `x · Φ(x)` with `Φ(x) = ½(1 + erf(x/√2))`. Source of the names and formulas:
//! `ACT2FN` in transformers' `activations.py`. Oracle: `vitmae_testing::reference::activation`; CPU twin:
//! `vitmae_cpu::activation`.

mod functions;

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::{Array, Client, Dtype, launch};
use functions::derivative;
pub(crate) use functions::value;

/// An element-wise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
/// # Shapes
/// `x, y: [n]`
///
/// # Panics
/// If lengths or types differ.
pub fn forward(client: &Client, activation: Activation, x: &Array, y: &Array) {
    assert!(x.len == y.len && x.dtype == y.dtype, "activation: y");
    if y.len == 0 {
        return;
    }
    let vector = launch::vector_size(y.len);
    let (count, dim) = launch::elements(client, y.len / vector);
    // SAFETY: guarded by the number of vectors in `y`, which `x` shares.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            x.arg(),
            y.arg(),
            (y.len / vector) as u32,
            activation,
            y.dtype.elem(),
        );
    }
}

/// `dx = dy · f'(x)`.
///
/// # Shapes
/// `x, dy, dx: [n]`
///
/// # Panics
/// If lengths or types differ.
pub fn backward(client: &Client, activation: Activation, x: &Array, dy: &Array, dx: &Array) {
    assert!(x.len == dy.len && x.len == dx.len, "activation: dx");
    assert!(x.dtype == dy.dtype && x.dtype == dx.dtype, "activation: types");
    if dx.len == 0 {
        return;
    }
    let vector = launch::vector_size(dx.len);
    let (count, dim) = launch::elements(client, dx.len / vector);
    // SAFETY: guarded by the number of vectors in `dx`, which the others share.
    unsafe {
        backward_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            x.arg(),
            dy.arg(),
            dx.arg(),
            (dx.len / vector) as u32,
            activation,
            dx.dtype.elem(),
        );
    }
}

/// What follows a matrix product `x` in a linear layer, in one pass:
/// `pre = x + bias`, `y = f(pre) + residual`.
///
/// Bias and residual are left out where they are `None`; `Activation::Linear` leaves out the activation.
/// `pre` keeps what the backward of the activation needs, and is not written where it is `None`.
/// No two of the arrays may share memory.
///
/// # Shapes
/// `x, residual, pre, y: [N, D]`, `bias: [D]` f32
///
/// # Panics
/// If a length or a type does not fit.
pub fn bias_activation(
    client: &Client,
    x: &Array,
    bias: Option<&Array>,
    activation: Activation,
    residual: Option<&Array>,
    pre: Option<&Array>,
    y: &Array,
) {
    for (array, name) in [(Some(y), "y"), (residual, "residual"), (pre, "pre")] {
        let fits = array.is_none_or(|array| array.len == x.len && array.dtype == x.dtype);
        assert!(fits, "bias_activation: {name}");
    }
    if y.len == 0 {
        return;
    }
    let width = bias.map_or(x.len, |bias| bias.len);
    let fits = bias.is_none_or(|bias| bias.dtype == Dtype::F32 && bias.len > 0);
    assert!(fits && x.len.is_multiple_of(width), "bias_activation: bias");
    let vector = launch::vector_size(width);
    let (count, dim) = launch::elements(client, y.len / vector);
    // What is absent is bound to `x` and not read.
    let (bias_arg, residual_arg) = (bias.unwrap_or(x).arg(), residual.unwrap_or(x).arg());
    let (vectors, width) = ((y.len / vector) as u32, (width / vector) as u32);
    let (has_bias, has_residual) = (bias.is_some(), residual.is_some());
    // SAFETY: guarded by the number of vectors in `y`, which all but `bias` share, and `bias` by its width.
    unsafe {
        match pre {
            None => bias_activation_kernel::launch_unchecked(
                client,
                count,
                dim,
                vector,
                x.arg(),
                bias_arg,
                residual_arg,
                y.arg(),
                vectors,
                width,
                activation,
                has_bias,
                has_residual,
                y.dtype.elem(),
            ),
            Some(pre) => bias_activation_saving_kernel::launch_unchecked(
                client,
                count,
                dim,
                vector,
                x.arg(),
                bias_arg,
                residual_arg,
                pre.arg(),
                y.arg(),
                vectors,
                width,
                activation,
                has_bias,
                has_residual,
                y.dtype.elem(),
            ),
        }
    }
}

/// One unit handles one vector.
#[cube(launch_unchecked)]
fn forward_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    vectors: u32,
    #[comptime] activation: Activation,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let x = Vector::<f32, N>::cast_from(x[i]);
        y[i] = Vector::cast_from(values(x, activation));
    }
}

/// One unit handles one vector.
#[cube(launch_unchecked)]
fn backward_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    dy: &[Vector<F, N>],
    dx: &mut [Vector<F, N>],
    vectors: u32,
    #[comptime] activation: Activation,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let x = Vector::<f32, N>::cast_from(x[i]);
        let mut slope = Vector::<f32, N>::empty();
        #[unroll]
        for lane in 0..N::value() {
            slope.insert(lane, derivative(x.extract(lane), activation));
        }
        dx[i] = Vector::cast_from(Vector::<f32, N>::cast_from(dy[i]) * slope);
    }
}

/// `f` of every lane.
#[cube]
pub(crate) fn values<N: Size>(
    x: Vector<f32, N>,
    #[comptime] activation: Activation,
) -> Vector<f32, N> {
    let mut y = Vector::<f32, N>::empty();
    #[unroll]
    for lane in 0..N::value() {
        y.insert(lane, value(x.extract(lane), activation));
    }
    y
}

/// `x + bias` of vector `i`.
#[cube]
fn biased<F: Float, N: Size>(
    x: &[Vector<F, N>],
    bias: &[Vector<f32, N>],
    i: usize,
    width: u32,
    #[comptime] has_bias: bool,
) -> Vector<f32, N> {
    let mut pre = Vector::<f32, N>::cast_from(x[i]);
    if comptime!(has_bias) {
        pre += bias[i % width as usize];
    }
    pre
}

/// `f(pre) + residual` of vector `i`.
#[cube]
fn activated<F: Float, N: Size>(
    pre: Vector<f32, N>,
    residual: &[Vector<F, N>],
    i: usize,
    #[comptime] activation: Activation,
    #[comptime] has_residual: bool,
) -> Vector<F, N> {
    let mut out = values(pre, activation);
    if comptime!(has_residual) {
        out += Vector::<f32, N>::cast_from(residual[i]);
    }
    Vector::cast_from(out)
}

/// One unit handles one vector.
#[cube(launch_unchecked)]
fn bias_activation_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    bias: &[Vector<f32, N>],
    residual: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    vectors: u32,
    width: u32,
    #[comptime] activation: Activation,
    #[comptime] has_bias: bool,
    #[comptime] has_residual: bool,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let pre = biased(x, bias, i, width, has_bias);
        y[i] = activated(pre, residual, i, activation, has_residual);
    }
}

/// The same, keeping the argument of the activation as it is stored, so that backward sees what it was.
#[cube(launch_unchecked)]
fn bias_activation_saving_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    bias: &[Vector<f32, N>],
    residual: &[Vector<F, N>],
    pre: &mut [Vector<F, N>],
    y: &mut [Vector<F, N>],
    vectors: u32,
    width: u32,
    #[comptime] activation: Activation,
    #[comptime] has_bias: bool,
    #[comptime] has_residual: bool,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let stored = Vector::<F, N>::cast_from(biased(x, bias, i, width, has_bias));
        pre[i] = stored;
        let argument = Vector::<f32, N>::cast_from(stored);
        y[i] = activated(argument, residual, i, activation, has_residual);
    }
}
