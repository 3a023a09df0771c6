//! The encoder: patch embedding, positions, masking, blocks, norm.

use vitmae_layers::{
    BlockDropout, DropRates, GradientsDone, LayerNorm, Linear, MakeParam, Param, Sizes,
    Transformer, TransformerCache,
};
use vitmae_tensor::ops::{self, Activation, Dropout, Precision, Stream};
use vitmae_tensor::{Device, Indices, Tensor, TensorError};

use crate::position::Resampling;
use crate::{
    ConfigError, ForwardOptions, Interpolation, Masking, ModelError, TrainOptions, VitMaeConfig,
    init,
};

/// The bare model, Hugging Face's `ViTMAEModel`.
///
/// Trap: [`forward`](Self::forward) returns patch tokens in the **shuffled** order of the mask, even
/// where nothing is removed. Feature extraction wants [`encode`](Self::encode), which keeps the grid's.
#[derive(Clone, Debug)]
pub struct VitMaeModel {
    /// Sizes and choices.
    pub config: VitMaeConfig,
    /// `[1, 1, D]`
    pub cls_token: Param,
    /// `[1, 1 + L, D]`; frozen in pre-training, yet stored.
    pub position_embeddings: Param,
    /// `[D, C, PH, PW]` and `[D]`: a convolution whose stride is its kernel.
    pub patch_embedding: Linear,
    /// The blocks and the norm.
    pub transformer: Transformer,
    /// Whether training drops values of the embedded tokens too, as Hugging Face's classifier does.
    pub(crate) embedding_dropout: bool,
}

/// Result of [`VitMaeModel::forward`].
#[derive(Clone, Debug)]
pub struct VitMaeModelOutput {
    /// `[B, 1 + K, D]`: the class token, then the kept patches in the order of `ids_keep`.
    pub last_hidden_state: Tensor,
    /// `[B, L]`, 1 = removed, 0 = kept.
    pub mask: Vec<f32>,
    /// `[B, L]`
    pub ids_restore: Vec<u32>,
    /// Input of the first block and output of each, before the last norm, if asked for.
    pub hidden_states: Option<Vec<Tensor>>,
    /// `[B, A, 1 + K, 1 + K]` of each block, if asked for.
    pub attentions: Option<Vec<Tensor>>,
}

/// What the backward pass needs.
pub(crate) struct EncoderCache {
    pixel_rows: Tensor, // [B, K, C·PH·PW]
    transformer: TransformerCache,
    ids_keep: Indices,
    resampling: Resampling,
    dropout: Option<Dropout>,
    num_patches: usize,
}

/// The images of a call, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Images {
    pub(crate) batch: usize,
    /// (rows, columns) of patches.
    pub(crate) grid: (usize, usize),
}

impl VitMaeModel {
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
        Self::with_params(config, true, &mut param)
    }

    /// The encoder's part of a model, with or without the norm behind the last block.
    pub(crate) fn with_params<E: From<ModelError>>(
        config: VitMaeConfig,
        norm: bool,
        param: &mut MakeParam<'_, E>,
    ) -> Result<Self, E> {
        let d = config.hidden_size;
        let (height, width) = config.patch_size;
        let kernel = [d, config.num_channels, height, width];
        let sizes = Sizes {
            layers: config.num_hidden_layers,
            width: d,
            heads: config.num_attention_heads,
            inner: config.intermediate_size,
            activation: activation(&config)?,
            qkv_bias: config.qkv_bias,
            eps: config.layer_norm_eps as f32,
            norm,
        };
        let positions = [1, 1 + config.num_patches(), d];
        Ok(Self {
            cls_token: param("vit.cls_token".into(), &[1, 1, d])?,
            position_embeddings: param("vit.position_embeddings".into(), &positions)?.frozen(),
            patch_embedding: Linear::build("vit.patch_embedding", &kernel, true, param)?,
            transformer: Transformer::build("vit", sizes, param)?,
            embedding_dropout: false,
            config,
        })
    }

    /// Embeds, masks, encodes.
    ///
    /// # Shapes
    /// `pixels: [B, C, H, W]`, normalised
    ///
    /// # Errors
    /// [`ModelError`] if images or masking do not fit the model.
    ///
    /// Source: `ViTMAEModel.forward` of transformers 4.57.6.
    pub fn forward(
        &self,
        pixels: &Tensor,
        masking: &Masking,
        options: &ForwardOptions,
    ) -> Result<VitMaeModelOutput, ModelError> {
        self.forward_rows(pixels, masking, None, options)
    }

    /// As [`forward`](Self::forward), but the last hidden state of some tokens alone, `[B, R, D]` for `rows: [B, R]`.
    pub(crate) fn forward_rows(
        &self,
        pixels: &Tensor,
        masking: &Masking,
        rows: Option<&Indices>,
        options: &ForwardOptions,
    ) -> Result<VitMaeModelOutput, ModelError> {
        let images = self.images(pixels, options.interpolate_pos_encoding)?;
        let resampling = self.resampling(images, options)?;
        let ids_keep = self.ids_keep(masking, images)?;
        let (x, _) = self.embed(pixels, &ids_keep, &resampling)?; // [B, 1 + K, D]
        let (states, attentions) = (options.output_hidden_states, options.output_attentions);
        let (last_hidden_state, trace) = self.transformer.infer(x, rows, states, attentions)?;
        Ok(VitMaeModelOutput {
            last_hidden_state,
            mask: masking.mask.clone(),
            ids_restore: masking.ids_restore.clone(),
            hidden_states: trace.hidden_states,
            attentions: trace.attentions,
        })
    }

    /// Encodes every patch, none removed: `[B, 1 + L, D]`, the class token first, then the patches
    /// in grid order. With `interpolate` images may have any size that is a whole number of patches.
    ///
    /// # Errors
    /// [`ModelError`] if the images do not fit the model.
    pub fn encode(&self, pixels: &Tensor, interpolate: bool) -> Result<Tensor, ModelError> {
        let options =
            ForwardOptions { interpolate_pos_encoding: interpolate, ..ForwardOptions::default() };
        let images = self.images(pixels, interpolate)?;
        let masking = Masking::none(images.batch, images.grid.0 * images.grid.1);
        Ok(self.forward(pixels, &masking, &options)?.last_hidden_state)
    }

    /// As [`forward_rows`](Self::forward_rows), keeping what the backward pass needs.
    pub(crate) fn forward_cached(
        &self,
        pixels: &Tensor,
        masking: &Masking,
        rows: Option<&Indices>,
        options: &TrainOptions,
    ) -> Result<(Tensor, EncoderCache), ModelError> {
        let images = self.images(pixels, options.forward.interpolate_pos_encoding)?;
        let resampling = self.resampling(images, &options.forward)?;
        let ids_keep = self.ids_keep(masking, images)?;
        let (mut x, pixel_rows) = self.embed(pixels, &ids_keep, &resampling)?;
        let dropout = self.dropout_of_embeddings(options);
        if let Some(dropout) = &dropout {
            x = ops::dropout(&x, None, dropout)?;
        }
        let (y, transformer) = self.transformer.forward(
            x,
            rows,
            options.dropout_of(&self.config, "vit", self.config.num_hidden_layers),
            options.recompute,
        )?;
        let num_patches = masking.num_patches;
        Ok((
            y,
            EncoderCache { pixel_rows, transformer, ids_keep, resampling, dropout, num_patches },
        ))
    }

    /// Adds to the gradients for `dy: [B, 1 + K, D]`, or of the rows that were asked for.
    pub(crate) fn backward(
        &mut self,
        cache: EncoderCache,
        dy: Tensor,
        done: &mut GradientsDone<'_>,
    ) -> Result<(), ModelError> {
        let mut dx = self.transformer.backward(cache.transformer, dy, done)?;
        if let Some(dropout) = &cache.dropout {
            dx = ops::dropout_backward(&dx, dropout)?;
        }
        ops::encoder_assembly_backward_cls(&dx, &mut self.cls_token.grad)?;
        if self.position_embeddings.trainable {
            let (ids, patches) = (&cache.ids_keep, cache.num_patches);
            let mut resampled = None;
            ops::encoder_assembly_backward_positions(&dx, ids, patches, &mut resampled)?;
            if let Some(resampled) = resampled {
                let gradient = cache.resampling.backward(&resampled)?;
                let slot = &mut self.position_embeddings.grad;
                *slot = Some(match slot.take() {
                    Some(before) => ops::add(&before, &gradient)?,
                    None => gradient,
                });
            }
        }
        let dtokens = ops::encoder_assembly_backward_tokens(&dx)?;
        self.patch_embedding.backward_parameters(&cache.pixel_rows, &dtokens)?;
        let mut rest = vec![&self.cls_token, &self.position_embeddings];
        rest.extend(self.patch_embedding.parameters());
        rest.extend(self.transformer.norm.iter().flat_map(LayerNorm::parameters));
        Ok(done(&rest)?)
    }

    /// Kept patches with their positions, behind the class token: `[B, 1 + K, D]`; and their pixels.
    fn embed(
        &self,
        pixels: &Tensor,
        ids_keep: &Indices,
        resampling: &Resampling,
    ) -> Result<(Tensor, Tensor), ModelError> {
        let rows = ops::im2col(pixels, ids_keep, self.config.patch_size)?; // [B, K, C·PH·PW]
        let tokens = self.patch_embedding.forward(&rows)?; // [B, K, D]
        let positions = resampling.apply(&self.position_embeddings.value)?; // [1, 1 + L, D]
        let x = ops::encoder_assembly(&tokens, &self.cls_token.value, &positions, ids_keep)?;
        Ok((x, rows))
    }

    /// Noise of its own, apart from every block's.
    fn dropout_of_embeddings(&self, options: &TrainOptions) -> Option<Dropout> {
        let rate = self.config.hidden_dropout_prob as f32;
        let stream = Stream::new(options.dropout_seed, "vit.embeddings", 0, 0);
        let on = self.embedding_dropout && options.dropout && rate > 0.0;
        on.then_some(Dropout { rate, stream })
    }

    fn ids_keep(&self, masking: &Masking, images: Images) -> Result<Indices, ModelError> {
        masking.expect(images.batch, images.grid.0 * images.grid.1)?;
        Ok(masking.keep(self.device())?)
    }

    /// The encoder's table is always resampled in two dimensions.
    fn resampling(
        &self,
        images: Images,
        options: &ForwardOptions,
    ) -> Result<Resampling, ModelError> {
        let (way, numerics) = (Interpolation::Grid2d, options.numerics_of(&self.config)?);
        Ok(Resampling::new(self.config.grid(), images.grid, way, numerics.bicubic()))
    }

    /// Checks a batch of images against the configuration.
    pub(crate) fn images(&self, pixels: &Tensor, interpolate: bool) -> Result<Images, ModelError> {
        let config = &self.config;
        let &[batch, channels, height, width] = pixels.shape() else {
            return Err(ModelError::PixelRank { found: pixels.shape().to_vec() });
        };
        if channels != config.num_channels {
            let expected = config.num_channels;
            return Err(ModelError::Channels { found: channels, expected });
        }
        if !interpolate && (height, width) != config.image_size {
            let (found, expected) = ((height, width), config.image_size);
            return Err(ModelError::ImageSize { found, expected });
        }
        let patch = config.patch_size;
        for (axis, image, patch) in [("height", height, patch.0), ("width", width, patch.1)] {
            if image == 0 || !image.is_multiple_of(patch) {
                return Err(ModelError::Patches { axis, image, patch });
            }
        }
        Ok(Images { batch, grid: (height / patch.0, width / patch.1) })
    }

    /// Computes every matrix product of a linear layer in `precision` from now on; parameters stay f32, and
    /// so do attention, norms and activations.
    pub fn set_precision(&mut self, precision: Precision) {
        self.patch_embedding.precision = precision;
        self.transformer.linears_mut().for_each(|linear| linear.precision = precision);
    }

    /// Packs every weight for inference on the CPU: the same outputs, sooner. In f32 this costs no memory, in bf16 half of the
    /// weights', or all of it on a CPU without instructions for bf16. Call it once the precision is set; a weight that changes afterwards is used as it is.
    ///
    /// # Errors
    /// None for models of this crate, whose weights all have two sides or more.
    pub fn pack_weights(&mut self) -> Result<(), TensorError> {
        self.patch_embedding.pack()?;
        self.transformer.linears_mut().try_for_each(Linear::pack)
    }

    /// Packs every weight for inference on the CPU, those of the blocks in 8 bits: tokens are rounded to 8 bits before each
    /// of their products, norms, attention and activations stay f32. What it costs in accuracy is in `docs/numerics.md`.
    ///
    /// # Errors
    /// As [`pack_weights`](Self::pack_weights).
    pub fn quantise_weights(&mut self) -> Result<(), TensorError> {
        self.patch_embedding.pack()?;
        self.transformer.linears_mut().try_for_each(Linear::quantise)
    }

    /// The table of positions for images of (height, width) pixels, resampled in two dimensions as a forward pass
    /// would: `[1, 1 + L, D]`.
    ///
    /// # Errors
    /// [`ModelError`] if the device fails or the configuration records unknown numerics.
    pub fn positions_for(&self, image_size: (usize, usize)) -> Result<Tensor, ModelError> {
        let grid = VitMaeConfig { image_size, ..self.config.clone() }.grid();
        let numerics = ForwardOptions::default().numerics_of(&self.config)?;
        let (way, kernel) = (Interpolation::Grid2d, numerics.bicubic());
        let resampling = Resampling::new(self.config.grid(), grid, way, kernel);
        Ok(resampling.apply(&self.position_embeddings.value)?)
    }

    /// The device of its parameters.
    pub fn device(&self) -> &Device {
        self.cls_token.value.device()
    }

    /// Every parameter: class token, positions, patch embedding, blocks, norm.
    pub fn parameters(&self) -> Vec<&Param> {
        let mut all = vec![&self.cls_token, &self.position_embeddings];
        all.extend(self.patch_embedding.parameters());
        all.extend(self.transformer.parameters());
        all
    }

    /// As [`parameters`](Self::parameters), to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Param> {
        let mut all = vec![&mut self.cls_token, &mut self.position_embeddings];
        all.extend(self.patch_embedding.parameters_mut());
        all.extend(self.transformer.parameters_mut());
        all
    }
}

/// Gives a parameter's values by name and shape.
pub type Values<'a, E> = dyn FnMut(&str, &[usize]) -> Result<Vec<f32>, E> + 'a;

/// Makes parameters from their values.
pub(crate) fn maker<'a, E: From<ModelError>>(
    device: &'a Device,
    values: &'a mut Values<'_, E>,
) -> impl FnMut(String, &[usize]) -> Result<Param, E> + 'a {
    move |name, shape| {
        let values = values(&name, shape)?;
        let value = Tensor::from_vec(device, shape, values).map_err(ModelError::from)?;
        Ok(Param::new(name, value))
    }
}

/// The activation that a configuration names.
pub(crate) fn activation(config: &VitMaeConfig) -> Result<Activation, ModelError> {
    Activation::from_name(&config.hidden_act).ok_or_else(|| {
        let (found, help) = (config.hidden_act.clone(), "use one of Hugging Face's names".into());
        ConfigError::Activation { found, help }.into()
    })
}

impl TrainOptions {
    /// The dropout of each of `layers` blocks of a stack.
    pub(crate) fn dropout_of<'a>(
        &self,
        config: &VitMaeConfig,
        stack: &'a str,
        layers: usize,
    ) -> impl Fn(usize) -> BlockDropout + 'a {
        let (seed, on) = (self.dropout_seed, self.dropout);
        let rate = move |rate: f64| if on { rate as f32 } else { 0.0 };
        let hidden = rate(config.hidden_dropout_prob);
        let probabilities = rate(config.attention_probs_dropout_prob);
        // None in the first block, all in the last.
        let steps = layers.saturating_sub(1).max(1) as f64;
        let last = self.drop_path;
        move |index| {
            let path = rate(last * index as f64 / steps);
            BlockDropout::new(seed, stack, index, DropRates { hidden, probabilities, path })
        }
    }
}
