//! The decoder: from the kept tokens to a prediction of every patch.

use vitmae_layers::{
    GradientsDone, LayerNorm, Linear, MakeParam, Param, Sizes, Transformer, TransformerCache,
};
use vitmae_tensor::ops::{self, Precision};
use vitmae_tensor::{Device, Indices, Tensor, TensorError};

use crate::encoder::activation;
use crate::position::Resampling;
use crate::{Masking, ModelError, TrainOptions, VitMaeConfig};

/// Hugging Face's `ViTMAEDecoder`: embed, insert mask tokens, unshuffle, add positions, blocks, norm,
/// predict.
#[derive(Clone, Debug)]
pub struct VitMaeDecoder {
    /// `[E, D]`
    pub embed: Linear,
    /// `[1, 1, E]`
    pub mask_token: Param,
    /// `[1, 1 + L, E]`; frozen in pre-training, yet stored.
    pub position_embeddings: Param,
    /// The blocks and the norm.
    pub transformer: Transformer,
    /// `[PH·PW·C, E]`
    pub prediction: Linear,
}

/// What the decoder gives.
#[derive(Clone, Debug)]
pub struct VitMaeDecoderOutput {
    /// `[B, L, PH·PW·C]`, channel last, in grid order.
    pub logits: Tensor,
    /// Input of the first block and output of each, before the last norm, if asked for.
    pub hidden_states: Option<Vec<Tensor>>,
    /// `[B, A, 1 + L, 1 + L]` of each block, if asked for.
    pub attentions: Option<Vec<Tensor>>,
}

/// What the backward pass needs.
pub(crate) struct DecoderCache {
    latent: Tensor,
    ids_restore: Indices,
    kept: usize,
    transformer: TransformerCache,
    /// The last hidden state of the removed patches, `[B, R, E]`.
    removed: Tensor,
}

impl VitMaeDecoder {
    pub(crate) fn with_params<E: From<ModelError>>(
        config: &VitMaeConfig,
        param: &mut MakeParam<'_, E>,
    ) -> Result<Self, E> {
        let (d, e) = (config.hidden_size, config.decoder_hidden_size);
        let sizes = Sizes {
            layers: config.decoder_num_hidden_layers,
            width: e,
            heads: config.decoder_num_attention_heads,
            inner: config.decoder_intermediate_size,
            activation: activation(config)?,
            qkv_bias: config.qkv_bias,
            eps: config.layer_norm_eps as f32,
            norm: true,
        };
        let positions = [1, 1 + config.num_patches(), e];
        let patch = config.patch_dim();
        Ok(Self {
            embed: Linear::build("decoder.embed", &[e, d], true, param)?,
            mask_token: param("decoder.mask_token".into(), &[1, 1, e])?,
            position_embeddings: param("decoder.position_embeddings".into(), &positions)?.frozen(),
            transformer: Transformer::build("decoder", sizes, param)?,
            prediction: Linear::build("decoder.prediction", &[patch, e], true, param)?,
        })
    }

    /// Predicts every patch.
    ///
    /// # Shapes
    /// `latent: [B, 1 + K, D]`, the encoder's last hidden state
    pub(crate) fn forward(
        &self,
        latent: Tensor,
        masking: &Masking,
        resampling: &Resampling,
        (hidden_states, attentions): (bool, bool),
    ) -> Result<VitMaeDecoderOutput, ModelError> {
        let visible = self.embed.forward(&latent)?; // [B, 1 + K, E]
        let ids_restore = masking.restore(self.device())?;
        let x = self.assemble(&visible, &ids_restore, resampling)?; // [B, 1 + L, E]
        let patches = patch_rows(masking, self.device())?;
        let (x, trace) = self.transformer.infer(x, Some(&patches), hidden_states, attentions)?;
        let logits = self.prediction.forward(&x)?; // [B, L, PH·PW·C]
        let (hidden_states, attentions) = (trace.hidden_states, trace.attentions);
        Ok(VitMaeDecoderOutput { logits, hidden_states, attentions })
    }

    /// As [`forward`](Self::forward), keeping what the backward pass needs, for the removed patches alone:
    /// `[B, R, PH·PW·C]` in grid order. No loss asks for the others.
    pub(crate) fn forward_cached(
        &self,
        latent: Tensor,
        masking: &Masking,
        resampling: &Resampling,
        config: &VitMaeConfig,
        options: &TrainOptions,
    ) -> Result<(Tensor, DecoderCache), ModelError> {
        let visible = self.embed.forward(&latent)?;
        let ids_restore = masking.restore(self.device())?;
        let x = self.assemble(&visible, &ids_restore, resampling)?;
        drop(visible);
        let rows = masking.ids_removed(self.device(), 1)?; // behind the class token
        let (removed, transformer) = self.transformer.forward(
            x,
            Some(&rows),
            options.dropout_of(config, "decoder", config.decoder_num_hidden_layers),
            options.recompute,
        )?;
        let logits = self.prediction.forward(&removed)?;
        let kept = masking.len_keep;
        let cache = DecoderCache { latent, ids_restore, kept, transformer, removed };
        Ok((logits, cache))
    }

    /// Returns the gradient of the latent and adds to those of the parameters, for
    /// `dlogits: [B, R, PH·PW·C]`.
    pub(crate) fn backward(
        &mut self,
        cache: DecoderCache,
        dlogits: Tensor,
        done: &mut GradientsDone<'_>,
    ) -> Result<Tensor, ModelError> {
        let dremoved = self.prediction.backward(&cache.removed, &dlogits)?;
        drop((dlogits, cache.removed));
        let dx = self.transformer.backward(cache.transformer, dremoved, done)?; // [B, 1 + L, E]
        let (ids, kept) = (&cache.ids_restore, cache.kept);
        ops::decoder_assembly_backward_mask_token(&dx, ids, kept, &mut self.mask_token.grad)?;
        let dvisible = ops::decoder_assembly_backward_visible(&dx, ids, kept)?;
        let dlatent = self.embed.backward(&cache.latent, &dvisible)?;
        let mut rest = vec![&self.mask_token, &self.position_embeddings];
        rest.extend([&self.embed, &self.prediction].into_iter().flat_map(Linear::parameters));
        rest.extend(self.transformer.norm.iter().flat_map(LayerNorm::parameters));
        done(&rest)?;
        Ok(dlatent)
    }

    fn assemble(
        &self,
        visible: &Tensor,
        ids_restore: &Indices,
        resampling: &Resampling,
    ) -> Result<Tensor, TensorError> {
        let positions = resampling.apply(&self.position_embeddings.value)?;
        ops::decoder_assembly(visible, &self.mask_token.value, ids_restore, &positions)
    }

    fn device(&self) -> &Device {
        self.mask_token.value.device()
    }

    /// As [`VitMaeModel::set_precision`](crate::VitMaeModel::set_precision).
    pub fn set_precision(&mut self, precision: Precision) {
        let inside = self.transformer.linears_mut();
        let all = [&mut self.embed, &mut self.prediction].into_iter().chain(inside);
        all.for_each(|linear| linear.precision = precision);
    }

    /// As [`VitMaeModel::pack_weights`](crate::VitMaeModel::pack_weights).
    ///
    /// # Errors
    /// As there.
    pub fn pack_weights(&mut self) -> Result<(), TensorError> {
        let inside = self.transformer.linears_mut();
        let mut all = [&mut self.embed, &mut self.prediction].into_iter().chain(inside);
        all.try_for_each(Linear::pack)
    }

    /// As [`VitMaeModel::quantise_weights`](crate::VitMaeModel::quantise_weights); what stands around the blocks keeps its
    /// precision.
    ///
    /// # Errors
    /// As there.
    pub fn quantise_weights(&mut self) -> Result<(), TensorError> {
        self.embed.pack()?;
        self.prediction.pack()?;
        self.transformer.linears_mut().try_for_each(Linear::quantise)
    }

    /// Every parameter: embed, mask token, positions, blocks, norm, prediction.
    pub fn parameters(&self) -> Vec<&Param> {
        let mut all = self.embed.parameters();
        all.extend([&self.mask_token, &self.position_embeddings]);
        all.extend(self.transformer.parameters());
        all.extend(self.prediction.parameters());
        all
    }

    /// As [`parameters`](Self::parameters), to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.embed.parameters_mut();
        all.extend([&mut self.mask_token, &mut self.position_embeddings]);
        all.extend(self.transformer.parameters_mut());
        all.extend(self.prediction.parameters_mut());
        all
    }
}

/// The rows of the patches, without the class token's: 1 to L for each image.
fn patch_rows(masking: &Masking, device: &Device) -> Result<Indices, TensorError> {
    let (batch, patches) = (masking.batch, masking.num_patches);
    let rows: Vec<u32> = (0..batch).flat_map(|_| 1..=patches as u32).collect();
    Indices::from_slice(device, &[batch, patches], &rows)
}
