//! Whole runs of a tiny model: exact resume, thread invariance, checkpoints that are refused, and
//! what happens to bad images and bad numbers.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking and has no API")]

#[path = "runs/tiny.rs"]
mod tiny;

#[path = "runs/averages.rs"]
mod averages;
#[path = "runs/bad_sets.rs"]
mod bad_sets;
#[path = "runs/checkpoints.rs"]
mod checkpoints;
#[path = "runs/data.rs"]
mod data;
#[path = "runs/exactness.rs"]
mod exactness;
#[path = "runs/finetuning.rs"]
mod finetuning;
#[path = "runs/guards.rs"]
mod guards;
#[path = "runs/linear_probe.rs"]
mod linear_probe;
#[path = "runs/online_probe.rs"]
mod online_probe;
#[path = "runs/reconstruction.rs"]
mod reconstruction;
#[path = "runs/sets.rs"]
mod sets;
#[path = "runs/together.rs"]
mod together;
