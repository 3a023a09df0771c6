//! Cross entropy of class scores.

use vitmae_cpu::cross_entropy as cpu;

use crate::{Tensor, TensorError};

/// Mean over the counted rows of `ln Σ exp(logit) − Σ t·logit`; rows labelled −100 do not count, and
/// with no counted row it is NaN, as in PyTorch.
///
/// # Shapes
/// `logits: [B, classes]`, `labels: [B]` in `0..classes` or −100; `smoothing` in [0, 1) → one value, `[]`
///
/// # Errors
/// [`TensorError::Length`] for another number of labels, [`TensorError::Index`] for a wrong one.
///
/// Source: `torch.nn.functional.cross_entropy`.
pub fn cross_entropy(
    logits: &Tensor,
    labels: &[i64],
    smoothing: f32,
) -> Result<Tensor, TensorError> {
    check("cross_entropy", logits, labels)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = logits.device().client() {
        let loss = Tensor::empty(logits.device(), &[])?;
        let logits = logits.array();
        vitmae_kernels::cross_entropy::forward(client, logits, labels, smoothing, loss.array());
        return Ok(loss);
    }
    let loss = cpu::forward(logits.as_slice(), labels, smoothing);
    Tensor::from_slice(logits.device(), &[], &[loss])
}

/// `dlogits` of `scale` times [`cross_entropy`].
///
/// # Errors
/// As [`cross_entropy`].
pub fn cross_entropy_backward(
    logits: &Tensor,
    labels: &[i64],
    smoothing: f32,
    scale: f32,
) -> Result<Tensor, TensorError> {
    check("cross_entropy_backward", logits, labels)?;
    #[cfg(feature = "gpu")]
    if let Some(client) = logits.device().client() {
        use vitmae_kernels::cross_entropy::backward;
        let dlogits = Tensor::empty(logits.device(), logits.shape())?;
        backward(client, logits.array(), labels, smoothing, scale, dlogits.array());
        return Ok(dlogits);
    }
    Tensor::written(logits.device(), logits.shape(), |dlogits| {
        cpu::backward(logits.as_slice(), labels, smoothing, scale, dlogits);
    })
}

fn check(op: &'static str, logits: &Tensor, labels: &[i64]) -> Result<(), TensorError> {
    let [batch, classes] = logits.dims(op, "logits")?;
    if labels.len() != batch {
        let (actual, expected) = (labels.len(), batch);
        return Err(TensorError::Length { shape: vec![batch], actual, expected });
    }
    let fits = |label: i64| label == -100 || usize::try_from(label).is_ok_and(|l| l < classes);
    match labels.iter().find(|&&label| !fits(label)) {
        Some(&label) => {
            let found = label.unsigned_abs();
            Err(TensorError::Index { op, tensor: "labels", found, limit: classes })
        }
        None => Ok(()),
    }
}
