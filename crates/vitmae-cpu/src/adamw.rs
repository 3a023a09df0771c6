//! AdamW with decoupled weight decay and bias correction, in one sweep.
//!
//!   p ← p·(1 − lr·wd)
//!   m ← m + (1 − β₁)·(g − m)          v ← β₂·v + (1 − β₂)·g²
//!   p ← p − lr/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + eps)
//!
//! Source: `torch.optim.AdamW`; arXiv:1711.05101. Oracle: `vitmae_testing::reference::adamw`.

use rayon::prelude::*;

use crate::parallel::CHUNK;
use crate::simd::{fma, multiversion};

/// Settings of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Learning rate.
    pub lr: f64,
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added outside the root.
    pub eps: f64,
    /// Decoupled decay.
    pub weight_decay: f64,
    /// Number of the update, from 1.
    pub step: u64,
}

/// The settings as the inner loop needs them, each rounded once.
#[derive(Clone, Copy)]
struct Factors {
    keep: f32,
    beta2: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    step_size: f32,
    inverse_root: f32,
    eps: f32,
    scale: f32,
}

/// Updates `value`, `m` and `v` in place from `gradient · scale`; a `scale` of 0 leaves all as it is
/// ([`crate::norm::clip_scale`]).
///
/// # Panics
/// If the lengths differ or `step` is 0.
pub fn step(
    value: &mut [f32],
    gradient: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    scale: f32,
    settings: &Settings,
) {
    let count = value.len();
    assert!(gradient.len() == count && m.len() == count && v.len() == count, "adamw: lengths");
    assert!(settings.step > 0, "adamw: the first update is number 1");
    let Settings { lr, betas: [beta1, beta2], eps, weight_decay, step } = *settings;
    if scale == 0.0 {
        return;
    }
    // A power beyond i32 is 0 in f64 for every β below 1.
    let power = |beta: f64| beta.powi(i32::try_from(step).unwrap_or(i32::MAX));
    let factors = Factors {
        keep: (1.0 - lr * weight_decay) as f32,
        beta2: beta2 as f32,
        one_minus_beta1: (1.0 - beta1) as f32,
        one_minus_beta2: (1.0 - beta2) as f32,
        step_size: (lr / (1.0 - power(beta1))) as f32,
        inverse_root: (1.0 / (1.0 - power(beta2)).sqrt()) as f32,
        eps: eps as f32,
        scale,
    };
    let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
    let values = value.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
    values
        .zip(moments)
        .for_each(|((value, gradient), (m, v))| sweep(value, gradient, m, v, factors));
}

multiversion! {
    fn sweep(value: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
        let moments = m.iter_mut().zip(v);
        for ((p, g), (m, v)) in value.iter_mut().zip(gradient).zip(moments) {
            let g = g * f.scale;
            *m = fma::<FMA>(f.one_minus_beta1, g - *m, *m);
            *v = fma::<FMA>(f.one_minus_beta2 * g, g, f.beta2 * *v);
            let denominator = fma::<FMA>(v.sqrt(), f.inverse_root, f.eps);
            *p = fma::<FMA>(-f.step_size, *m / denominator, *p * f.keep);
        }
    }
}
