//! The masked autoencoder at full size, with weights and inputs by formula.

use anyhow::{Context, Result};
use vitmae_model::{Masking, ModelError, VitMaeConfig, VitMaeForPreTraining};
use vitmae_tensor::{Device, Tensor};
use vitmae_testing::cases::{Case, formula};
use vitmae_weights::Layout;

use super::{Outputs, options};

/// Patches, tokens and values of the stored corner.
const ROWS: usize = 4;
const COLUMNS: usize = 8;

pub(super) fn run(case: &Case, device: &Device, batch: usize) -> Result<Outputs> {
    let path = case.config_path();
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let config = VitMaeConfig::from_json(&text)?;
    let grid = config.grid();
    let mut values = |name: &str, shape: &[usize]| -> Result<Vec<f32>, ModelError> {
        let stored = Layout::HuggingFace.stored(name).unwrap_or_default();
        let mut shape = shape.to_vec();
        shape[0] /= stored.len().max(1);
        Ok(stored.iter().flat_map(|name| formula::weight(name, &shape, grid)).collect())
    };
    let model = VitMaeForPreTraining::build(config.clone(), device, &mut values)?;

    let (height, width) = config.image_size;
    let shape = [batch, config.num_channels, height, width];
    let pixels = Tensor::from_vec(device, &shape, formula::pixel_values(&shape))?;
    let patches = config.num_patches();
    let noise: Vec<f64> = formula::noise(&[batch, patches]).into_iter().map(f64::from).collect();
    let masking = Masking::from_noise(&noise, batch, patches, config.mask_ratio)?;
    // Hidden states and attentions of a large model are not compared and would fill the memory.
    let mut options = options(case);
    (options.output_hidden_states, options.output_attentions) = (false, false);
    let output = model.forward(&pixels, &masking, &options)?;

    let mut outputs = Outputs::default();
    if let Some(loss) = output.loss {
        outputs.put_f32("loss", &[], vec![loss]);
    }
    outputs.put_f32("logits_slice", &[batch, ROWS, COLUMNS], corner(&output.logits)?);
    let hidden = corner(&output.last_hidden_state)?;
    outputs.put_f32("hidden_slice", &[batch, ROWS, COLUMNS], hidden);
    Ok(outputs)
}

/// `x[:, :4, :8]` of `[B, N, D]`.
fn corner(x: &Tensor) -> Result<Vec<f32>> {
    let &[_, rows, width] = x.shape() else { return Ok(Vec::new()) };
    let values = x.to_vec()?;
    let images = values.chunks_exact(rows * width);
    let rows = images.flat_map(|image| image.chunks_exact(width).take(ROWS));
    Ok(rows.flat_map(|row| row[..COLUMNS.min(width)].to_vec()).collect())
}
