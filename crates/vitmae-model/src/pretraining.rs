//! The masked autoencoder: encoder, decoder, loss, and the way back.

use vitmae_layers::{GradientsDone, Param};
use vitmae_tensor::ops::{self, Objective, Precision, Target};
use vitmae_tensor::{Device, Tensor, TensorError};

use crate::encoder::{Images, Values, maker};
use crate::position::Resampling;
use crate::{
    ForwardOptions, Masking, ModelError, Numerics, TrainOptions, VitMaeConfig, VitMaeDecoder,
    VitMaeModel, init,
};

/// Shown the encoder's tokens in the middle of a step.
pub type LatentSeen<'a> = dyn FnMut(&Tensor) -> Result<(), TensorError> + 'a;

/// Hugging Face's `ViTMAEForPreTraining`.
#[derive(Clone, Debug)]
pub struct VitMaeForPreTraining {
    /// Sizes and choices.
    pub config: VitMaeConfig,
    /// The encoder.
    pub vit: VitMaeModel,
    /// The decoder.
    pub decoder: VitMaeDecoder,
}

/// Result of [`VitMaeForPreTraining::forward`].
#[derive(Clone, Debug)]
pub struct VitMaeForPreTrainingOutput {
    /// Mean squared error over the removed patches, or what the options chose; none if nothing is removed, where Hugging Face
    /// returns NaN.
    pub loss: Option<f32>,
    /// `[B, L, PH·PW·C]`, channel last, in grid order; normalised per patch if the configuration says
    /// `norm_pix_loss`.
    pub logits: Tensor,
    /// `[B, L]`, 1 = removed, 0 = kept.
    pub mask: Vec<f32>,
    /// `[B, L]`
    pub ids_restore: Vec<u32>,
    /// The encoder's `[B, 1 + K, D]`.
    pub last_hidden_state: Tensor,
    /// Of the encoder, if asked for.
    pub hidden_states: Option<Vec<Tensor>>,
    /// Of the encoder, if asked for.
    pub attentions: Option<Vec<Tensor>>,
    /// Of the decoder, if asked for; Hugging Face never returns them.
    pub decoder_hidden_states: Option<Vec<Tensor>>,
    /// Of the decoder, if asked for.
    pub decoder_attentions: Option<Vec<Tensor>>,
}

impl VitMaeForPreTraining {
    /// A model with the first values of [`init`].
    ///
    /// # Errors
    /// [`ModelError::Config`] if the configuration contradicts itself.
    pub fn new(config: VitMaeConfig, device: &Device, seed: u64) -> Result<Self, ModelError> {
        let values = config.clone();
        Self::build(config, device, &mut |name, shape| Ok(init::values(&values, seed, name, shape)))
    }

    /// A model whose parameters `values` gives by name and shape, in the model's order.
    ///
    /// # Errors
    /// [`ModelError::Config`], or the first error of `values`.
    pub fn build<E: From<ModelError>>(
        config: VitMaeConfig,
        device: &Device,
        values: &mut Values<'_, E>,
    ) -> Result<Self, E> {
        config.validate().map_err(ModelError::from)?;
        let mut param = maker(device, values);
        let vit = VitMaeModel::with_params(config.clone(), true, &mut param)?;
        let decoder = VitMaeDecoder::with_params(&config, &mut param)?;
        Ok(Self { config, vit, decoder })
    }

    /// Embed, mask, encode, decode, loss.
    ///
    /// # Shapes
    /// `pixels: [B, C, H, W]`, normalised
    ///
    /// # Errors
    /// [`ModelError`] if images or masking do not fit the model.
    ///
    /// Source: `ViTMAEForPreTraining.forward` of transformers 4.57.6.
    pub fn forward(
        &self,
        pixels: &Tensor,
        masking: &Masking,
        options: &ForwardOptions,
    ) -> Result<VitMaeForPreTrainingOutput, ModelError> {
        let images = self.vit.images(pixels, options.interpolate_pos_encoding)?;
        let encoded = self.vit.forward(pixels, masking, options)?;
        let latent = encoded.last_hidden_state.clone(); // [B, 1 + K, D]
        let resampling = self.decoder_resampling(images, options)?;
        let traced = (options.output_hidden_states, options.output_attentions);
        let decoded = self.decoder.forward(latent, masking, &resampling, traced)?;
        let loss = if masking.removes_any() {
            let patches = ops::patchify(pixels, self.config.patch_size)?;
            let mask = masking.removed(self.device())?;
            let kind = self.objective(options)?;
            Some(ops::loss(&decoded.logits, &patches, &mask, kind)?.item()?)
        } else {
            None
        };
        Ok(VitMaeForPreTrainingOutput {
            loss,
            logits: decoded.logits,
            mask: encoded.mask,
            ids_restore: encoded.ids_restore,
            last_hidden_state: encoded.last_hidden_state,
            hidden_states: encoded.hidden_states,
            attentions: encoded.attentions,
            decoder_hidden_states: decoded.hidden_states,
            decoder_attentions: decoded.attentions,
        })
    }

    /// Forward, then the same list reversed: adds the gradient of `loss_scale · loss` to every
    /// trainable parameter and returns the loss, one value that is still on the device: reading it waits for
    /// the whole pass.
    ///
    /// # Shapes
    /// `pixels: [B, C, H, W]`, normalised → `[]`
    ///
    /// # Errors
    /// [`ModelError::NothingRemoved`] if there is no loss, and those of [`forward`](Self::forward).
    pub fn forward_backward(
        &mut self,
        pixels: &Tensor,
        masking: &Masking,
        options: &TrainOptions,
    ) -> Result<Tensor, ModelError> {
        self.forward_backward_in_parts(pixels, masking, options, &mut |_| Ok(()))
    }

    /// [`forward_backward`](Self::forward_backward) that gives `done` parameters as soon as nothing more is added to
    /// their gradients: each once, a block at a time from the last of the decoder to the first of the encoder.
    ///
    /// # Errors
    /// As there, and those of `done`.
    pub fn forward_backward_in_parts(
        &mut self,
        pixels: &Tensor,
        masking: &Masking,
        options: &TrainOptions,
        done: &mut GradientsDone<'_>,
    ) -> Result<Tensor, ModelError> {
        self.forward_backward_seen(pixels, masking, options, done, &mut |_| Ok(()))
    }

    /// [`forward_backward_in_parts`](Self::forward_backward_in_parts) that shows `seen` what the encoder made of the visible patches,
    /// `[B, 1 + K, D]` behind its last norm, before the decoder takes it. Nothing flows back from there.
    ///
    /// # Errors
    /// As there, and those of `seen`.
    pub fn forward_backward_seen(
        &mut self,
        pixels: &Tensor,
        masking: &Masking,
        options: &TrainOptions,
        done: &mut GradientsDone<'_>,
        seen: &mut LatentSeen<'_>,
    ) -> Result<Tensor, ModelError> {
        if !masking.removes_any() {
            return Err(ModelError::NothingRemoved { patches: masking.num_patches });
        }
        let images = self.vit.images(pixels, options.forward.interpolate_pos_encoding)?;
        let resampling = self.decoder_resampling(images, &options.forward)?;
        let kind = self.objective(&options.forward)?;

        let (latent, encoder) = self.vit.forward_cached(pixels, masking, None, options)?;
        seen(&latent)?;
        let (logits, decoder) =
            self.decoder.forward_cached(latent, masking, &resampling, &self.config, options)?;
        // What is predicted of kept patches has no part in the loss, so it is not predicted.
        let patches = ops::patchify(pixels, self.config.patch_size)?;
        let patches = ops::gather(&patches, &masking.ids_removed(self.device(), 0)?)?;
        let removed = &patches.shape()[..2];
        let ones = vec![1.0; removed.iter().product()];
        let mask = Tensor::from_slice(self.device(), removed, &ones)?;
        let loss = ops::loss(&logits, &patches, &mask, kind)?;

        let dlogits = ops::loss_backward(&logits, &patches, &mask, kind, options.loss_scale)?;
        drop((logits, patches));
        let dlatent = self.decoder.backward(decoder, dlogits, done)?;
        self.vit.backward(encoder, dlatent, done)?;
        Ok(loss)
    }

    fn objective(&self, options: &ForwardOptions) -> Result<Objective, ModelError> {
        let target = match (self.config.norm_pix_loss, options.numerics_of(&self.config)?) {
            (false, _) => Target::Pixels,
            (true, Numerics::Torch) => Target::Normalised,
            (true, Numerics::Tf) => Target::NormalisedPopulation,
        };
        Ok(Objective { target, distance: options.distance })
    }

    fn decoder_resampling(
        &self,
        images: Images,
        options: &ForwardOptions,
    ) -> Result<Resampling, ModelError> {
        let way = options.decoder_interpolation(&self.config)?;
        let kernel = options.numerics_of(&self.config)?.bicubic();
        let from = self.config.grid();
        Ok(Resampling::new(from, images.grid, way, kernel))
    }

    /// The device of its parameters.
    pub fn device(&self) -> &Device {
        self.vit.device()
    }

    /// As [`VitMaeModel::set_precision`](crate::VitMaeModel::set_precision).
    pub fn set_precision(&mut self, precision: Precision) {
        self.vit.set_precision(precision);
        self.decoder.set_precision(precision);
    }

    /// As [`VitMaeModel::pack_weights`](crate::VitMaeModel::pack_weights).
    ///
    /// # Errors
    /// As there.
    pub fn pack_weights(&mut self) -> Result<(), TensorError> {
        self.vit.pack_weights()?;
        self.decoder.pack_weights()
    }

    /// As [`VitMaeModel::quantise_weights`](crate::VitMaeModel::quantise_weights).
    ///
    /// # Errors
    /// As there.
    pub fn quantise_weights(&mut self) -> Result<(), TensorError> {
        self.vit.quantise_weights()?;
        self.decoder.quantise_weights()
    }

    /// Every parameter, the encoder's first.
    pub fn parameters(&self) -> Vec<&Param> {
        let mut all = self.vit.parameters();
        all.extend(self.decoder.parameters());
        all
    }

    /// As [`parameters`](Self::parameters), to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.vit.parameters_mut();
        all.extend(self.decoder.parameters_mut());
        all
    }

    /// Clears every gradient; its memory serves the next step.
    pub fn zero_grad(&mut self) {
        self.parameters_mut().into_iter().for_each(|parameter| parameter.grad = None);
    }
}
