//! Every GPU kernel against its f64 reference and its CPU twin: ragged shapes, poisoned outputs between
//! canaries. Runs on Mesa's software Vulkan, so that no GPU is needed; tolerances follow the error model of
//! `docs/numerics.md`.

mod gpu {
    mod attention;
    pub(crate) mod device;
    mod layer_norm;
    mod reduce;
}
