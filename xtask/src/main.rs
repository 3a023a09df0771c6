//! The chores of the `vitmae` workspace.

fn main() {}
