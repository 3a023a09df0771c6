//! A launch that fails must show where its values are read, and never as zeros.

use super::device;
use vitmae_kernels::cubecl;
use vitmae_kernels::cubecl::prelude::*;
use vitmae_kernels::{Array as Values, Client, Dtype, KernelError, attention, reduce};

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

#[test]
fn a_head_that_is_too_wide_for_the_device_is_refused() {
    let client = device::client();
    let shape = attention::Shape { batch: 1, tokens: 2, heads: 1, head_dim: 1 << 14 };
    let values = |len| Values::empty(&client, len, Dtype::F32);
    let (qkv, out, lse) = (values(3 << 15), values(1 << 15), values(2));
    let refused = |result: Result<(), KernelError>| {
        let Err(KernelError::Refused { reason, .. }) = result else { panic!("{result:?}") };
        assert!(reason.starts_with("a head of width 16384 does not fit the "), "{reason}");
    };
    refused(attention::forward(&client, &qkv, None, shape, &out, &lse));
    refused(attention::backward(&client, &out, &qkv, &out, &lse, None, shape, &qkv));
    refused(attention::probabilities(&client, &qkv, &lse, shape, &values(4)));
}
