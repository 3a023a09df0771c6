//! Every GPU kernel at the sizes of the CPU's benches, for each type of activations that the device has:
//!
//!     VITMAE_DEVICE=vulkan cargo bench -p vitmae-benches --features wgpu --bench gpu

#![allow(clippy::print_stderr, reason = "a bench is a program")]

use std::process::ExitCode;

use vitmae_benches::gpu::Gpu;

mod gpu {
    pub(crate) mod activation;
    pub(crate) mod adamw;
    pub(crate) mod attention;
    pub(crate) mod convert;
    pub(crate) mod cross_entropy;
    pub(crate) mod decoder_assembly;
    pub(crate) mod dropout;
    pub(crate) mod ema;
    pub(crate) mod encoder_assembly;
    pub(crate) mod gather;
    pub(crate) mod gemm;
    pub(crate) mod interpolation;
    pub(crate) mod layer_norm;
    pub(crate) mod loss;
    pub(crate) mod norm;
    pub(crate) mod patches;
    pub(crate) mod reduce;
}
use gpu::*;

fn main() -> ExitCode {
    let device = match Gpu::open() {
        Ok(device) => device,
        Err(error) => {
            eprintln!("error: {error}\nhelp: VITMAE_DEVICE names the GPU, as `--device` does");
            return ExitCode::FAILURE;
        }
    };
    let mut criterion = device.criterion().configure_from_args();
    for gpu in &device.of_each_dtype() {
        for bench in [
            activation::bench,
            attention::bench,
            convert::bench,
            cross_entropy::bench,
            decoder_assembly::bench,
            dropout::bench,
            encoder_assembly::bench,
            gather::bench,
            gemm::bench,
            layer_norm::bench,
            loss::bench,
            norm::bench,
            patches::bench,
            reduce::bench,
        ] {
            bench(&mut criterion, gpu);
        }
    }
    adamw::bench(&mut criterion, &device);
    ema::bench(&mut criterion, &device);
    interpolation::bench(&mut criterion, &device);
    criterion.final_summary();
    ExitCode::SUCCESS
}
