//! AdamW with decoupled weight decay and bias correction, in one sweep.
//!
//!   p ← p·(1 − lr·wd)
//!   m ← m + (1 − β₁)·(g − m)          v ← β₂·v + (1 − β₂)·g²
//!   p ← p − lr/(1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + eps)
//!
//! Source: `torch.optim.AdamW`; arXiv:1711.05101. Oracle: `vitmae_testing::reference::adamw`; CPU twin:
//! `vitmae_cpu::adamw`.

use cubecl::prelude::*;

use crate::{Array, Client, Dtype, launch};

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

/// One parameter with what its update needs, all f32 and of one length; `value`, `m` and `v` are updated in
/// place.
#[derive(Clone, Copy, Debug)]
pub struct Parameter<'a> {
    /// p
    pub value: &'a Array,
    /// g
    pub gradient: &'a Array,
    /// First moment.
    pub m: &'a Array,
    /// Second moment.
    pub v: &'a Array,
    /// Learning rate and the rest; parameters differ in decay and, with layer-wise decay, in rate.
    pub settings: Settings,
}

/// Updates every parameter from its gradient times `scale`, one launch each; a `scale` of 0 leaves all as it
/// is ([`crate::norm::clip_scale`]).
///
/// # Shapes
/// `scale: [1]` f32
///
/// # Panics
/// If lengths or types differ or a `step` is 0.
pub fn step(client: &Client, parameters: &[Parameter], scale: &Array) {
    assert_eq!((scale.len, scale.dtype), (1, Dtype::F32), "adamw: scale");
    for parameter in parameters {
        step_one(client, parameter, scale);
    }
}

fn step_one(client: &Client, parameter: &Parameter, scale: &Array) {
    let Parameter { value, gradient, m, v, settings } = *parameter;
    for array in [value, gradient, m, v] {
        assert!(array.len == value.len && array.dtype == Dtype::F32, "adamw: lengths");
    }
    assert!(settings.step > 0, "adamw: the first update is number 1");
    if value.len == 0 {
        return;
    }
    let Settings { lr, betas: [beta1, beta2], eps, weight_decay, step } = settings;
    // A power beyond i32 is 0 in f64 for every β below 1.
    let power = |beta: f64| beta.powi(i32::try_from(step).unwrap_or(i32::MAX));
    let vector = launch::vector_size(value.len);
    let (count, dim) = launch::elements(client, value.len / vector);
    // SAFETY: guarded by the number of vectors in `value`, which the others share.
    unsafe {
        step_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            value.arg(),
            gradient.arg(),
            m.arg(),
            v.arg(),
            scale.arg(),
            (value.len / vector) as u32,
            (1.0 - lr * weight_decay) as f32,
            beta2 as f32,
            (1.0 - beta1) as f32,
            (1.0 - beta2) as f32,
            (lr / (1.0 - power(beta1))) as f32,
            (1.0 / (1.0 - power(beta2)).sqrt()) as f32,
            eps as f32,
        );
    }
}

/// One unit updates one vector; each setting was rounded once, on the host.
#[cube(launch_unchecked)]
fn step_kernel<N: Size>(
    value: &mut [Vector<f32, N>],
    gradient: &[Vector<f32, N>],
    m: &mut [Vector<f32, N>],
    v: &mut [Vector<f32, N>],
    scale: &[f32],
    vectors: u32,
    keep: f32,
    beta2: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    step_size: f32,
    inverse_root: f32,
    eps: f32,
) {
    let i = ABSOLUTE_POS;
    let scale = scale[0];
    if i < vectors as usize && scale != 0.0f32 {
        let g = gradient[i] * Vector::new(scale);
        let old = m[i];
        let first = old + Vector::new(one_minus_beta1) * (g - old);
        let second = Vector::new(beta2) * v[i] + Vector::new(one_minus_beta2) * g * g;
        let root = Vector::sqrt(second) * Vector::new(inverse_root) + Vector::new(eps);
        m[i] = first;
        v[i] = second;
        value[i] = value[i] * Vector::new(keep) - Vector::new(step_size) * (first / root);
    }
}
