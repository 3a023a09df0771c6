//! Linear map over the last axis: `y = x · weightᵀ + bias`, with what is fused behind it.
//!
//! Source: `torch.nn.functional.linear`. Oracle: `vitmae_testing::reference::linear`; CPU twin:
//! `vitmae_cpu::linear`.

pub use crate::gemm::Epilogue;
use crate::gemm::{MatRef, gemm, gemm_epilogue};
use crate::{Array, Client, reduce};

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

/// `y = x · weightᵀ`, then the epilogue. `weight` is f32 or of the type of `x`.
///
/// # Shapes
/// `x: [N, in]`, `weight: [out, in]`, `y: [N, out]`
///
/// # Panics
/// If a length or a type does not fit.
pub fn forward(
    client: &Client,
    x: &Array,
    weight: &Array,
    epilogue: Epilogue,
    shape: Shape,
    y: &Array,
) {
    let Shape { rows, inputs, outputs } = shape;
    let x = MatRef::row_major(x, rows, inputs);
    let weight = MatRef::row_major(weight, outputs, inputs).transposed();
    gemm_epilogue(client, x, weight, epilogue, y);
}

/// `dx = dy · weight`, `[N, in]`.
///
/// # Panics
/// If a length does not fit.
pub fn backward_input(client: &Client, dy: &Array, weight: &Array, shape: Shape, dx: &Array) {
    let Shape { rows, inputs, outputs } = shape;
    let dy = MatRef::row_major(dy, rows, outputs);
    gemm(client, dy, MatRef::row_major(weight, outputs, inputs), dx, false);
}

/// `dweight = dyᵀ · x`, `[out, in]` f32; `accumulate` adds it to what is there.
///
/// # Panics
/// If a length does not fit.
pub fn backward_weight(
    client: &Client,
    dy: &Array,
    x: &Array,
    shape: Shape,
    dweight: &Array,
    accumulate: bool,
) {
    let Shape { rows, inputs, outputs } = shape;
    let dy = MatRef::row_major(dy, rows, outputs).transposed();
    gemm(client, dy, MatRef::row_major(x, rows, inputs), dweight, accumulate);
}

/// `dbias = Σ_n dy`, `[out]` f32; `accumulate` adds it to what is there.
///
/// # Panics
/// If a length does not fit.
pub fn backward_bias(client: &Client, dy: &Array, shape: Shape, dbias: &Array, accumulate: bool) {
    assert_eq!(dy.len, shape.rows * shape.outputs, "linear: dy");
    assert_eq!(dbias.len, shape.outputs, "linear: dbias");
    reduce::sum_rows(client, dy, dbias, accumulate);
}
