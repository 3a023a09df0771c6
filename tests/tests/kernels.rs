//! Every CPU kernel against its f64 reference: ragged shapes, poisoned outputs between canaries, and the
//! same bits at any number of threads. Tolerances follow the error model of `docs/numerics.md`.

mod kernels {
    mod activation;
    mod attention;
    mod gemm;
    mod layer_norm;
    mod pools;
}
