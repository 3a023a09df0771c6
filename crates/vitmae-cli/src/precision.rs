//! `--precision` of the commands that compute.

use anyhow::Result;
use clap::{Args, ValueEnum};
use vitmae_model::{VitForImageClassification, VitMaeForPreTraining, VitMaeModel};
use vitmae_tensor::ops::Precision;
use vitmae_tensor::{Device, TensorError};

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

/// `--precision` of the commands that only run a model forward.
#[derive(Args, Clone, Copy, Debug)]
pub struct InferencePrecisionArgs {
    /// Arithmetic of the matrix products; sums, norms, softmax and activations stay f32
    #[arg(long, value_enum, default_value_t = InferenceName::F32)]
    precision: InferenceName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum InferenceName {
    /// Exact to 24 bits
    F32,
    /// Factors rounded to 8 bits of precision, faster where the CPU or GPU has instructions for it
    Bf16,
    /// Weights and tokens as 8-bit integers inside the blocks, the other products in bf16; for CPUs with AVX-512 VNNI,
    /// slower than f32 on others; docs/numerics.md has the error
    Int8,
}

/// A model that can be made ready to run forward.
pub trait Inference {
    /// Of every linear layer.
    fn set_precision(&mut self, precision: Precision);
    /// In the precision that was set.
    fn pack_weights(&mut self) -> Result<(), TensorError>;
    /// In 8 bits.
    fn quantise_weights(&mut self) -> Result<(), TensorError>;
}

macro_rules! inference {
    ($($model:ty)*) => {$(
        impl Inference for $model {
            fn set_precision(&mut self, precision: Precision) {
                self.set_precision(precision);
            }
            fn pack_weights(&mut self) -> Result<(), TensorError> {
                self.pack_weights()
            }
            fn quantise_weights(&mut self) -> Result<(), TensorError> {
                self.quantise_weights()
            }
        }
    )*};
}
inference!(VitMaeModel VitMaeForPreTraining VitForImageClassification);

impl InferencePrecisionArgs {
    /// Makes a model ready in the precision asked for.
    pub fn prepare(self, model: &mut impl Inference, device: &Device) -> Result<()> {
        model.set_precision(self.of_tensors());
        if self.precision != InferenceName::Int8 {
            return Ok(model.pack_weights()?);
        }
        if !device.is_cpu() {
            let message = format!(
                "`--precision int8` is for the CPU, and the device is `{device}`\n\
                 help: add `--device cpu`, or take bf16"
            );
            return Err(Usage(message).into());
        }
        Ok(model.quantise_weights()?)
    }

    /// Whether products are in 8 bits.
    pub fn is_int8(self) -> bool {
        self.precision == InferenceName::Int8
    }

    /// The precision of what is not in 8 bits.
    pub fn of_tensors(self) -> Precision {
        match self.precision {
            InferenceName::F32 => Precision::F32,
            InferenceName::Bf16 | InferenceName::Int8 => Precision::Bf16,
        }
    }
}
