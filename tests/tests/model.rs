//! The whole model: gradients against central differences of the f64 reference, training from scratch,
//! and what holds for every call.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod model {
    mod classifier;
    mod from_scratch;
    mod gradients;
    mod laws;
    mod precision;
    mod tiny;
}
