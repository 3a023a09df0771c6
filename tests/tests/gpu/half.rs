//! Half types on both sides of a comparison.

use vitmae_kernels::{Array, Client, Dtype};
use vitmae_testing::close::Tolerance;

/// `values` as an array of `dtype` holds them, so that the reference starts from the same.
pub(crate) fn rounded(client: &Client, values: &[f32], dtype: Dtype) -> Vec<f32> {
    Array::from_f32_as(client, values, dtype).to_f32(client).expect("values come back")
}

/// The tolerance of an f32 computation whose result is rounded to `dtype` once.
pub(crate) fn tolerance_of(f32: Tolerance, dtype: Dtype) -> Tolerance {
    // Near 0 the steps of f16 are 2^-24 apart.
    let smallest = if dtype == Dtype::F16 { 1.0 / f64::from(1 << 25) } else { 0.0 };
    Tolerance::new(f32.abs + smallest, f32.rel + unit(dtype))
}

/// What one rounding to `dtype` adds to the errors of an f32 computation, relative to the value.
pub(crate) fn unit(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 0.0,
        Dtype::F16 => 1.0 / f64::from(1 << 11),
        Dtype::BF16 => 1.0 / f64::from(1 << 8),
    }
}
