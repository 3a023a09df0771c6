//! The binary from outside: exit codes, messages, files, signals and kills.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking and has no API")]

#[path = "command/setup.rs"]
mod setup;

#[path = "command/bad_input.rs"]
mod bad_input;
#[path = "command/data.rs"]
mod data;
#[path = "command/digits.rs"]
mod digits;
#[path = "command/doctor.rs"]
mod doctor;
#[path = "command/full_disk.rs"]
mod full_disk;
#[path = "command/kill.rs"]
mod kill;
#[cfg(feature = "mpi")]
#[path = "command/mpi.rs"]
mod mpi;
#[cfg(unix)]
#[path = "command/output.rs"]
mod output;
#[path = "command/reconstructions.rs"]
mod reconstructions;
#[path = "command/results.rs"]
mod results;
