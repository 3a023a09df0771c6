//! One AdamW update of all parameters.

pub use vitmae_cpu::adamw::Settings as AdamW;

use crate::{Tensor, TensorError};

/// One parameter with what its update needs, all of one shape.
#[derive(Debug)]
pub struct AdamWParameter<'a> {
    /// p, updated in place.
    pub value: &'a mut Tensor,
    /// g
    pub gradient: &'a Tensor,
    /// First moment, updated in place.
    pub m: &'a mut Tensor,
    /// Second moment, updated in place.
    pub v: &'a mut Tensor,
    /// Learning rate and the rest; parameters differ in decay and, with layer-wise decay, in rate.
    pub settings: AdamW,
}

/// Updates every parameter from its `gradient · scale`; a `scale` of 0 leaves all as it is
/// ([`clip_scale`](super::clip_scale)). On a GPU parameters of one size share launches.
///
/// # Shapes
/// `scale: []`, the tensors of a parameter the same.
///
/// # Errors
/// [`TensorError::Shape`] if they are not, [`TensorError::Devices`] if they are not together; nothing is updated then.
///
/// Source: `torch.optim.AdamW`; arXiv:1711.05101.
pub fn adamw(parameters: &mut [AdamWParameter], scale: &Tensor) -> Result<(), TensorError> {
    scale.expect("adamw", "scale", &[])?;
    for AdamWParameter { value, gradient, m, v, .. } in &*parameters {
        gradient.expect("adamw", "gradient", value.shape())?;
        m.expect("adamw", "m", value.shape())?;
        v.expect("adamw", "v", value.shape())?;
        Tensor::expect_together("adamw", &[value, gradient, m, v, scale])?;
    }
    #[cfg(feature = "gpu")]
    if let Some(client) = scale.device().client() {
        use vitmae_kernels::adamw::{Parameter, Settings, step};
        let parameters = parameters.iter_mut().map(|parameter| {
            let AdamW { lr, betas, eps, weight_decay, step } = parameter.settings;
            Ok(Parameter {
                value: parameter.value.array_mut()?,
                gradient: parameter.gradient.array(),
                m: parameter.m.array_mut()?,
                v: parameter.v.array_mut()?,
                settings: Settings { lr, betas, eps, weight_decay, step },
            })
        });
        step(client, &parameters.collect::<Result<Vec<_>, TensorError>>()?, scale.array());
        return Ok(());
    }
    let scale = scale.as_slice()[0];
    for AdamWParameter { value, gradient, m, v, settings } in parameters {
        let (value, gradient) = (value.make_mut(), gradient.as_slice());
        vitmae_cpu::adamw::step(value, gradient, m.make_mut(), v.make_mut(), scale, settings);
    }
    Ok(())
}
