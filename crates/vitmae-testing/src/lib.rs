//! Comparator, gradient check, f64 references and parity cases of the vitmae workspace.
//!
//! - [`close`]: the one comparator of numbers, which refuses NaN, wrong lengths and empty input.
//! - [`error_model`]: how far an f32 kernel may lie from the f64 reference.
//! - [`guarded`]: output buffers with canaries around and poison inside.
//! - [`gradient_check`]: central differences against an analytic gradient.
//! - [`reference`]: every operation as its plain formula in f64 loops, forward and backward,
//!   written apart from every product kernel.
//! - [`cases`]: the reader of parity-case folders, and weights by formula.
//! - [`draws`]: seeded numbers for test data.
//!
//! This crate is a leaf: tests, benches and `xtask` use it, no product path does.
#![forbid(unsafe_code)]
#![allow(rustdoc::broken_intra_doc_links, reason = "formulas index with brackets")]

pub mod cases;
pub mod close;
pub mod draws;
pub mod error_model;
pub mod gradient_check;
pub mod guarded;
pub mod reference;
