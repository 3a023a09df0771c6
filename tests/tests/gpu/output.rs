//! One output of a kernel against the reference and against the CPU twin.

use super::device::{self, Canary};
use vitmae_kernels::{Array, Client, Dtype};
use vitmae_testing::close::{Tolerance, assert_close};
use vitmae_testing::draws::widen;
use vitmae_testing::reference::reduce;

/// Runs `kernel` on an output of poison between canaries, twice, demands the same bits, and compares them
/// with `expected` and with what `twin` computes. `tolerance` is that of an f32 result.
#[track_caller]
pub(crate) fn assert_output(
    client: &Client,
    name: &str,
    dtype: Dtype,
    expected: &[f64],
    tolerance: Tolerance,
    twin: impl FnOnce(&mut [f32]),
    kernel: impl Fn(&Array),
) {
    let name = format!("{name} {dtype}");
    let run = || {
        let out = Canary::poisoned(client, expected.len(), dtype);
        kernel(out.array());
        out.finish(client, &name)
    };
    let mut of_twin = vec![f32::NAN; expected.len()];
    twin(&mut of_twin);
    compare(&name, [run(), run()], expected, &of_twin, stored(tolerance, dtype));
}

/// The same for an f32 output to which the kernel adds if its second argument says so: over poison, and on
/// top of values.
#[track_caller]
pub(crate) fn assert_sum(
    client: &Client,
    name: &str,
    expected: &[f64],
    tolerance: Tolerance,
    twin: impl Fn(&mut [f32], bool),
    kernel: impl Fn(&Array, bool),
) {
    let overwrite = |out: &mut [f32]| twin(out, false);
    assert_output(client, name, Dtype::F32, expected, tolerance, overwrite, |out| {
        kernel(out, false);
    });
    let before: Vec<f32> = (0..expected.len()).map(|i| (i % 7) as f32 - 3.0).collect();
    let on_top = reduce::add(expected, &widen(&before));
    let name = format!("{name}, accumulated");
    let run = || {
        let out = Canary::filled(client, &before);
        kernel(out.array(), true);
        out.finish(client, &name)
    };
    let mut of_twin = before.clone();
    twin(&mut of_twin, true);
    compare(&name, [run(), run()], &on_top, &of_twin, tolerance);
}

#[track_caller]
fn compare(
    name: &str,
    [found, again]: [Vec<f32>; 2],
    expected: &[f64],
    twin: &[f32],
    tolerance: Tolerance,
) {
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert!(bits(&found) == bits(&again), "`{name}`: another run gave other bits");
    // With nothing to compare, not panicking and not writing is what is asked.
    if !expected.is_empty() {
        assert_close(name, &found, expected, tolerance);
        assert_close(&format!("{name}, CPU twin"), &found, twin, of_two(tolerance));
    }
}

/// The tolerance between two results which both may be off; never one that no result could miss.
pub(crate) fn of_two(tolerance: Tolerance) -> Tolerance {
    let Tolerance { abs, rel } = Tolerance::CAP;
    Tolerance::new(abs.min(2.0 * tolerance.abs), rel.min(2.0 * tolerance.rel))
}

/// The tolerance of a result that is stored as `dtype`: one more rounding, near 0 to a step of f16. What
/// must be exact is copied and not rounded.
pub(crate) fn stored(tolerance: Tolerance, dtype: Dtype) -> Tolerance {
    if tolerance == Tolerance::EXACT {
        return tolerance;
    }
    let smallest = if dtype == Dtype::F16 { 1.0 / f64::from(1 << 25) } else { 0.0 };
    Tolerance::new(tolerance.abs + smallest, tolerance.rel + device::rounding(dtype))
}

#[test]
#[should_panic(expected = "`out f32`: another run gave other bits")]
fn a_kernel_that_changes_from_run_to_run_fails() {
    let client = device::client();
    let runs = std::cell::Cell::new(0.0f32);
    let twin = |out: &mut [f32]| out.fill(0.0);
    assert_output(&client, "out", Dtype::F32, &[0.0], Tolerance::EXACT, twin, |out| {
        runs.set(runs.get() + 1.0);
        let value = Array::from_f32(&client, &[runs.get()]);
        vitmae_kernels::reduce::add(&client, &value, &value, out);
    });
}
