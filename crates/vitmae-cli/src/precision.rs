//! `--precision` of the commands that compute.

use clap::{Args, ValueEnum};
use vitmae_tensor::ops::Precision;

/// Arithmetic of the matrix products.
#[derive(Args, Clone, Copy, Debug)]
pub struct PrecisionArgs {
    /// Arithmetic of the matrix products; weights, sums and everything else stay f32
    #[arg(long, value_enum, default_value_t = Name::F32)]
    precision: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Exact to 24 bits
    F32,
    /// Factors rounded to 8 bits, faster where the CPU or GPU has instructions for it
    Bf16,
}

impl PrecisionArgs {
    /// What was asked for.
    pub fn get(self) -> Precision {
        match self.precision {
            Name::F32 => Precision::F32,
            Name::Bf16 => Precision::Bf16,
        }
    }
}
