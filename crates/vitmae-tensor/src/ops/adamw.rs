//! One AdamW update of one parameter.

pub use vitmae_cpu::adamw::Settings as AdamW;

use crate::{Tensor, TensorError};

/// Updates `value`, `m` and `v` in place from `gradient · settings.gradient_scale`.
///
/// # Shapes
/// All the same.
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
    settings: &AdamW,
) -> Result<(), TensorError> {
    gradient.expect("adamw", "gradient", value.shape())?;
    m.expect("adamw", "m", value.shape())?;
    v.expect("adamw", "v", value.shape())?;
    Tensor::expect_together("adamw", &[value, gradient, m, v])?;
    #[cfg(feature = "gpu")]
    if let Some(client) = gradient.device().client() {
        use vitmae_kernels::adamw::{Parameter, Settings, step};
        let AdamW { lr, betas, eps, weight_decay, step: number, gradient_scale } = *settings;
        let settings = Settings { lr, betas, eps, weight_decay, step: number, gradient_scale };
        let (value, m, v) = (value.array_mut()?, m.array_mut()?, v.array_mut()?);
        step(client, &[Parameter { value, gradient: gradient.array(), m, v, settings }]);
        return Ok(());
    }
    let (value, gradient) = (value.make_mut(), gradient.as_slice());
    vitmae_cpu::adamw::step(value, gradient, m.make_mut(), v.make_mut(), settings);
    Ok(())
}
