//! Thread pools of several sizes, and the demand that they give the same bits.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};
use vitmae_testing::close::{Tolerance, assert_close};
use vitmae_testing::draws::widen;
use vitmae_testing::guarded::Guarded;
use vitmae_testing::reference::reduce;

/// The numbers of threads at which every kernel runs.
const THREADS: [usize; 4] = [1, 2, 3, 8];

/// Runs `kernel` on pools of 1, 2, 3 and 8 threads and returns its outputs.
///
/// # Panics
/// If two pools give different bits.
#[track_caller]
pub(crate) fn run<const N: usize>(
    name: &str,
    kernel: impl Fn() -> [Vec<f32>; N] + Sync,
) -> [Vec<f32>; N] {
    let [first, others @ ..] = pools();
    let expected = first.install(&kernel);
    for pool in others {
        let found = pool.install(&kernel);
        for (output, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.len(), expected.len(), "`{name}`: output {output}");
            let differing = |(a, b): &(&f32, &f32)| a.to_bits() != b.to_bits();
            if let Some(index) = found.iter().zip(expected).position(|pair| differing(&pair)) {
                let threads = pool.current_num_threads();
                let (a, b) = (found[index], expected[index]);
                panic!(
                    "`{name}`: output {output} at [{index}] is {a:e} on {threads} threads, {b:e} on 1"
                );
            }
        }
    }
    expected
}

fn pools() -> &'static [ThreadPool; 4] {
    static POOLS: OnceLock<[ThreadPool; 4]> = OnceLock::new();
    POOLS.get_or_init(|| {
        THREADS.map(|threads| {
            ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of threads")
        })
    })
}

/// Runs `kernel` on an output of poison between canaries, on every pool, and compares what it wrote.
#[track_caller]
pub(crate) fn assert_output(
    name: &str,
    expected: &[f64],
    tolerance: Tolerance,
    kernel: impl Fn(&mut [f32]) + Sync,
) {
    assert_output_over(name, None, expected, tolerance, kernel);
}

/// The same for a kernel that adds to its output if its second argument says so: over poison, and on top
/// of values.
#[track_caller]
pub(crate) fn assert_sum(
    name: &str,
    expected: &[f64],
    tolerance: Tolerance,
    kernel: impl Fn(&mut [f32], bool) + Sync,
) {
    assert_output(name, expected, tolerance, |out| kernel(out, false));
    let before: Vec<f32> = (0..expected.len()).map(|i| (i % 7) as f32 - 3.0).collect();
    let on_top = reduce::add(expected, &widen(&before));
    let name = format!("{name}, accumulated");
    assert_output_over(&name, Some(&before), &on_top, tolerance, |out| kernel(out, true));
}

#[track_caller]
fn assert_output_over(
    name: &str,
    before: Option<&[f32]>,
    expected: &[f64],
    tolerance: Tolerance,
    kernel: impl Fn(&mut [f32]) + Sync,
) {
    let [found] = run(name, || {
        let mut out = before.map_or_else(|| Guarded::poisoned(expected.len()), Guarded::filled);
        kernel(out.slice());
        [out.finish(name)]
    });
    // With nothing to compare, not panicking and not writing is what is asked.
    if !expected.is_empty() {
        assert_close(name, &found, expected, tolerance);
    }
}

#[test]
#[should_panic(expected = "`threads`: output 1 at [0] is 2e0 on 2 threads, 1e0 on 1")]
fn a_kernel_that_depends_on_the_number_of_threads_fails() {
    run("threads", || [vec![0.0], vec![rayon::current_num_threads() as f32]]);
}
