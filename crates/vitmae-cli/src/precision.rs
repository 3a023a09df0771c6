//! `--precision` of the commands that compute.

use anyhow::Result;
use clap::{Args, ValueEnum};
use vitmae_tensor::Device;
use vitmae_tensor::ops::Precision;

use crate::exit::Usage;

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
    /// Factors rounded to 8 bits, faster where the CPU has instructions for it
    Bf16,
}

impl PrecisionArgs {
    /// What was asked for, if `device` computes in it.
    pub fn on(self, device: &Device) -> Result<Precision> {
        match self.precision {
            Name::F32 => Ok(Precision::F32),
            Name::Bf16 if device.is_cpu() => Ok(Precision::Bf16),
            Name::Bf16 => {
                let message = format!("`--precision bf16` needs `--device cpu`, not `{device}`");
                Err(Usage(message).into())
            }
        }
    }
}
