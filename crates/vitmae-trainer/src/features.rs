//! The encoder's vectors of a whole set of images, prepared as for evaluation.

use vitmae_image::VitImageProcessor;
use vitmae_model::VitMaeModel;
use vitmae_tensor::{Tensor, TensorError};

use crate::data::Dataset;
use crate::evaluation::pixels_of;
use crate::{Team, TrainerError};

/// Which vector stands for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The CLS token.
    Cls,
    /// The mean of the patch tokens.
    Mean,
}

/// The vectors `[N, D]` of every image, without masking, `batch_size` at a time; `progress` is told how many are done. The processes
/// of `team` take batches in turn, and all get the result.
///
/// # Errors
/// [`TrainerError::EvaluationImage`] for an image that cannot be used, [`TrainerError::Model`], [`TrainerError::TeamLost`].
pub fn features(
    model: &VitMaeModel,
    dataset: &dyn Dataset,
    processor: &VitImageProcessor,
    pool: Pool,
    batch_size: usize,
    team: &Team,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<f32>, TrainerError> {
    let config = &model.config;
    let (height, width) = config.image_size;
    team.rows((dataset.len(), config.hidden_size), batch_size, |samples| {
        let shape = [samples.len(), config.num_channels, height, width];
        let mut pixels = Vec::new();
        for sample in samples.clone() {
            pixels.extend(pixels_of(dataset, sample, config, processor)?);
        }
        let pixels = Tensor::from_vec(model.device(), &shape, pixels)?;
        let rows = pooled(&model.encode(&pixels, false)?, pool)?;
        progress(samples.end);
        Ok(rows)
    })
}

/// The vectors of a batch of tokens `[B, 1 + L, D]`, one after the other.
///
/// # Errors
/// [`TensorError`] if values cannot be read from the device.
pub fn pooled(tokens: &Tensor, pool: Pool) -> Result<Vec<f32>, TensorError> {
    let (count, width) = (tokens.shape()[1], tokens.shape()[2]);
    let values = tokens.to_vec()?;
    let images = values.chunks_exact(count * width);
    Ok(match pool {
        Pool::Cls => images.flat_map(|image| image[..width].to_vec()).collect(),
        Pool::Mean => images
            .flat_map(|image| {
                let mut mean = vec![0.0f64; width];
                for token in image[width..].chunks_exact(width) {
                    mean.iter_mut().zip(token).for_each(|(mean, &x)| *mean += f64::from(x));
                }
                mean.into_iter().map(move |sum| (sum / (count - 1) as f64) as f32)
            })
            .collect(),
    })
}
