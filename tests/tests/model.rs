//! The whole model: gradients against central differences of the f64 reference, training from scratch,
//! and what holds for every call.

mod model {
    mod from_scratch;
    mod gradients;
    mod laws;
    mod tiny;
}
