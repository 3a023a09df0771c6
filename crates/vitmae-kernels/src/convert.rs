//! Values in another type, and rounding to it.
//!
//! Rounding to bf16 is to nearest, ties to even, on every device: bf16 is the upper half of an f32, so it is done with
//! the bits, and devices without bf16 can have its values as f32. How a value becomes f16 is the device's choice; Vulkan
//! leaves rounding open.
//!
//! CPU twin: the rounding of factors in `vitmae_cpu::gemm`.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::{Array, Capabilities, Client, Dtype, launch};

/// The bits of infinity; those of NaN are larger.
const EXPONENT: u32 = 0x7f80_0000;

/// `y = x`, rounded to the type of `y`.
///
/// # Shapes
/// `x, y: [n]`
///
/// # Panics
/// If lengths differ.
pub fn convert(client: &Client, x: &Array, y: &Array) {
    assert_eq!(x.len, y.len, "convert: y");
    launch_kernel(client, x, y, y.dtype == Dtype::BF16 && x.dtype != Dtype::BF16);
}

/// The values of `x` rounded to bf16: as bf16 where the device has it, else as f32.
///
/// Factors of a product that are rounded so give the same product either way: that of two bf16 values is exact in f32.
///
/// # Panics
/// If `x` is not f32.
pub fn rounded_to_bf16(client: &Client, x: &Array) -> Array {
    assert_eq!(x.dtype, Dtype::F32, "convert: x");
    let dtype = if Capabilities::of(client).bf16 { Dtype::BF16 } else { Dtype::F32 };
    let y = Array::empty(client, x.len, dtype);
    launch_kernel(client, x, &y, true);
    y
}

fn launch_kernel(client: &Client, x: &Array, y: &Array, to_bf16: bool) {
    if y.len == 0 {
        return;
    }
    let vector = launch::vector_size(y.len);
    let (count, dim) = launch::elements(client, y.len / vector);
    // SAFETY: guarded by the number of vectors in `y`, which `x` shares.
    unsafe {
        convert_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            x.arg(),
            y.arg(),
            (y.len / vector) as u32,
            to_bf16,
            [x.dtype.elem(), y.dtype.elem()],
        );
    }
}

/// One unit converts one vector.
#[cube(launch_unchecked)]
fn convert_kernel<X: Float, Y: Float, N: Size>(
    x: &[Vector<X, N>],
    y: &mut [Vector<Y, N>],
    vectors: u32,
    #[comptime] to_bf16: bool,
    #[define(X, Y)] _dtypes: [ElemType; 2],
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let mut values = Vector::<f32, N>::cast_from(x[i]);
        if comptime!(to_bf16) {
            #[unroll]
            for lane in 0..N::value() {
                values.insert(lane, bf16_of(values.extract(lane)));
            }
        }
        y[i] = Vector::<Y, N>::cast_from(values);
    }
}

/// The nearest value of bf16, ties to even.
#[cube]
fn bf16_of(x: f32) -> f32 {
    let bits = u32::reinterpret(x);
    let even = (bits >> 16u32) & 1u32;
    let rounded = (bits + 0x7fffu32 + even) & 0xffff_0000u32;
    // The sum would carry a NaN over into infinity or into the sign.
    let nan = (bits & 0x7fff_ffffu32) > EXPONENT;
    f32::reinterpret(select(nan, bits | 0x0040_0000u32, rounded))
}
