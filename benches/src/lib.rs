//! Criterion benches of the `vitmae` workspace.
