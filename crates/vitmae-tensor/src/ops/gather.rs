//! Rows of tokens chosen by index, and the scatter that is its adjoint.

use vitmae_cpu::gather::{self as cpu, Shape};
#[cfg(feature = "gpu")]
use vitmae_kernels::gather as gpu;

use crate::{Indices, Tensor, TensorError};

/// `y[b, k] = x[b, ids[b, k]]`.
///
/// # Shapes
/// `x: [B, R, D]`, `ids: [B, K]` below R → `[B, K, D]`
///
/// # Errors
/// [`TensorError::Shape`] or [`TensorError::Index`] if an argument does not fit.
pub fn gather(x: &Tensor, ids: &Indices) -> Result<Tensor, TensorError> {
    let [batch, rows, width] = x.dims("gather", "x")?;
    let shape = shape_of("gather", ids, batch, rows, width)?;
    ids.expect_beside("gather", x)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = x.device().client() {
        let dims = [batch, shape.kept, width];
        let y = Tensor::empty_as(x.device(), client, &dims, x.array().dtype)?;
        gpu::forward(client, x.array(), ids.ids(), of_kernels(shape), y.array());
        return Ok(y);
    }
    Tensor::written_as(x.device(), &[batch, shape.kept, width], x.stored(), |y| {
        cpu::forward(x.values(), ids.as_slice(), shape, y);
    })
}

/// `dx: [B, R, D]` for `dy: [B, K, D]`: zero where nothing was chosen, a sum where a row was chosen
/// more than once.
///
/// # Errors
/// As [`gather`].
pub fn gather_backward(dy: &Tensor, ids: &Indices, rows: usize) -> Result<Tensor, TensorError> {
    const OP: &str = "gather_backward";
    let [batch, kept, width] = dy.dims(OP, "dy")?;
    let shape = shape_of(OP, ids, batch, rows, width)?;
    dy.expect(OP, "dy", &[batch, shape.kept, width])?;
    debug_assert_eq!(kept, shape.kept);
    ids.expect_beside(OP, dy)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = dy.device().client() {
        let dims = [batch, rows, width];
        let dx = Tensor::empty_as(dy.device(), client, &dims, dy.array().dtype)?;
        gpu::backward(client, dy.array(), ids.ids(), of_kernels(shape), dx.array());
        return Ok(dx);
    }
    Tensor::written_as(dy.device(), &[batch, rows, width], dy.stored(), |dx| {
        cpu::backward(dy.values(), ids.as_slice(), shape, dx);
    })
}

fn shape_of(
    op: &'static str,
    ids: &Indices,
    batch: usize,
    rows: usize,
    width: usize,
) -> Result<Shape, TensorError> {
    match ids.shape() {
        &[found, kept] if found == batch => {
            ids.expect_below(op, "ids", rows)?;
            Ok(Shape { batch, rows, kept, width })
        }
        actual => {
            let expected = vec![batch, actual.last().copied().unwrap_or(0)];
            Err(TensorError::Shape { op, tensor: "ids", actual: actual.to_vec(), expected })
        }
    }
}

#[cfg(feature = "gpu")]
fn of_kernels(Shape { batch, rows, kept, width }: Shape) -> gpu::Shape {
    gpu::Shape { batch, rows, kept, width }
}
