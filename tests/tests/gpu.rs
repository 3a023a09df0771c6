//! The GPU kernels against their f64 reference and their CPU twin: ragged shapes, poisoned outputs between
//! canaries. Runs on Mesa's software Vulkan, so that no GPU is needed, or on the device that `VITMAE_DEVICE` names. The software has
//! neither plane operations nor matrix units, so those variants are compiled (`cargo xtask targets`) and not run on it. Tolerances follow the
//! error model of `docs/numerics.md`.

mod gpu {
    mod activation;
    mod adamw;
    mod attention;
    mod convert;
    mod cross_entropy;
    mod decoder_assembly;
    pub(crate) mod device;
    mod dropout;
    mod ema;
    mod encoder_assembly;
    mod failures;
    mod gather;
    mod gemm;
    mod interpolation;
    mod layer_norm;
    mod linear;
    mod loss;
    mod norm;
    pub(crate) mod output;
    mod patches;
    mod pretraining;
    mod reduce;
    mod training;
}
