//! Matrix product `C = A·B` or `C += A·B`.
//!
//! Two kernels behind one function. `tiled` takes any strides and types and computes in exact f32; `matrix` multiplies
//! f16 or bf16 by the matrix units of a device and adds in f32. [`Strategy`] names them; [`gemm`] picks one from the
//! types, the shape and what the device says it can do. Two f32 operands never go to matrix units, which would round
//! them to TF32; an f32 operand beside a half one is rounded to its type there, as mixed precision has it.
//!
//! Oracle: `vitmae_testing::reference::linear`; CPU twin: `vitmae_cpu::gemm`.

mod matrix;
mod sums;
mod tiled;

use crate::activation::{Activation, bias_activation};
use crate::{Array, Client, Dtype, KernelError};

/// A view of a matrix inside an array, with any strides.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    array: &'a Array,
    offset: usize,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> MatRef<'a> {
    /// `rows × cols` elements in row-major order.
    ///
    /// # Panics
    /// If `array` does not have exactly `rows · cols` elements.
    pub fn row_major(array: &'a Array, rows: usize, cols: usize) -> Self {
        assert_eq!(array.len, rows * cols, "gemm: a {rows}x{cols} matrix");
        Self { array, offset: 0, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Element (i, j) is number `offset + i · row_stride + j · col_stride` of the array.
    ///
    /// # Panics
    /// If the last element lies outside `array`.
    pub fn strided(
        array: &'a Array,
        offset: usize,
        [rows, cols]: [usize; 2],
        [row_stride, col_stride]: [usize; 2],
    ) -> Self {
        let last = offset + (rows.max(1) - 1) * row_stride + (cols.max(1) - 1) * col_stride;
        assert!(rows * cols == 0 || last < array.len, "gemm: strided {rows}x{cols} matrix");
        Self { array, offset, rows, cols, row_stride, col_stride }
    }

    /// The transposed view; nothing moves.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// What happens to a product: `+ bias`, then the activation, then `+ residual`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[n]` f32, added to every row.
    pub bias: Option<&'a Array>,
    /// The activation.
    pub activation: Option<Activation>,
    /// Where to keep its argument for the backward pass, `[m, n]`.
    pub pre: Option<&'a Array>,
    /// `[m, n]`, added last.
    pub residual: Option<&'a Array>,
}

impl Epilogue<'_> {
    fn is_none(&self) -> bool {
        let Self { bias, activation, pre, residual } = self;
        bias.is_none() && activation.is_none() && pre.is_none() && residual.is_none()
    }

    /// Bias, residual and kept argument as a kernel binds them: what is absent is bound to `other`, an output to memory
    /// of its own, and not touched.
    fn arrays(&self, client: &Client, other: &Array) -> [Array; 3] {
        let read = |array: Option<&Array>| array.unwrap_or(other).clone();
        let pre = self.pre.cloned();
        let pre = pre.unwrap_or_else(|| Array::empty(client, 0, other.dtype));
        [read(self.bias), read(self.residual), pre]
    }

    fn after(&self, accumulate: bool) -> After {
        After {
            accumulate,
            bias: self.bias.is_some(),
            saves: self.pre.is_some(),
            activation: self.activation.unwrap_or(Activation::Linear),
            residual: self.residual.is_some(),
        }
    }

    /// In a pass of its own.
    fn apply(&self, client: &Client, product: &Array, c: &Array) {
        let activation = self.activation.unwrap_or(Activation::Linear);
        bias_activation(client, product, self.bias, activation, self.residual, self.pre, c);
    }
}

/// What a kernel does with a sum before it writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct After {
    accumulate: bool,
    bias: bool,
    /// Keeps the argument of the activation, as it is stored, so that backward sees what it was.
    saves: bool,
    activation: Activation,
    residual: bool,
}

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// Tiles in shared memory, products by the units, f32 sums; any strides and types.
    Tiled,
    /// Products by matrix units of f16 or bf16 operands, f32 sums.
    Matrix,
}

impl Strategy {
    /// Every strategy, for tests and benches.
    pub const ALL: [Self; 2] = [Self::Tiled, Self::Matrix];
}

/// The type in which matrix units multiply `a` and `b`: the half type of one of them, if they do not have
/// two.
fn half_type(a: Dtype, b: Dtype) -> Option<Dtype> {
    match (a, b) {
        (Dtype::F32, Dtype::F32) => None,
        (Dtype::F32, half) | (half, Dtype::F32) => Some(half),
        _ => (a == b).then_some(a),
    }
}

/// `C = A·B` (`accumulate`: `C += A·B`) by the strategy that suits the device and the shape. `C` is row-major `[m, n]`;
/// sums are f32 and are rounded once to the type of `C`.
///
/// # Panics
/// If the sizes do not fit together.
pub fn gemm(client: &Client, a: MatRef, b: MatRef, c: &Array, accumulate: bool) {
    // It refuses before it launches anything; which shapes it refuses depends on the device alone.
    if gemm_with(client, Strategy::Matrix, a, b, c, accumulate).is_err() {
        check(a, b, c);
        tiled::product(client, a, b, c, accumulate, Epilogue::default());
    }
}

/// `C = A·B`, then the epilogue, on the way out unless the product is a sum of parts. `residual` and the kept argument have the type of `C`.
///
/// # Panics
/// If the sizes or types do not fit together.
pub fn gemm_epilogue(client: &Client, a: MatRef, b: MatRef, epilogue: Epilogue, c: &Array) {
    check(a, b, c);
    let bias = epilogue.bias.is_none_or(|bias| (bias.len, bias.dtype) == (b.cols, Dtype::F32));
    assert!(bias, "gemm: bias");
    for (array, name) in [(epilogue.residual, "residual"), (epilogue.pre, "pre")] {
        let fits = array.is_none_or(|array| (array.len, array.dtype) == (c.len, c.dtype));
        assert!(fits, "gemm: {name}");
    }
    if c.len > 0 && matrix::product(client, a, b, c, false, epilogue).is_err() {
        tiled::product(client, a, b, c, false, epilogue);
    }
}

/// [`gemm`] by a strategy of the caller's.
///
/// # Errors
/// [`KernelError::Refused`] if the device or the shape does not suit the strategy; never for
/// [`Strategy::Tiled`].
///
/// # Panics
/// If the sizes do not fit together.
pub fn gemm_with(
    client: &Client,
    strategy: Strategy,
    a: MatRef,
    b: MatRef,
    c: &Array,
    accumulate: bool,
) -> Result<(), KernelError> {
    check(a, b, c);
    if c.len == 0 {
        return Ok(());
    }
    match strategy {
        Strategy::Tiled => tiled::product(client, a, b, c, accumulate, Epilogue::default()),
        Strategy::Matrix => matrix::product(client, a, b, c, accumulate, Epilogue::default())?,
    }
    Ok(())
}

fn check(a: MatRef, b: MatRef, c: &Array) {
    assert_eq!(b.rows, a.cols, "gemm: rows of B");
    assert_eq!(c.len, a.rows * b.cols, "gemm: C is {}x{}", a.rows, b.cols);
}
