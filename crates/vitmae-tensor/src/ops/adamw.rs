//! One AdamW update of one parameter.

pub use vitmae_cpu::adamw::Settings as AdamW;

use crate::{Tensor, TensorError};

/// Updates `value`, `m` and `v` in place from `gradient · scale`; a `scale` of 0 leaves all as it is
/// ([`clip_scale`](super::clip_scale)).
///
/// # Shapes
/// `scale: []`, all others the same.
///
/// # Errors
/// [`TensorError::Shape`] if they are not.
///
/// Source: `torch.optim.AdamW`; arXiv:1711.05101.
pub fn adamw(
    value: &mut Tensor,
    gradient: &Tensor,
    m: &mut Tensor,
    v: &mut Tensor,
    scale: &Tensor,
    settings: &AdamW,
) -> Result<(), TensorError> {
    gradient.expect("adamw", "gradient", value.shape())?;
    m.expect("adamw", "m", value.shape())?;
    v.expect("adamw", "v", value.shape())?;
    scale.expect("adamw", "scale", &[])?;
    Tensor::expect_together("adamw", &[value, gradient, m, v, scale])?;
    #[cfg(feature = "gpu")]
    if let Some(client) = gradient.device().client() {
        use vitmae_kernels::adamw::{Parameter, Settings, step};
        let AdamW { lr, betas, eps, weight_decay, step: number } = *settings;
        let settings = Settings { lr, betas, eps, weight_decay, step: number };
        let (value, m, v) = (value.array_mut()?, m.array_mut()?, v.array_mut()?);
        let parameter = Parameter { value, gradient: gradient.array(), m, v, settings };
        step(client, &[parameter], scale.array());
        return Ok(());
    }
    let (value, gradient) = (value.make_mut(), gradient.as_slice());
    let scale = scale.as_slice()[0];
    vitmae_cpu::adamw::step(value, gradient, m.make_mut(), v.make_mut(), scale, settings);
    Ok(())
}
