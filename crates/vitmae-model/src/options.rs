//! What a call may choose.

use vitmae_tensor::ops::{BicubicKernel, Distance};

use crate::config::{INTERPOLATION_KEY, NUMERICS_KEY};
use crate::{ModelError, VitMaeConfig};

/// Choices of a forward pass; none differs from the configuration by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardOptions {
    /// Resample the position tables to images of another size.
    pub interpolate_pos_encoding: bool,
    /// How the decoder's table is resampled; by default as the configuration records, else
    /// [`Interpolation::Hf1d`], which gives Hugging Face's numbers.
    pub interpolation: Option<Interpolation>,
    /// Return the hidden states of encoder and decoder.
    pub output_hidden_states: bool,
    /// Return the attention probabilities of encoder and decoder.
    pub output_attentions: bool,
    /// Whose numbers are wanted where the reference's two versions differ; by default as the configuration
    /// records, else [`Numerics::Torch`].
    pub numerics: Option<Numerics>,
    /// How predictions are compared with their targets; Hugging Face's loss is that of squares, and no configuration
    /// records another.
    pub distance: Distance,
}

/// Choices of a training pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainOptions {
    /// Factor of the gradient, not of the loss returned: 1/n to accumulate n batches.
    pub loss_scale: f32,
    /// Decides what dropout drops, where the configuration asks for dropout.
    pub dropout_seed: u64,
    /// Whether dropout is applied at all.
    pub dropout: bool,
    /// Share of branches that the last block of a stack drops, in [0, 1); it rises from 0 in the first.
    pub drop_path: f64,
    /// Whether blocks keep their input alone and run forward again in the backward pass: the same bits with
    /// less memory, in about a third more time.
    pub recompute: bool,
    /// As in [`ForwardOptions`].
    pub forward: ForwardOptions,
}

impl Default for TrainOptions {
    fn default() -> Self {
        let forward = ForwardOptions::default();
        Self {
            loss_scale: 1.0,
            dropout_seed: 0,
            dropout: true,
            drop_path: 0.0,
            recompute: false,
            forward,
        }
    }
}

/// How the decoder's position table follows another grid; the encoder's always follows in two
/// dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Along the flattened sequence: Hugging Face's way, wrong in two dimensions.
    Hf1d,
    /// In two dimensions.
    Grid2d,
}

/// Whose arithmetic, where PyTorch's and TensorFlow's classes differ: the variance of
/// `norm_pix_loss` (unbiased or not) and the bicubic kernel (a = −0.75 or −0.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numerics {
    /// `ViTMAEForPreTraining` on PyTorch.
    #[default]
    Torch,
    /// `TFViTMAEForPreTraining`.
    Tf,
}

impl Numerics {
    /// What the configuration records, else [`Numerics::Torch`].
    ///
    /// # Errors
    /// [`ModelError::Recorded`] for another word than `torch` and `tf`.
    pub fn recorded(config: &VitMaeConfig) -> Result<Self, ModelError> {
        match config.recorded_numerics() {
            None | Some("torch") => Ok(Numerics::Torch),
            Some("tf") => Ok(Numerics::Tf),
            Some(found) => {
                let (key, found) = (NUMERICS_KEY, found.to_owned());
                Err(ModelError::Recorded { key, found, expected: "`torch` or `tf`" })
            }
        }
    }

    pub(crate) fn bicubic(self) -> BicubicKernel {
        match self {
            Numerics::Torch => BicubicKernel::Torch,
            Numerics::Tf => BicubicKernel::Tf,
        }
    }
}

impl ForwardOptions {
    /// The decoder's way of resampling for a model of this configuration.
    pub(crate) fn decoder_interpolation(
        &self,
        config: &VitMaeConfig,
    ) -> Result<Interpolation, ModelError> {
        if let Some(chosen) = self.interpolation {
            return Ok(chosen);
        }
        match config.recorded_interpolation() {
            None | Some("hf1d") => Ok(Interpolation::Hf1d),
            Some("grid2d") => Ok(Interpolation::Grid2d),
            Some(found) => {
                let (key, found) = (INTERPOLATION_KEY, found.to_owned());
                Err(ModelError::Recorded { key, found, expected: "`hf1d` or `grid2d`" })
            }
        }
    }

    /// Whose arithmetic a model of this configuration follows.
    pub(crate) fn numerics_of(&self, config: &VitMaeConfig) -> Result<Numerics, ModelError> {
        match self.numerics {
            Some(chosen) => Ok(chosen),
            None => Numerics::recorded(config),
        }
    }
}
