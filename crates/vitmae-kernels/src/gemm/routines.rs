//! The routines of CubeK.

use cubecl::prelude::TensorBinding;
use cubek_matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek_matmul::launch::launch_ref;
use cubek_matmul::{multi_level, strategy, tiled};
use cubek_std::InputBinding;

use super::sums::add_parts;
use super::{MatRef, Strategy};
use crate::convert::convert;
use crate::{Array, Client, Dtype, KernelError};

/// `C = A·B` or `C += A·B` by one of the routines.
///
/// # Errors
/// [`KernelError::Refused`] if the device or the shape does not suit the routine.
pub(super) fn product(
    client: &Client,
    strategy: Strategy,
    a: MatRef,
    b: MatRef,
    c: &Array,
    accumulate: bool,
) -> Result<(), KernelError> {
    let (a_type, b_type) = operand_types(strategy, a.array.dtype, b.array.dtype)?;
    // The routines only overwrite; a sum goes through memory of its own.
    let out = if accumulate { Array::empty(client, c.len, Dtype::F32) } else { c.clone() };
    let elems = MatmulGlobalElems { lhs: a_type.elem(), rhs: b_type.elem(), out: out.dtype.elem() };
    let result = launch_ref(
        &routine(strategy)?,
        client,
        input(client, a, a_type)?,
        input(client, b, b_type)?,
        binding(&out, [a.rows, b.cols], [b.cols, 1]),
        &mut MatmulElems::from_globals(&elems),
    );
    result.map_err(|error| refused(error.to_string()))?;
    if accumulate {
        add_parts(client, &out, 1, c, true);
    }
    Ok(())
}

fn refused(reason: String) -> KernelError {
    KernelError::Refused { op: "gemm", reason }
}

fn routine(strategy: Strategy) -> Result<strategy::Strategy, KernelError> {
    Ok(match strategy {
        Strategy::Tiled => return Err(refused("`Tiled` is no routine of CubeK".to_owned())),
        Strategy::SimpleUnit => multi_level::Strategy::SimpleUnit(Default::default()).into(),
        Strategy::DoubleUnit => multi_level::Strategy::DoubleUnit(Default::default()).into(),
        Strategy::SimpleCmma => multi_level::Strategy::SimpleCyclicCmma(Default::default()).into(),
        Strategy::DoubleCmma => multi_level::Strategy::DoubleCyclicCmma(Default::default()).into(),
        Strategy::Cpu => tiled::Strategy::CpuGemm(Default::default()).into(),
    })
}

/// The types in which the operands are handed over: matrix units want both in one half type.
fn operand_types(strategy: Strategy, a: Dtype, b: Dtype) -> Result<(Dtype, Dtype), KernelError> {
    if !matches!(strategy, Strategy::SimpleCmma | Strategy::DoubleCmma) {
        return Ok((a, b));
    }
    match super::half_type(a, b) {
        Some(half) => Ok((half, half)),
        // CubeK would round f32 to TF32.
        None => Err(refused(format!("{a} and {b} do not go to matrix units"))),
    }
}

/// A view as an operand of a routine.
///
/// # Errors
/// [`KernelError::Refused`] if it begins where no buffer can begin.
fn input(client: &Client, view: MatRef, dtype: Dtype) -> Result<InputBinding, KernelError> {
    let mut array = view.array.clone();
    if array.dtype != dtype {
        array = Array::empty(client, array.len, dtype);
        convert(client, view.array, &array);
    }
    let (offset, alignment) = (view.offset * dtype.size(), client.properties().memory.alignment);
    if !(offset as u64).is_multiple_of(alignment) {
        return Err(refused(format!("a view begins at byte {offset}, no multiple of {alignment}")));
    }
    array.handle = array.handle.offset_start(offset as u64);
    let binding = binding(&array, [view.rows, view.cols], [view.row_stride, view.col_stride]);
    Ok(InputBinding::new(binding, dtype.elem()))
}

fn binding(array: &Array, shape: [usize; 2], strides: [usize; 2]) -> TensorBinding {
    // SAFETY: `MatRef` holds all its elements, and the routines guard their tails.
    unsafe { TensorBinding::from_raw_parts(array.handle.clone(), strides.into(), shape.into()) }
}
