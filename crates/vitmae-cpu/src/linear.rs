//! Linear map over the last axis: `y = x · weightᵀ + bias`, with what is fused into it.
//!
//! Source: `torch.nn.functional.linear`. Oracle: `vitmae_testing::reference::linear`.

use crate::activation::Activation;
use crate::gemm::{
    Epilogue, MatRef, PackedB, Panels, Precision, QuantisedB, gemm, gemm_int8, gemm_packed,
};
use crate::reduce;
use crate::values::{Values, ValuesMut};

/// Sizes of a linear map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// N
    pub rows: usize,
    /// Width of `x`.
    pub inputs: usize,
    /// Width of `y`.
    pub outputs: usize,
}

/// `y = x · weightᵀ`, then the epilogue.
///
/// # Shapes
/// `x: [N, in]`, `weight: [out, in]`, `y: [N, out]`
///
/// # Panics
/// If a length does not fit.
pub fn forward<'x, 'y>(
    precision: Precision,
    x: impl Into<Values<'x>>,
    weight: &[f32],
    epilogue: Epilogue,
    shape: Shape,
    y: impl Into<ValuesMut<'y>>,
) {
    let Shape { rows, inputs, outputs } = shape;
    let x = MatRef::row_major(x, rows, inputs);
    gemm(precision, x, MatRef::row_major(weight, outputs, inputs).transposed(), y, false, epilogue);
}

/// The weight of [`forward`], packed once for many calls of [`forward_packed`], into memory as [`PackedB::in_memory`] takes it.
///
/// # Panics
/// As there, or if `weight` does not have `outputs · inputs` elements.
pub fn pack<M: Panels + 'static>(
    precision: Precision,
    weight: &[f32],
    inputs: usize,
    outputs: usize,
    memory: impl FnOnce(usize) -> M,
) -> PackedB {
    let weight = MatRef::row_major(weight, outputs, inputs).transposed();
    PackedB::in_memory(precision, weight, memory)
}

/// [`forward`] with a weight from [`pack`]: the same bits.
///
/// # Panics
/// If a length does not fit.
pub fn forward_packed<'x, 'y>(
    x: impl Into<Values<'x>>,
    weight: &PackedB,
    epilogue: Epilogue,
    rows: usize,
    y: impl Into<ValuesMut<'y>>,
) {
    let x = x.into();
    let inputs = x.len().checked_div(rows).unwrap_or(0);
    gemm_packed(MatRef::row_major(x, rows, inputs), weight, y, false, epilogue);
}

/// The weight of [`forward`] in 8 bits, for [`forward_int8`].
///
/// # Panics
/// If `inputs` is above 2¹⁵.
pub fn quantise(weight: &[f32], inputs: usize, outputs: usize) -> QuantisedB {
    QuantisedB::new(MatRef::row_major(weight, outputs, inputs).transposed())
}

/// [`forward`] in 8-bit products.
///
/// # Panics
/// If a length does not fit.
pub fn forward_int8<'x, 'y>(
    x: impl Into<Values<'x>>,
    weight: &QuantisedB,
    epilogue: Epilogue,
    y: impl Into<ValuesMut<'y>>,
) {
    gemm_int8(x, weight, y, epilogue);
}

/// `dx = dy · weight`, `[N, in]`.
///
/// # Panics
/// If a length does not fit.
pub fn backward_input<'y, 'x>(
    precision: Precision,
    dy: impl Into<Values<'y>>,
    weight: &[f32],
    shape: Shape,
    dx: impl Into<ValuesMut<'x>>,
) {
    let Shape { rows, inputs, outputs } = shape;
    let dy = MatRef::row_major(dy, rows, outputs);
    gemm(precision, dy, MatRef::row_major(weight, outputs, inputs), dx, false, Epilogue::default());
}

/// `dx = (dy · weight) ⊙ f'(x)`, `[N, in]`: the gradient through a linear map and the activation before it.
///
/// # Panics
/// If a length does not fit.
pub fn backward_activation<'i, 'o>(
    precision: Precision,
    dy: impl Into<Values<'i>>,
    weight: &[f32],
    (activation, x): (Activation, Values<'i>),
    shape: Shape,
    dx: impl Into<ValuesMut<'o>>,
) {
    let Shape { rows, inputs, outputs } = shape;
    let dy = MatRef::row_major(dy, rows, outputs);
    let epilogue = Epilogue { derivative: Some((activation, x)), ..Epilogue::default() };
    gemm(precision, dy, MatRef::row_major(weight, outputs, inputs), dx, false, epilogue);
}

/// `dweight = dyᵀ · x`, `[out, in]`; `accumulate` adds it to what is there.
///
/// # Panics
/// If a length does not fit.
pub fn backward_weight<'y, 'x>(
    precision: Precision,
    dy: impl Into<Values<'y>>,
    x: impl Into<Values<'x>>,
    shape: Shape,
    dweight: &mut [f32],
    accumulate: bool,
) {
    let Shape { rows, inputs, outputs } = shape;
    let dy = MatRef::row_major(dy, rows, outputs).transposed();
    gemm(
        precision,
        dy,
        MatRef::row_major(x, rows, inputs),
        dweight,
        accumulate,
        Epilogue::default(),
    );
}

/// `dbias = Σ_n dy`, `[out]`; `accumulate` adds it to what is there.
///
/// # Panics
/// If a length does not fit.
pub fn backward_bias<'y>(
    dy: impl Into<Values<'y>>,
    shape: Shape,
    dbias: &mut [f32],
    accumulate: bool,
) {
    let dy = dy.into();
    assert_eq!(dy.len(), shape.rows * shape.outputs, "linear: dy");
    assert_eq!(dbias.len(), shape.outputs, "linear: dbias");
    reduce::sum_rows(dy, dbias, accumulate);
}
