//! A launch that fails must show where its values are read, and never as zeros.

use super::device;
use vitmae_kernels::cubecl;
use vitmae_kernels::cubecl::prelude::*;
use vitmae_kernels::{Array as Values, Client, Dtype, KernelError, reduce};

#[cube(launch)]
fn fill(out: &mut [f32], #[comptime] shared: usize) {
    let mut values = Shared::<[f32]>::new_slice(shared);
    if UNIT_POS == 0 {
        values[shared - 1] = 7.0f32;
        out[0] = values[shared - 1];
    }
}

/// One value, written by a cube of `units` with `shared` values of shared memory.
fn filled(client: &Client, units: u32, shared: usize) -> Values {
    let out = Values::empty(client, 1, Dtype::F32);
    let count = CubeCount::Static(1, 1, 1);
    fill::launch(client, count, CubeDim::new_1d(units), out.arg(), shared);
    out
}

#[test]
fn a_launch_that_can_run_writes_its_value() {
    let client = device::client();
    assert_eq!(filled(&client, 32, 16).to_f32(&client).expect("a small launch"), [7.0]);
}

#[test]
fn a_cube_that_is_too_large_is_an_error() {
    let client = device::client();
    let found = filled(&client, 1 << 20, 16).to_f32(&client);
    assert!(matches!(found, Err(KernelError::Device(_))), "{found:?}");
}

#[test]
fn too_much_shared_memory_is_an_error() {
    let client = device::client();
    let found = filled(&client, 32, 1 << 24).to_f32(&client);
    assert!(matches!(found, Err(KernelError::Device(_))), "{found:?}");
}

#[test]
fn what_is_computed_from_a_failed_launch_is_an_error_too() {
    let client = device::client();
    let (failed, sum) = (filled(&client, 1 << 20, 16), Values::empty(&client, 1, Dtype::F32));
    reduce::add(&client, &failed, &Values::from_f32(&client, &[1.0]), &sum);
    let found = sum.to_f32(&client);
    assert!(matches!(found, Err(KernelError::Device(_))), "{found:?}");
}
