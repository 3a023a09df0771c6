//! Instruction counts of some CPU kernels, by Callgrind: a regression shows on a machine that others use too.
//!
//! `cargo xtask bench instructions` runs this and compares with `benches/instructions.json`. Valgrind has no AVX-512: the
//! kernels choose AVX2, and bf16 products are f32 ones on rounded values. One thread. What draws the operands is not counted.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench is a program")]

use std::hint::black_box;

use gungraun::{library_benchmark, library_benchmark_group, main};
use vitmae_cpu::activation::{self, Activation};
use vitmae_cpu::adamw::{self, Settings};
use vitmae_cpu::attention::{self, Shape};
use vitmae_cpu::gemm::{Epilogue, Precision, QuantisedB};
use vitmae_cpu::{layer_norm, linear};
use vitmae_testing::draws::Draws;

const ROWS: usize = 50;
const WIDTH: usize = 192;
const INNER: usize = 4 * WIDTH;

/// Runs a kernel on this thread alone.
fn alone(kernel: impl FnOnce() + Send) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    pool.unwrap().install(kernel);
}

/// Operands of so many values.
fn draw<const N: usize>(counts: [usize; N]) -> [Vec<f32>; N] {
    let mut draws = Draws::new(1);
    counts.map(|count| draws.vec_f32(count))
}

#[library_benchmark]
#[bench::f32(Precision::F32, draw([ROWS * WIDTH, INNER * WIDTH, ROWS * INNER]))]
#[bench::bf16_as_f32(Precision::Bf16, draw([ROWS * WIDTH, INNER * WIDTH, ROWS * INNER]))]
fn gemm(precision: Precision, [x, weight, mut y]: [Vec<f32>; 3]) {
    let shape = linear::Shape { rows: ROWS, inputs: WIDTH, outputs: INNER };
    let epilogue = Epilogue::default();
    alone(|| linear::forward(precision, &x, &weight, epilogue, shape, black_box(&mut y)));
}

fn quantised() -> QuantisedB {
    let [weight] = draw([INNER * WIDTH]);
    linear::quantise(&weight, WIDTH, INNER)
}

#[library_benchmark]
#[bench::int8(quantised(), draw([ROWS * WIDTH, ROWS * INNER]))]
fn gemm_int8(weight: QuantisedB, [x, mut y]: [Vec<f32>; 2]) {
    alone(|| linear::forward_int8(&x, &weight, Epilogue::default(), black_box(&mut y)));
}

#[library_benchmark]
#[bench::f32(draw([3 * ROWS * WIDTH, ROWS * WIDTH, 3 * ROWS]))]
fn attention_forward([qkv, mut out, mut lse]: [Vec<f32>; 3]) {
    let shape = Shape { batch: 1, tokens: ROWS, heads: 3, head_dim: 64 };
    alone(|| attention::forward(Precision::F32, &qkv, None, shape, black_box(&mut out), &mut lse));
}

#[library_benchmark]
#[bench::f32(draw([ROWS * WIDTH, WIDTH, WIDTH, ROWS * WIDTH, ROWS, ROWS]))]
fn layer_norm_forward([x, weight, bias, mut y, mut mean, mut rstd]: [Vec<f32>; 6]) {
    alone(|| {
        layer_norm::forward(&x, &weight, &bias, 1e-6, black_box(&mut y), &mut mean, &mut rstd);
    });
}

#[library_benchmark]
#[bench::f32(draw([ROWS * INNER, ROWS * INNER]))]
fn gelu_forward([x, mut y]: [Vec<f32>; 2]) {
    alone(|| activation::forward(Activation::Gelu, &x, black_box(&mut y)));
}

#[library_benchmark]
#[bench::f32(draw([INNER * WIDTH; 4]))]
fn adamw_step([mut value, gradient, mut m, v]: [Vec<f32>; 4]) {
    let settings =
        Settings { lr: 1e-4, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.05, step: 10 };
    let mut v = v;
    alone(|| adamw::step(black_box(&mut value), &gradient, &mut m, &mut v, 1.0, &settings));
}

library_benchmark_group!(
    name = kernels,
    benchmarks = [gemm, gemm_int8, attention_forward, layer_norm_forward, gelu_forward, adamw_step]
);
main!(library_benchmark_groups = kernels);
