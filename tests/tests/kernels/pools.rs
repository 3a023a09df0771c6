//! Thread pools of several sizes, and the demand that they give the same bits.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

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

#[test]
#[should_panic(expected = "`threads`: output 1 at [0] is 2e0 on 2 threads, 1e0 on 1")]
fn a_kernel_that_depends_on_the_number_of_threads_fails() {
    run("threads", || [vec![0.0], vec![rayon::current_num_threads() as f32]]);
}
