//! What the criterion benches of the `vitmae` workspace share: rates as shares of the machine's peak.
//!
//! A kernel states its arithmetic or its memory traffic. Criterion then prints GFLOP/s or GB/s, and how
//! large a part that is of the peak that this run measured on this machine just before.

#[cfg(feature = "gpu")]
pub mod gpu;

use std::time::{Duration, Instant};

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput};
use rayon::prelude::*;
use vitmae_cpu::values::Bf16;

/// Values of an array that no cache holds: 128 MiB.
const LARGE: usize = 32 << 20;
/// Sweeps over memory; the best counts, since anything else is disturbance.
const SWEEPS: usize = 5;

/// Wall time, with throughput as a rate and its share of the peak.
pub struct Rate(Peak);

/// What the machine can do at most, measured.
struct Peak {
    gflops: f64,
    bf16_gflops: f64,
    int8_gops: f64,
    gigabytes: f64,
}

/// Criterion with [`Rate`]; measures and prints the peaks first.
#[allow(clippy::print_stderr, reason = "a bench is a program")]
pub fn criterion() -> Criterion<Rate> {
    let (gflops, bf16_gflops) = (vitmae_cpu::peak::gflops(), vitmae_cpu::peak::bf16_gflops());
    let int8_gops = vitmae_cpu::peak::int8_gops();
    let peak = Peak { gflops, bf16_gflops, int8_gops, gigabytes: gigabytes() };
    eprintln!(
        "peak of {} threads: {:.1} GFLOP/s in f32, {:.1} in bf16, {:.1} GOP/s in int8, {:.1} GB/s read and written",
        rayon::current_num_threads(),
        peak.gflops,
        peak.bf16_gflops,
        peak.int8_gops,
        peak.gigabytes
    );
    Criterion::default().sample_size(20).with_measurement(Rate(peak))
}

/// The work of one call in floating-point operations, a multiply-add counting as two.
pub fn flop(operations: usize) -> Throughput {
    Throughput::Elements(operations as u64)
}

/// The same in bf16, held against the peak of its own instructions. Criterion has no unit for this, so these
/// operations pass as bits.
pub fn bf16_flop(operations: usize) -> Throughput {
    Throughput::Bits(operations as u64)
}

/// The same in 8-bit integers; passes as bytes, for the same reason.
pub fn int8_op(operations: usize) -> Throughput {
    Throughput::Bytes(operations as u64)
}

/// The memory traffic of one call: so many f32 values read or written.
pub fn traffic(values: usize) -> Throughput {
    bytes(4 * values)
}

/// The same in bytes, where values are not all f32.
pub fn bytes(count: usize) -> Throughput {
    Throughput::BytesDecimal(count as u64)
}

/// Values rounded to bf16.
pub fn narrow(values: &[f32]) -> Vec<Bf16> {
    values.iter().copied().map(Bf16::from_f32).collect()
}

/// Adds `NAME/CASE` to the benches.
pub fn bench(
    criterion: &mut Criterion<Rate>,
    name: &str,
    case: &str,
    work: Throughput,
    mut kernel: impl FnMut(),
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(work);
    group.bench_function(case, |bencher| bencher.iter(&mut kernel));
    group.finish();
}

/// Billions of bytes a second that all threads read and write together: the best of some copies with a
/// factor. What the cache fetches of the output before it is overwritten is not counted.
fn gigabytes() -> f64 {
    let x = vec![1.0f32; LARGE];
    let mut y = vec![0.0f32; LARGE];
    let mut sweep = || {
        let start = Instant::now();
        y.par_chunks_mut(1 << 16).zip(x.par_chunks(1 << 16)).for_each(|(y, x)| {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = 0.5 * x);
        });
        (8 * LARGE) as f64 / start.elapsed().as_secs_f64() * 1e-9
    };
    (0..SWEEPS).map(|_| sweep()).fold(0.0, f64::max)
}

impl Measurement for Rate {
    type Intermediate = Instant;
    type Value = Duration;

    fn start(&self) -> Instant {
        WallTime.start()
    }

    fn end(&self, start: Instant) -> Duration {
        WallTime.end(start)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &self.0
    }
}

impl ValueFormatter for Peak {
    fn format_throughput(&self, throughput: &Throughput, nanoseconds: f64) -> String {
        match *throughput {
            Throughput::Elements(operations) => {
                let rate = operations as f64 / nanoseconds;
                format!("{rate:.1} GFLOP/s ({:.0} %)", 100.0 * rate / self.gflops)
            }
            Throughput::Bits(operations) => {
                let rate = operations as f64 / nanoseconds;
                format!("{rate:.1} GFLOP/s ({:.0} %)", 100.0 * rate / self.bf16_gflops)
            }
            Throughput::Bytes(operations) => {
                let rate = operations as f64 / nanoseconds;
                format!("{rate:.1} GOP/s ({:.0} %)", 100.0 * rate / self.int8_gops)
            }
            Throughput::BytesDecimal(bytes) => {
                let rate = bytes as f64 / nanoseconds;
                format!("{rate:.1} GB/s ({:.0} %)", 100.0 * rate / self.gigabytes)
            }
            _ => WallTime.formatter().format_throughput(throughput, nanoseconds),
        }
    }

    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_values(typical, values)
    }

    fn scale_throughputs(
        &self,
        typical: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        WallTime.formatter().scale_throughputs(typical, throughput, values)
    }

    fn scale_for_machines(&self, values: &mut [f64]) -> &'static str {
        WallTime.formatter().scale_for_machines(values)
    }
}
