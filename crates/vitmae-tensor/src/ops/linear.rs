//! Linear map over the last axis, with what is fused into it.

pub use vitmae_cpu::gemm::Precision;
use vitmae_cpu::gemm::{Epilogue, PackedB, QuantisedB};
use vitmae_cpu::linear::{self as cpu, Shape};
use vitmae_cpu::values::ValuesMut;
#[cfg(feature = "gpu")]
use vitmae_kernels::{Array, Capabilities, Client, Dtype, convert, linear as gpu};

use super::Activation;
use crate::pool::Buffer;
use crate::tensor::into_slot;
#[cfg(feature = "gpu")]
use crate::tensor::slot_array;
use crate::{Tensor, TensorError};

/// A weight `[out, in]`, or a convolution's `[out, C, PH, PW]` with `in = C·PH·PW`, and how products with it
/// are computed.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// Its values.
    pub tensor: &'a Tensor,
    /// Of the product.
    pub precision: Precision,
    /// The same values rounded and packed before; taken while they are the same, and in this precision or in 8 bits.
    pub packed: Option<&'a PackedWeight>,
}

/// A weight rounded, in the order in which the CPU's kernels read it, for forward passes that do not change it. Costs, beside
/// the weight, half of its memory in bf16, or all of it on a CPU without instructions for bf16, and a quarter in 8 bits.
pub struct PackedWeight {
    source: Tensor,
    packed: Kind,
}

enum Kind {
    Bf16(PackedB),
    Int8(QuantisedB),
}

/// Packs a weight of the CPU for forward passes: the same results, sooner.
///
/// For f32 the weight itself is kept in the order of the kernels and needs no more memory, unless a clone shares it.
/// [`Tensor::to_vec`] restores its order; other operations that read it so, as a backward pass, a product in bf16 and
/// [`PackedWeight::int8`] do, keep it in both orders until it is written or packed again. For bf16 a rounded copy is returned. A GPU's kernels
/// read weights as they are.
///
/// # Errors
/// [`TensorError::Rank`] if it has fewer than two sides.
pub fn pack(
    weight: &mut Tensor,
    precision: Precision,
) -> Result<Option<PackedWeight>, TensorError> {
    let (outputs, inputs) = sides("pack", weight)?;
    if !weight.device().is_cpu() {
        return Ok(None);
    }
    if precision == Precision::F32 {
        weight.pack(inputs, outputs);
        return Ok(None);
    }
    weight.unpack();
    let packed = cpu::pack(precision, weight.as_slice(), inputs, outputs, Buffer::take);
    Ok(Some(PackedWeight { source: weight.clone(), packed: Kind::Bf16(packed) }))
}

impl PackedWeight {
    /// Rounds a weight to 8 bits, with a scale for each output; none on a GPU, which has no such products here, and
    /// none for more than 2¹⁵ inputs, whose sums would not fit in 32 bits.
    ///
    /// Products with it round each token to 8 bits too, and sum exactly.
    ///
    /// # Errors
    /// As [`pack`].
    pub fn int8(weight: &Tensor) -> Result<Option<Self>, TensorError> {
        let (outputs, inputs) = sides("quantise", weight)?;
        if !weight.device().is_cpu() || inputs > QuantisedB::MAX_K {
            return Ok(None);
        }
        let packed = Kind::Int8(cpu::quantise(weight.as_slice(), inputs, outputs));
        Ok(Some(Self { source: weight.clone(), packed }))
    }
}

impl std::fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.packed {
            Kind::Bf16(_) => "Bf16",
            Kind::Int8(_) => "Int8",
        };
        let shape = self.source.shape();
        f.debug_struct("PackedWeight").field("shape", &shape).field("kind", &kind).finish()
    }
}

impl Weight<'_> {
    /// `y = x · weightᵀ`, then the epilogue, on the CPU.
    fn forward(&self, x: &Tensor, epilogue: Epilogue, shape: Shape, y: ValuesMut) {
        // A write to the weight gave it memory of its own, since the packed one holds a clone.
        let fresh = |packed: &&PackedWeight| packed.source.is(self.tensor);
        let rounded = self.packed.filter(fresh).map(|packed| &packed.packed);
        let in_order = self.tensor.packed(shape.inputs, shape.outputs);
        match (self.precision, rounded, in_order) {
            (_, Some(Kind::Int8(packed)), _) => {
                cpu::forward_int8(x.values(), packed, epilogue, y);
            }
            (Precision::Bf16, Some(Kind::Bf16(packed)), _) | (Precision::F32, _, Some(packed)) => {
                cpu::forward_packed(x.values(), packed, epilogue, shape.rows, y);
            }
            _ => {
                let weight = self.tensor.as_slice();
                cpu::forward(self.precision, x.values(), weight, epilogue, shape, y);
            }
        }
    }
}

/// `y = x · weightᵀ + bias`. In bf16 both factors are rounded on the way into the product, and sums are f32. `stored`
/// is the precision of what reads `y`.
///
/// # Shapes
/// `x: […, in]`, `weight: [out, in]`, `bias: [out]` → `[…, out]`
///
/// # Errors
/// [`TensorError::Shape`] if a shape does not fit.
///
/// Source: `torch.nn.functional.linear`.
pub fn linear(
    x: &Tensor,
    weight: Weight,
    bias: Option<&Tensor>,
    stored: Precision,
) -> Result<Tensor, TensorError> {
    const OP: &str = "linear";
    let (shape, out) = check(OP, x, weight.tensor, bias)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = x.device().client() {
        let y = Tensor::empty_as(x.device(), client, &out, dtype_of(client, stored))?;
        let bias = bias.map(Tensor::array);
        let epilogue = gpu::Epilogue { bias, ..gpu::Epilogue::default() };
        let [x, weight] = [x, weight.tensor].map(|f| factor(client, weight.precision, f));
        gpu::forward(client, &x, &weight, epilogue, of_kernels(shape), y.array());
        return Ok(y);
    }
    Tensor::written_as(x.device(), &out, stored, |y| {
        let epilogue = Epilogue { bias: bias.map(Tensor::as_slice), ..Epilogue::default() };
        weight.forward(x, epilogue, shape, y);
    })
}

/// `pre = x · weightᵀ + bias` and `y = f(pre)`, both stored in the precision of the weight; returns `(pre, y)`.
///
/// # Errors
/// As [`linear`].
pub fn linear_activation(
    x: &Tensor,
    weight: Weight,
    bias: Option<&Tensor>,
    f: Activation,
) -> Result<(Tensor, Tensor), TensorError> {
    let mut pre = None;
    let y = activated(x, weight, bias, f, Some(&mut pre))?;
    let pre = pre.unwrap_or_else(|| unreachable!("it was asked for"));
    Ok((pre, y))
}

/// `y` of [`linear_activation`], for a pass without a backward one: `pre` is nowhere stored.
///
/// # Errors
/// As [`linear`].
pub fn linear_activation_alone(
    x: &Tensor,
    weight: Weight,
    bias: Option<&Tensor>,
    f: Activation,
) -> Result<Tensor, TensorError> {
    activated(x, weight, bias, f, None)
}

fn activated(
    x: &Tensor,
    weight: Weight,
    bias: Option<&Tensor>,
    f: Activation,
    pre: Option<&mut Option<Tensor>>,
) -> Result<Tensor, TensorError> {
    let (shape, out) = check("linear_activation", x, weight.tensor, bias)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = x.device().client() {
        let dtype = dtype_of(client, weight.precision);
        let empty = || Tensor::empty_as(x.device(), client, &out, dtype);
        let y = empty()?;
        let pre = match pre {
            Some(pre) => Some(&*pre.insert(empty()?)),
            None => None,
        };
        let epilogue = gpu::Epilogue {
            bias: bias.map(Tensor::array),
            activation: Some(super::activation::of_kernels(f)),
            pre: pre.map(Tensor::array),
            residual: None,
        };
        let [x, weight] = [x, weight.tensor].map(|f| factor(client, weight.precision, f));
        gpu::forward(client, &x, &weight, epilogue, of_kernels(shape), y.array());
        return Ok(y);
    }
    let stored = weight.precision;
    let product = |pre: Option<ValuesMut>| {
        Tensor::written_as(x.device(), &out, stored, |y| {
            let bias = bias.map(Tensor::as_slice);
            let epilogue = Epilogue { bias, activation: Some(f), pre, ..Epilogue::default() };
            weight.forward(x, epilogue, shape, y);
        })
    };
    let Some(pre) = pre else { return product(None) };
    let mut y = None;
    *pre = Some(Tensor::written_as(x.device(), &out, stored, |pre| y = Some(product(Some(pre))))?);
    y.unwrap_or_else(|| unreachable!("it was written"))
}

/// `y = x · weightᵀ + bias + residual`.
///
/// # Errors
/// As [`linear`]; `residual` has the shape of `y`.
pub fn linear_residual(
    x: &Tensor,
    weight: Weight,
    bias: Option<&Tensor>,
    residual: &Tensor,
) -> Result<Tensor, TensorError> {
    const OP: &str = "linear_residual";
    let (shape, out) = check(OP, x, weight.tensor, bias)?;
    residual.expect(OP, "residual", &out)?;
    Tensor::expect_together(OP, &[x, residual])?;
    #[cfg(feature = "gpu")]
    if let Some(client) = x.device().client() {
        let y = Tensor::empty(x.device(), &out)?;
        let (bias, residual) = (bias.map(Tensor::array), Some(residual.array()));
        let epilogue = gpu::Epilogue { bias, residual, ..gpu::Epilogue::default() };
        let [x, weight] = [x, weight.tensor].map(|f| factor(client, weight.precision, f));
        gpu::forward(client, &x, &weight, epilogue, of_kernels(shape), y.array());
        return Ok(y);
    }
    Tensor::written(x.device(), &out, |y| {
        let (bias, residual) = (bias.map(Tensor::as_slice), Some(residual.as_slice()));
        let epilogue = Epilogue { bias, residual, ..Epilogue::default() };
        weight.forward(x, epilogue, shape, y.into());
    })
}

/// `dx = dy · weight`, `[…, in]` for `dy: […, out]`. `stored` is the precision of what reads `dx`.
///
/// # Errors
/// As [`linear`].
pub fn linear_backward_input(
    precision: Precision,
    dy: &Tensor,
    weight: &Tensor,
    stored: Precision,
) -> Result<Tensor, TensorError> {
    const OP: &str = "linear_backward_input";
    let (sizes, shape) = check_backward(OP, dy, weight)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = dy.device().client() {
        let dx = Tensor::empty_as(dy.device(), client, &shape, dtype_of(client, stored))?;
        let sizes = of_kernels(sizes);
        let [dy, weight] = [dy, weight].map(|f| factor(client, precision, f));
        gpu::backward_input(client, &dy, &weight, sizes, dx.array());
        return Ok(dx);
    }
    Tensor::written_as(dy.device(), &shape, stored, |dx| {
        cpu::backward_input(precision, dy.values(), weight.as_slice(), sizes, dx);
    })
}

/// `dx = (dy · weight) ⊙ f'(x)`, `[…, in]` for `dy: […, out]`: the gradient through a linear map and the activation before it,
/// on the CPU in one pass. Stored as `x` is.
///
/// # Errors
/// As [`linear`]; `x` has the shape of `dx`.
pub fn linear_backward_activation(
    precision: Precision,
    dy: &Tensor,
    weight: &Tensor,
    x: &Tensor,
    f: Activation,
) -> Result<Tensor, TensorError> {
    const OP: &str = "linear_backward_activation";
    let (sizes, shape) = check_backward(OP, dy, weight)?;
    x.expect(OP, "x", &shape)?;
    Tensor::expect_together(OP, &[dy, x])?;
    if !dy.device().is_cpu() {
        let dy = linear_backward_input(precision, dy, weight, precision)?;
        return super::activation_backward(&dy, x, f);
    }
    Tensor::written_as(dy.device(), &shape, x.stored(), |dx| {
        let (weight, x) = (weight.as_slice(), (f, x.values()));
        cpu::backward_activation(precision, dy.values(), weight, x, sizes, dx);
    })
}

/// Adds `dyᵀ · x` to the slot of the weight's gradient, which gets the shape `weight`.
///
/// # Errors
/// As [`linear`].
pub fn linear_backward_weight(
    precision: Precision,
    dy: &Tensor,
    x: &Tensor,
    weight: &[usize],
    slot: &mut Option<Tensor>,
) -> Result<(), TensorError> {
    const OP: &str = "linear_backward_weight";
    let (rows, outputs) = dy.rows(OP, "dy")?;
    let (x_rows, inputs) = x.rows(OP, "x")?;
    if x_rows != rows {
        let (actual, expected) = (x.shape().to_vec(), vec![rows, inputs]);
        return Err(TensorError::Shape { op: OP, tensor: "x", actual, expected });
    }
    if weight.first() != Some(&outputs) || weight.iter().product::<usize>() != outputs * inputs {
        let (actual, expected) = (weight.to_vec(), vec![outputs, inputs]);
        return Err(TensorError::Shape { op: OP, tensor: "weight", actual, expected });
    }
    let shape = Shape { rows, inputs, outputs };
    Tensor::expect_together(OP, &[dy, x])?;
    #[cfg(feature = "gpu")]
    if let Some(client) = dy.device().client() {
        let (dweight, add) = slot_array(slot, dy.device(), weight)?;
        let [dy, x] = [dy, x].map(|f| factor(client, precision, f));
        gpu::backward_weight(client, &dy, &x, of_kernels(shape), &dweight, add);
        return Ok(());
    }
    into_slot(slot, dy.device(), weight, |dweight, add| {
        cpu::backward_weight(precision, dy.values(), x.values(), shape, dweight, add);
    })
}

/// Adds the column sums of `dy` to the slot of the bias's gradient, `[out]`.
///
/// # Errors
/// [`TensorError::Rank`] if `dy` has no sides.
pub fn linear_backward_bias(dy: &Tensor, slot: &mut Option<Tensor>) -> Result<(), TensorError> {
    let (rows, outputs) = dy.rows("linear_backward_bias", "dy")?;
    let shape = Shape { rows, inputs: 0, outputs };
    #[cfg(feature = "gpu")]
    if let Some(client) = dy.device().client() {
        let (dbias, add) = slot_array(slot, dy.device(), &[outputs])?;
        gpu::backward_bias(client, dy.array(), of_kernels(shape), &dbias, add);
        return Ok(());
    }
    into_slot(slot, dy.device(), &[outputs], |dbias, add| {
        cpu::backward_bias(dy.values(), shape, dbias, add);
    })
}

/// Sizes of the product and shape of its result.
fn check(
    op: &'static str,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<(Shape, Vec<usize>), TensorError> {
    let (outputs, inputs) = sides(op, weight)?;
    let (rows, width) = x.rows(op, "x")?;
    let mut out = x.shape().to_vec();
    if width != inputs {
        let actual = out.clone();
        replace_last(&mut out, inputs);
        return Err(TensorError::Shape { op, tensor: "x", actual, expected: out });
    }
    if let Some(bias) = bias {
        bias.expect(op, "bias", &[outputs])?;
    }
    Tensor::expect_together(op, &[&[x, weight][..], bias.as_slice()].concat())?;
    replace_last(&mut out, outputs);
    Ok((Shape { rows, inputs, outputs }, out))
}

/// Sizes of the product and shape of its gradient.
fn check_backward(
    op: &'static str,
    dy: &Tensor,
    weight: &Tensor,
) -> Result<(Shape, Vec<usize>), TensorError> {
    let (outputs, inputs) = sides(op, weight)?;
    let (rows, width) = dy.rows(op, "dy")?;
    let mut shape = dy.shape().to_vec();
    if width != outputs {
        let actual = shape.clone();
        replace_last(&mut shape, outputs);
        return Err(TensorError::Shape { op, tensor: "dy", actual, expected: shape });
    }
    replace_last(&mut shape, inputs);
    Tensor::expect_together(op, &[dy, weight])?;
    Ok((Shape { rows, inputs, outputs }, shape))
}

/// `(out, in)` of a weight.
fn sides(op: &'static str, weight: &Tensor) -> Result<(usize, usize), TensorError> {
    match weight.shape() {
        [outputs, rest @ ..] if !rest.is_empty() => Ok((*outputs, rest.iter().product())),
        actual => {
            let actual = actual.to_vec();
            Err(TensorError::Rank { op, tensor: "weight", actual, expected: 2 })
        }
    }
}

fn replace_last(shape: &mut [usize], side: usize) {
    if let Some(last) = shape.last_mut() {
        *last = side;
    }
}

/// `x` as products in `precision` read it, for one that several read: rounded on a GPU with bf16; elsewhere `x` itself,
/// which is rounded on the way into each.
///
/// # Errors
/// None so far.
pub fn rounded(x: &Tensor, precision: Precision) -> Result<Tensor, TensorError> {
    #[cfg(feature = "gpu")]
    if let Some(client) = x.device().client()
        && precision == Precision::Bf16
        && Capabilities::of(client).bf16
    {
        return Ok(x.with_array(as_type(client, x, Dtype::BF16)));
    }
    let _ = precision;
    Ok(x.clone())
}

/// A factor of a product as it goes into it.
#[cfg(feature = "gpu")]
fn factor(client: &Client, precision: Precision, tensor: &Tensor) -> Array {
    match (precision, tensor.array().dtype) {
        (Precision::Bf16, Dtype::F32) => convert::rounded_to_bf16(client, tensor.array()),
        (Precision::F32, dtype) if dtype != Dtype::F32 => as_type(client, tensor, Dtype::F32),
        _ => tensor.array().clone(),
    }
}

/// The type in which a GPU stores what operations in `precision` hand to each other: bf16 where the device has it and
/// rounds to it.
#[cfg(feature = "gpu")]
pub(super) fn dtype_of(client: &Client, precision: Precision) -> Dtype {
    if precision == Precision::F32 {
        return Dtype::F32;
    }
    let capabilities = Capabilities::of(client);
    if capabilities.bf16 && capabilities.rounds_bf16 { Dtype::BF16 } else { Dtype::F32 }
}

/// The values in another type, unless they have it.
#[cfg(feature = "gpu")]
pub(super) fn as_type(client: &Client, tensor: &Tensor, dtype: Dtype) -> Array {
    let array = tensor.array();
    if array.dtype == dtype {
        return array.clone();
    }
    let converted = Array::empty(client, array.len, dtype);
    convert::convert(client, array, &converted);
    converted
}

#[cfg(feature = "gpu")]
fn of_kernels(Shape { rows, inputs, outputs }: Shape) -> gpu::Shape {
    gpu::Shape { rows, inputs, outputs }
}
