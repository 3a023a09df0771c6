//! Every CPU kernel at the sizes of ViT-B/16 at 224 pixels and mask ratio 0.75, eight images at once: 50 of 197
//! tokens and width 768 in the encoder, 197 tokens and width 512 in the decoder.

use criterion::{criterion_group, criterion_main};

mod kernels {
    pub(crate) mod activation;
    pub(crate) mod adamw;
    pub(crate) mod attention;
    pub(crate) mod decoder_assembly;
    pub(crate) mod dropout;
    pub(crate) mod ema;
    pub(crate) mod encoder_assembly;
    pub(crate) mod gather;
    pub(crate) mod gemm;
    pub(crate) mod layer_norm;
    pub(crate) mod loss;
    pub(crate) mod norm;
    pub(crate) mod patches;
    pub(crate) mod reduce;
}
use kernels::*;

criterion_group! {
    name = benches;
    config = vitmae_benches::criterion();
    targets = activation::bench, adamw::bench, attention::bench, decoder_assembly::bench, dropout::bench,
        ema::bench, encoder_assembly::bench, gather::bench, gemm::bench, layer_norm::bench, loss::bench,
        norm::bench, patches::bench, reduce::bench
}
criterion_main!(benches);
