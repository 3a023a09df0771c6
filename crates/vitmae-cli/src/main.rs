//! The `vitmae` command.

fn main() {}
