//! Sums over rows, and of two arrays.
//!
//! Oracle: `vitmae_testing::reference::reduce`; CPU twin: `vitmae_cpu::reduce`.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::{Array, Capabilities, Client, cube_count};

/// Units of a cube of an elementwise kernel.
const UNITS: u32 = 256;

/// `out = a + b`.
///
/// # Panics
/// If lengths or types differ.
pub fn add(client: &Client, a: &Array, b: &Array, out: &Array) {
    assert!(a.len == b.len && a.len == out.len, "reduce: add");
    assert!(a.dtype == b.dtype && a.dtype == out.dtype, "reduce: add of {} and {}", a.dtype, b.dtype);
    if out.len == 0 {
        return;
    }
    let count = cube_count(out.len.div_ceil(UNITS as usize), &Capabilities::of(client));
    let len = out.len as u32;
    // SAFETY: guarded by the length of `out`, which the others share.
    unsafe {
        add_kernel::launch_unchecked(
            client,
            count,
            CubeDim::new_1d(UNITS),
            a.arg(),
            b.arg(),
            out.arg(),
            len,
            out.dtype.elem(),
        );
    }
}

/// One unit adds one value.
#[cube(launch_unchecked)]
fn add_kernel<F: Float>(a: &[F], b: &[F], out: &mut [F], len: u32, #[define(F)] _dtype: ElemType) {
    let i = ABSOLUTE_POS;
    if i < len as usize {
        out[i] = F::cast_from(f32::cast_from(a[i]) + f32::cast_from(b[i]));
    }
}
