//! The runner of parity cases; the tests that cross crates lie in `tests/tests`.

pub mod parity;
