//! Every CPU kernel against its f64 reference: ragged shapes, poisoned outputs between canaries, and the
//! same bits at any number of threads. Tolerances follow the error model of `docs/numerics.md`.

mod kernels {
    mod activation;
    mod adamw;
    mod attention;
    mod cross_entropy;
    mod decoder_assembly;
    mod dropout;
    mod ema;
    mod encoder_assembly;
    mod gather;
    mod gemm;
    mod interpolation;
    mod layer_norm;
    mod linear;
    mod loss;
    mod norm;
    mod patches;
    mod pools;
    mod reduce;
    mod rounded;
}
