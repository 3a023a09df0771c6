//! AdamW over a model's parameters, with the decay groups of the original pre-training.
//!
//!   m ← β₁ m + (1 − β₁) g          v ← β₂ v + (1 − β₂) g²
//!   w ← w − lr · decay · w − lr · m̂ / (√v̂ + eps)
//!
//! What is decayed, and the share of the learning rate that each parameter gets, is told by [`Groups`]. Frozen
//! parameters are left out. Source: `torch.optim.AdamW`.

use vitmae_layers::Param;
use vitmae_tensor::{Tensor, ops};

use crate::TrainerError;

/// Settings of the optimizer; the learning rate comes with each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWOptions {
    /// Decay rates of the moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay of the tensors that are decayed.
    pub weight_decay: f64,
    /// Which those are, and how learning rates differ.
    pub groups: Groups,
}

/// How parameters differ for the optimizer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Groups {
    /// Tensors of rank at most 1 and names that end in `.bias` are not decayed; everything else is, the CLS token and the
    /// mask token included. One learning rate. Source: `add_weight_decay` of timm.
    #[default]
    Pretraining,
    /// Position table and CLS token are not decayed either, and the learning rate of layer i of n is multiplied by
    /// decayⁿ⁻ⁱ: 0 is the embeddings, i + 1 block i, n what follows the last block. Source: `param_groups_lrd` of the
    /// original; arXiv:2106.08254.
    FineTuning {
        /// In (0, 1]; 1 for one learning rate.
        layer_decay: f64,
        /// Blocks of the encoder: n − 1.
        blocks: usize,
    },
}

impl Groups {
    /// The factor of the learning rate of a parameter.
    fn rate(self, name: &str) -> f64 {
        let Self::FineTuning { layer_decay, blocks } = self else { return 1.0 };
        let last = blocks + 1;
        let layer = match name.strip_prefix("vit.blocks.") {
            Some(rest) => {
                rest.split('.').next().and_then(|i| i.parse().ok()).map_or(last, |i: usize| i + 1)
            }
            None if is_token_or_table(name) || name.starts_with("vit.patch_embedding.") => 0,
            None => last,
        };
        layer_decay.powi(last.saturating_sub(layer) as i32)
    }

    fn decays(self, name: &str, rank: usize) -> bool {
        let spared = self != Self::Pretraining && is_token_or_table(name);
        is_decayed(name, rank) && !spared
    }
}

fn is_token_or_table(name: &str) -> bool {
    ["vit.cls_token", "vit.position_embeddings"].contains(&name)
}

impl Default for AdamWOptions {
    /// β = (0.9, 0.95), eps = 1e-8, weight decay 0.05: the MAE recipe.
    fn default() -> Self {
        AdamWOptions {
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.05,
            groups: Groups::Pretraining,
        }
    }
}

/// First and second moment of one parameter, in its shape.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Running mean of the gradient.
    pub m: Tensor,
    /// Running mean of its square.
    pub v: Tensor,
}

/// The optimizer's state for the parameters of one model, in the model's order.
#[derive(Clone, Debug)]
pub struct AdamW {
    options: AdamWOptions,
    updates: u64,
    moments: Vec<Option<Moments>>,
}

impl AdamW {
    /// Moments of zero for every trainable parameter.
    ///
    /// # Errors
    /// [`TrainerError::Tensor`] if memory cannot be had.
    pub fn new(parameters: &[&Param], options: AdamWOptions) -> Result<AdamW, TrainerError> {
        let moments = |parameter: &&Param| {
            if !parameter.trainable {
                return Ok(None);
            }
            let (device, shape) = (parameter.value.device(), parameter.value.shape());
            let (m, v) = (Tensor::zeros(device, shape)?, Tensor::zeros(device, shape)?);
            Ok(Some(Moments { m, v }))
        };
        let moments = parameters.iter().map(moments).collect::<Result<_, TrainerError>>()?;
        Ok(AdamW { options, updates: 0, moments })
    }

    /// Updates every trainable parameter from its gradient times `scale`, one value; 0 leaves all as it is.
    /// A parameter without a gradient is updated as if it were zero.
    ///
    /// # Errors
    /// [`TrainerError::Tensor`] if shapes do not fit, which a model's own gradients always do.
    pub fn step(
        &mut self,
        parameters: Vec<&mut Param>,
        lr: f64,
        scale: &Tensor,
    ) -> Result<(), TrainerError> {
        self.updates += 1;
        let AdamWOptions { betas, eps, weight_decay, groups } = self.options;
        // A parameter that no gradient reached counts as one with gradient 0.
        let mut zeros = Vec::new();
        for parameter in parameters.iter().filter(|p| p.trainable && p.grad.is_none()) {
            zeros.push(Tensor::zeros(parameter.value.device(), parameter.value.shape())?);
        }
        let mut zeros = zeros.iter();
        let mut updated = Vec::with_capacity(parameters.len());
        for (parameter, moments) in parameters.into_iter().zip(&mut self.moments) {
            let Some(Moments { m, v }) = moments else { continue };
            let decayed = groups.decays(&parameter.name, parameter.value.shape().len());
            let weight_decay = if decayed { weight_decay } else { 0.0 };
            let lr = lr * groups.rate(&parameter.name);
            let settings = ops::AdamW { lr, betas, eps, weight_decay, step: self.updates };
            let Some(gradient) = parameter.grad.as_ref().or_else(|| zeros.next()) else { continue };
            let value = &mut parameter.value;
            updated.push(ops::AdamWParameter { value, gradient, m, v, settings });
        }
        Ok(ops::adamw(&mut updated, scale)?)
    }

    /// Updates made so far; the bias correction depends on it.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The moments, one entry a parameter; none for frozen ones.
    pub fn moments(&self) -> &[Option<Moments>] {
        &self.moments
    }

    pub(crate) fn moments_mut(&mut self) -> &mut [Option<Moments>] {
        &mut self.moments
    }

    pub(crate) fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }
}

/// Whether weight decay applies to a parameter of this name and rank.
pub fn is_decayed(name: &str, rank: usize) -> bool {
    rank > 1 && !name.ends_with(".bias")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_learn_faster_and_tokens_are_spared() {
        let groups = Groups::FineTuning { layer_decay: 0.5, blocks: 3 };
        for (name, rank, rate, decayed) in [
            ("vit.cls_token", 3, 0.0625, false),
            ("vit.position_embeddings", 3, 0.0625, false),
            ("vit.patch_embedding.weight", 4, 0.0625, true),
            ("vit.blocks.0.mlp.fc1.weight", 2, 0.125, true),
            ("vit.blocks.2.mlp.fc1.bias", 1, 0.5, false),
            ("fc_norm.weight", 1, 1.0, false),
            ("classifier.weight", 2, 1.0, true),
        ] {
            assert_eq!((groups.rate(name), groups.decays(name, rank)), (rate, decayed), "{name}");
            assert_eq!(Groups::Pretraining.rate(name), 1.0);
        }
    }

    #[test]
    fn vectors_and_biases_are_not_decayed_but_tokens_are() {
        for (name, rank, decayed) in [
            ("vit.cls_token", 3, true),
            ("decoder.mask_token", 3, true),
            ("vit.patch_embedding.weight", 4, true),
            ("vit.blocks.0.attention.qkv.weight", 2, true),
            ("vit.blocks.0.attention.qkv.bias", 1, false),
            ("vit.norm.weight", 1, false),
        ] {
            assert_eq!(is_decayed(name, rank), decayed, "{name}");
        }
    }
}
