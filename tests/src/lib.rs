//! The runner of parity cases and the trial of the readers; the tests that cross crates lie in `tests/tests`.

pub mod hostile;
pub mod parity;
