//! Transformer layers with explicit forward and backward.
#![forbid(unsafe_code)]
