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

/// Most parameters of a launch, where the device binds enough buffers.
const TOGETHER: usize = 8;

/// Updates every parameter from its gradient times `scale`; a `scale` of 0 leaves all as it is
/// ([`crate::norm::clip_scale`]). Parameters of one length and equal settings, as the blocks of a model have
/// them, share launches of up to eight; on a device that binds less than nine buffers each has its own.
///
/// # Shapes
/// `scale: [1]` f32
///
/// # Panics
/// If lengths or types differ or a `step` is 0.
pub fn step(client: &Client, parameters: &[Parameter], scale: &Array) {
    assert_eq!((scale.len, scale.dtype), (1, Dtype::F32), "adamw: scale");
    for Parameter { value, gradient, m, v, settings } in parameters {
        for array in [value, gradient, m, v] {
            assert!(array.len == value.len && array.dtype == Dtype::F32, "adamw: lengths");
        }
        assert!(settings.step > 0, "adamw: the first update is number 1");
    }
    let alike =
        |a: &Parameter, b: &Parameter| a.value.len == b.value.len && a.settings == b.settings;
    // Four buffers a parameter, and the scale.
    let together = launch::arrays_together(client, 4, 1).min(TOGETHER);
    for group in launch::groups(parameters, alike, together) {
        step_together(client, &group, scale);
    }
}

/// One launch for parameters of one length with the same settings.
fn step_together(client: &Client, group: &[&Parameter], scale: &Array) {
    let (len, settings) = (group[0].value.len, group[0].settings);
    if len == 0 {
        return;
    }
    let Settings { lr, betas: [beta1, beta2], eps, weight_decay, step } = settings;
    // A power beyond i32 is 0 in f64 for every β below 1.
    let power = |beta: f64| beta.powi(i32::try_from(step).unwrap_or(i32::MAX));
    let vector = launch::vector_size(len);
    let (count, dim, each) = launch::elements_of_each(client, len / vector, group.len());
    // SAFETY: guarded by the number of vectors in each value, which the others share.
    unsafe {
        step_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            group.iter().map(|p| p.value.arg()).collect(),
            group.iter().map(|p| p.gradient.arg()).collect(),
            group.iter().map(|p| p.m.arg()).collect(),
            group.iter().map(|p| p.v.arg()).collect(),
            scale.arg(),
            (len / vector) as u32,
            each as u32,
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

/// Each parameter has `each` cubes, one unit updates one vector; each setting was rounded once, on the host.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "buffers and settings of a kernel")]
fn step_kernel<N: Size>(
    values: &mut Sequence<Box<[Vector<f32, N>]>>,
    gradients: &Sequence<Box<[Vector<f32, N>]>>,
    ms: &mut Sequence<Box<[Vector<f32, N>]>>,
    vs: &mut Sequence<Box<[Vector<f32, N>]>>,
    scale: &[f32],
    vectors: u32,
    each: u32,
    keep: f32,
    beta2: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    step_size: f32,
    inverse_root: f32,
    eps: f32,
) {
    let parameter = CUBE_POS as u32 / each;
    let i = ((CUBE_POS as u32 % each) * CUBE_DIM + UNIT_POS) as usize;
    let scale = scale[0];
    if i < vectors as usize && scale != 0.0f32 {
        #[unroll]
        for k in 0..values.len() {
            if parameter == k as u32 {
                let g = gradients[k][i] * Vector::new(scale);
                let m = ms.index_mut(k);
                let v = vs.index_mut(k);
                let value = values.index_mut(k);
                let first = m[i] + Vector::new(one_minus_beta1) * (g - m[i]);
                let second = Vector::new(beta2) * v[i] + Vector::new(one_minus_beta2) * g * g;
                let root = Vector::sqrt(second) * Vector::new(inverse_root) + Vector::new(eps);
                m[i] = first;
                v[i] = second;
                value[i] = value[i] * Vector::new(keep) - Vector::new(step_size) * (first / root);
            }
        }
    }
}
