//! The GPU of the benches: `VITMAE_DEVICE` names it, as `--device` does elsewhere.

use std::time::Instant;

use criterion::{Criterion, Throughput};
use vitmae_kernels::activation::{self, Activation};
use vitmae_kernels::gemm::{self, MatRef};
use vitmae_kernels::{Array, Capabilities, Client, Dtype, Ids};
use vitmae_tensor::{Device, TensorError};
use vitmae_testing::draws::Draws;

use crate::{Peak, Rate};

/// Values of an array that no cache holds: 128 MiB.
const LARGE: usize = 32 << 20;
/// Side of the square matrices whose product counts as the peak.
const SIDE: usize = 2048;
/// Rounds of a measurement of a peak; the best counts, since anything else is disturbance.
const ROUNDS: usize = 5;

/// A GPU, and the type of the activations.
pub struct Gpu {
    /// Where kernels are launched.
    pub client: Client,
    /// How activations are stored.
    pub dtype: Dtype,
    name: String,
}

impl Gpu {
    /// The GPU that `VITMAE_DEVICE` names, or the best one.
    ///
    /// # Errors
    /// Those of [`Device::open`]; [`TensorError::DeviceUnknown`] for the CPU, whose benches are others.
    pub fn open() -> Result<Self, TensorError> {
        let name = std::env::var("VITMAE_DEVICE").unwrap_or_else(|_| "gpu".to_owned());
        let device = Device::open(&name)?;
        let client = device.client().cloned();
        let client = client.ok_or_else(|| TensorError::DeviceUnknown { name: name.clone() })?;
        Ok(Self { client, dtype: Dtype::F32, name })
    }

    /// The same GPU for every type of activations that it has.
    pub fn of_each_dtype(&self) -> Vec<Self> {
        let capabilities = Capabilities::of(&self.client);
        let types = [Dtype::F32, Dtype::F16, Dtype::BF16].into_iter();
        let with = |dtype| Self { client: self.client.clone(), dtype, name: self.name.clone() };
        types.filter(|&dtype| capabilities.supports(dtype)).map(with).collect()
    }

    /// Criterion with [`Rate`]; measures and prints the peaks first: a copy of 128 MiB, and a product of
    /// square matrices in f32.
    #[allow(clippy::print_stderr, reason = "a bench is a program")]
    pub fn criterion(&self) -> Criterion<Rate> {
        let large = Array::from_f32(&self.client, &vec![1.0; LARGE]);
        let copy = Array::empty(&self.client, LARGE, Dtype::F32);
        let bytes = (8 * LARGE) as f64;
        let seconds = self.best(&copy, || {
            activation::forward(&self.client, Activation::Linear, &large, &copy);
        });
        let gigabytes = bytes / seconds * 1e-9;
        let [a, b, c] = [(); 3].map(|()| self.f32(SIDE * SIDE));
        let square = |array| MatRef::row_major(array, SIDE, SIDE);
        let seconds = self.best(&c, || {
            gemm::gemm(&self.client, square(&a), square(&b), &c, false);
        });
        let gflops = (2 * SIDE * SIDE * SIDE) as f64 / seconds * 1e-9;
        eprintln!(
            "{} ({}): {gflops:.1} GFLOP/s in f32 for {SIDE} x {SIDE} matrices, {gigabytes:.1} GB/s read and written",
            self.name,
            self.client.name(),
        );
        let peak = Peak { gflops, bf16_gflops: gflops, int8_gops: gflops, gigabytes };
        Criterion::default().sample_size(10).with_measurement(Rate(peak))
    }

    /// The shortest time of some launches, in seconds, after one that compiles.
    fn best(&self, out: &Array, launch: impl Fn()) -> f64 {
        let round = || {
            let start = Instant::now();
            launch();
            self.wait(out);
            start.elapsed().as_secs_f64()
        };
        round();
        (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
    }

    /// Activations between -1 and 1.
    pub fn act(&self, len: usize) -> Array {
        Array::from_f32_as(&self.client, &Draws::new(1).vec_f32(len), self.dtype)
    }

    /// Parameters, statistics or gradients of parameters.
    pub fn f32(&self, len: usize) -> Array {
        Array::from_f32(&self.client, &Draws::new(2).vec_f32(len))
    }

    /// For each of `batch` images `kept` different ones of `rows` numbers.
    pub fn ids(&self, batch: usize, rows: usize, kept: usize) -> Ids {
        let mut draws = Draws::new(3);
        let all = (0..batch).flat_map(|_| draws.permutation(rows).into_iter().take(kept));
        let all: Vec<u32> = all.map(|id| id as u32).collect();
        Ids::from_slice(&self.client, &all)
    }

    /// The memory traffic of one call: so many activations read or written.
    pub fn traffic(&self, values: usize) -> Throughput {
        Throughput::BytesDecimal((self.dtype.size() * values) as u64)
    }

    /// Adds `NAME/CASE` to the benches: launches one behind the other, and one wait for `out` at the end.
    pub fn bench(
        &self,
        criterion: &mut Criterion<Rate>,
        name: &str,
        case: &str,
        work: Throughput,
        out: &Array,
        launch: impl Fn(),
    ) {
        let mut group = criterion.benchmark_group(name);
        group.throughput(work);
        group.bench_function(format!("{case}, {} on {}", self.dtype, self.name), |bencher| {
            bencher.iter_custom(|rounds| {
                let start = Instant::now();
                (0..rounds).for_each(|_| launch());
                self.wait(out);
                start.elapsed()
            });
        });
        group.finish();
    }

    fn wait(&self, out: &Array) {
        out.wait(&self.client).unwrap_or_else(|error| panic!("a launch failed: {error}"));
    }
}
