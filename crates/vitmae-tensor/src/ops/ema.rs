//! The exponential moving average of parameters.

use crate::{Tensor, TensorError};

/// One parameter and its average, of one shape.
#[derive(Debug)]
pub struct EmaParameter<'a> {
    /// Updated in place.
    pub average: &'a mut Tensor,
    /// The parameter.
    pub value: &'a Tensor,
}

/// Moves every average towards its parameter: `a ← decay · a + (1 − decay) · w`; a `scale` of 0 leaves all as it is
/// ([`clip_scale`](super::clip_scale)), any other is no factor. On a GPU parameters of one size share launches.
///
/// # Shapes
/// `scale: []`, the tensors of a parameter the same.
///
/// # Errors
/// [`TensorError::Shape`] if they are not, [`TensorError::Devices`] if they are not together; nothing is updated then.
pub fn ema(parameters: &mut [EmaParameter], scale: &Tensor, decay: f64) -> Result<(), TensorError> {
    scale.expect("ema", "scale", &[])?;
    for EmaParameter { average, value } in &*parameters {
        average.expect("ema", "average", value.shape())?;
        Tensor::expect_together("ema", &[average, value, scale])?;
    }
    #[cfg(feature = "gpu")]
    if let Some(client) = scale.device().client() {
        use vitmae_kernels::ema::{Parameter, step};
        let parameters = parameters.iter_mut().map(|EmaParameter { average, value }| {
            Ok(Parameter { average: average.array_mut()?, value: value.array() })
        });
        let parameters = parameters.collect::<Result<Vec<_>, TensorError>>()?;
        step(client, &parameters, scale.array(), decay);
        return Ok(());
    }
    let scale = scale.as_slice()[0];
    for EmaParameter { average, value } in parameters {
        vitmae_cpu::ema::step(average.make_mut(), value.as_slice(), scale, decay);
    }
    Ok(())
}
