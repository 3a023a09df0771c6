//! Tests that cross the crates of the `vitmae` workspace.
