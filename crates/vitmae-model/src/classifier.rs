//! The encoder with a linear classifier on top.

use vitmae_layers::{GradientsDone, LayerNorm, LayerNormCache, Linear, Param};
use vitmae_tensor::ops::{self, Precision};
use vitmae_tensor::{Device, Indices, Tensor, TensorError};

use crate::encoder::{Values, maker};
use crate::{
    ForwardOptions, Labels, Masking, ModelError, ProblemType, TrainOptions, VitMaeConfig,
    VitMaeModel, init,
};

/// How a classifier reads the encoder's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Head {
    /// The class token behind the last norm: Hugging Face's class.
    #[default]
    Cls,
    /// The mean of the patch tokens before the last norm, then `fc_norm`: the original's fine-tuning.
    MeanFcNorm,
}

/// Hugging Face's `ViTForImageClassification`, and the original's fine-tuned model.
///
/// Nothing is masked, and the position table is trained.
#[derive(Clone, Debug)]
pub struct VitForImageClassification {
    /// Sizes; `id2label` gives the number of classes.
    pub config: VitMaeConfig,
    /// The encoder; with [`Head::MeanFcNorm`] it has no norm behind the last block.
    pub vit: VitMaeModel,
    /// Of [`Head::MeanFcNorm`].
    pub fc_norm: Option<LayerNorm>,
    /// `[classes, D]`
    pub classifier: Linear,
}

/// Result of [`VitForImageClassification::forward`].
#[derive(Clone, Debug)]
pub struct VitForImageClassificationOutput {
    /// That of the [`ProblemType`], if labels were given.
    pub loss: Option<f32>,
    /// `[B, classes]`
    pub logits: Tensor,
    /// As [`VitMaeModelOutput::hidden_states`](crate::VitMaeModelOutput::hidden_states), in grid order.
    pub hidden_states: Option<Vec<Tensor>>,
    /// As [`VitMaeModelOutput::attentions`](crate::VitMaeModelOutput::attentions).
    pub attentions: Option<Vec<Tensor>>,
}

/// What the backward pass of the head needs.
struct HeadCache {
    tokens: usize,
    fc_norm: Option<LayerNormCache>,
    features: Tensor, // [B, D]
}

impl VitForImageClassification {
    /// A model with the first values of [`init`].
    ///
    /// # Errors
    /// [`ModelError::Config`] if the configuration contradicts itself.
    pub fn new(
        config: VitMaeConfig,
        head: Head,
        device: &Device,
        seed: u64,
    ) -> Result<Self, ModelError> {
        let values = config.clone();
        let mut first = |name: &str, shape: &[usize]| Ok(init::values(&values, seed, name, shape));
        Self::build(config, head, device, &mut first)
    }

    /// A model whose parameters `values` gives by name and shape, in the model's order.
    ///
    /// # Errors
    /// [`ModelError::Config`], or the first error of `values`.
    pub fn build<E: From<ModelError>>(
        config: VitMaeConfig,
        head: Head,
        device: &Device,
        values: &mut Values<'_, E>,
    ) -> Result<Self, E> {
        config.validate().map_err(ModelError::from)?;
        let mut param = maker(device, values);
        let (d, eps) = (config.hidden_size, config.layer_norm_eps as f32);
        let own_norm = head == Head::MeanFcNorm;
        let mut vit = VitMaeModel::with_params(config.clone(), !own_norm, &mut param)?;
        vit.position_embeddings.trainable = true;
        vit.embedding_dropout = true;
        let fc_norm = own_norm.then(|| LayerNorm::build("fc_norm", d, eps, &mut param));
        let fc_norm = fc_norm.transpose()?;
        let classes = config.num_labels();
        let classifier = Linear::build("classifier", &[classes, d], true, &mut param)?;
        Ok(Self { config, vit, fc_norm, classifier })
    }

    /// Class scores, and the loss if there are labels.
    ///
    /// # Shapes
    /// `pixels: [B, C, H, W]`; labels as [`ProblemType::of`] takes them
    ///
    /// # Errors
    /// [`ModelError`] if images or labels do not fit the model.
    ///
    /// Source: `ViTForImageClassification.forward` of transformers 4.57.6.
    pub fn forward(
        &self,
        pixels: &Tensor,
        labels: Option<Labels<'_>>,
        options: &ForwardOptions,
    ) -> Result<VitForImageClassificationOutput, ModelError> {
        let masking = self.all_patches(pixels, options)?;
        let rows = self.rows(masking.batch)?;
        let encoded = self.vit.forward_rows(pixels, &masking, rows.as_ref(), options)?;
        let (features, _) = self.read(encoded.last_hidden_state)?;
        let logits = self.classifier.forward(&features)?;
        let loss = labels.map(|labels| {
            let problem = ProblemType::of(&self.config, labels)?;
            Ok::<_, ModelError>(problem.loss(&logits, labels)?.item()?)
        });
        Ok(VitForImageClassificationOutput {
            loss: loss.transpose()?,
            logits,
            hidden_states: encoded.hidden_states,
            attentions: encoded.attentions,
        })
    }

    /// What the classifier reads of each image.
    ///
    /// # Shapes
    /// `pixels: [B, C, H, W]` → `[B, D]`
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn features(
        &self,
        pixels: &Tensor,
        options: &ForwardOptions,
    ) -> Result<Tensor, ModelError> {
        let masking = self.all_patches(pixels, options)?;
        let rows = self.rows(masking.batch)?;
        let encoded = self.vit.forward_rows(pixels, &masking, rows.as_ref(), options)?;
        Ok(self.read(encoded.last_hidden_state)?.0)
    }

    /// Adds the gradient of `loss_scale` times the loss to every parameter; returns the loss, one value that
    /// is still on the device. Dropout, where the configuration has it, also follows the embeddings.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_backward(
        &mut self,
        pixels: &Tensor,
        labels: Labels<'_>,
        options: &TrainOptions,
    ) -> Result<Tensor, ModelError> {
        self.forward_backward_in_parts(pixels, labels, options, &mut |_| Ok(()))
    }

    /// [`forward_backward`](Self::forward_backward) that gives `done` parameters as soon as nothing more is added to
    /// their gradients: each once, the head's first, then a block at a time from the last to the first.
    ///
    /// # Errors
    /// As there, and those of `done`.
    pub fn forward_backward_in_parts(
        &mut self,
        pixels: &Tensor,
        labels: Labels<'_>,
        options: &TrainOptions,
        done: &mut GradientsDone<'_>,
    ) -> Result<Tensor, ModelError> {
        let masking = self.all_patches(pixels, &options.forward)?;
        let problem = ProblemType::of(&self.config, labels)?;
        let rows = self.rows(masking.batch)?;
        let (x, encoder) = self.vit.forward_cached(pixels, &masking, rows.as_ref(), options)?;
        let (logits, head) = self.head(x)?;
        let loss = problem.loss(&logits, labels)?;

        let dlogits = problem.backward(&logits, labels, options.loss_scale)?;
        let dx = self.head_backward(head, &dlogits)?;
        done(&self.head_parameters())?;
        self.vit.backward(encoder, dx, done)?;
        Ok(loss)
    }

    /// The tokens that the head reads, where that is the class token alone.
    fn rows(&self, batch: usize) -> Result<Option<Indices>, TensorError> {
        let first = || Indices::from_slice(self.vit.device(), &[batch, 1], &vec![0; batch]);
        self.fc_norm.is_none().then(first).transpose()
    }

    /// From tokens, `[B, 1, D]` or `[B, 1 + L, D]`, to scores `[B, classes]`.
    fn head(&self, x: Tensor) -> Result<(Tensor, HeadCache), ModelError> {
        let tokens = x.shape()[1];
        let (features, fc_norm) = self.read(x)?;
        let logits = self.classifier.forward(&features)?;
        Ok((logits, HeadCache { tokens, fc_norm, features }))
    }

    /// From tokens to what the classifier reads, `[B, D]`.
    fn read(&self, x: Tensor) -> Result<(Tensor, Option<LayerNormCache>), ModelError> {
        Ok(match &self.fc_norm {
            None => {
                let (batch, width) = (x.shape()[0], x.shape()[2]);
                (x.reshape(&[batch, width])?, None)
            }
            Some(norm) => {
                let (features, cache) = norm.forward(ops::mean_tokens(&x, 1)?)?;
                (features, Some(cache))
            }
        })
    }

    /// The gradient of the tokens for that of the scores.
    fn head_backward(&mut self, cache: HeadCache, dlogits: &Tensor) -> Result<Tensor, ModelError> {
        let dfeatures = self.classifier.backward(&cache.features, dlogits)?; // [B, D]
        match (&mut self.fc_norm, cache.fc_norm) {
            (Some(norm), Some(kept)) => {
                let dmean = norm.backward(kept, &dfeatures, None)?;
                Ok(ops::mean_tokens_backward(&dmean, cache.tokens, 1)?)
            }
            _ => {
                let &[batch, width] = dfeatures.shape() else {
                    unreachable!("the gradient of a matrix is a matrix")
                };
                Ok(dfeatures.reshape(&[batch, 1, width])?)
            }
        }
    }

    fn all_patches(
        &self,
        pixels: &Tensor,
        options: &ForwardOptions,
    ) -> Result<Masking, ModelError> {
        let images = self.vit.images(pixels, options.interpolate_pos_encoding)?;
        Ok(Masking::none(images.batch, images.grid.0 * images.grid.1))
    }

    /// As [`VitMaeModel::set_precision`](crate::VitMaeModel::set_precision).
    pub fn set_precision(&mut self, precision: Precision) {
        self.vit.set_precision(precision);
        self.classifier.precision = precision;
    }

    /// As [`VitMaeModel::pack_weights`](crate::VitMaeModel::pack_weights).
    ///
    /// # Errors
    /// As there.
    pub fn pack_weights(&mut self) -> Result<(), TensorError> {
        self.vit.pack_weights()?;
        self.classifier.pack()
    }

    /// As [`VitMaeModel::quantise_weights`](crate::VitMaeModel::quantise_weights); the classifier keeps its precision.
    ///
    /// # Errors
    /// As there.
    pub fn quantise_weights(&mut self) -> Result<(), TensorError> {
        self.vit.quantise_weights()?;
        self.classifier.pack()
    }

    /// Every parameter: encoder, `fc_norm` if there is one, classifier.
    pub fn parameters(&self) -> Vec<&Param> {
        let mut all = self.vit.parameters();
        all.extend(self.head_parameters());
        all
    }

    fn head_parameters(&self) -> Vec<&Param> {
        let norm = self.fc_norm.iter().flat_map(LayerNorm::parameters);
        norm.chain(self.classifier.parameters()).collect()
    }

    /// As [`parameters`](Self::parameters), to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.vit.parameters_mut();
        all.extend(self.fc_norm.iter_mut().flat_map(LayerNorm::parameters_mut));
        all.extend(self.classifier.parameters_mut());
        all
    }

    /// Clears every gradient.
    pub fn zero_grad(&mut self) {
        self.parameters_mut().into_iter().for_each(|parameter| parameter.grad = None);
    }
}
