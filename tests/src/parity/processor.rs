//! The image processor.

use anyhow::{Context, Result};
use vitmae_image::{Limits, VitImageProcessor, decode};
use vitmae_testing::cases::Case;

use super::Outputs;

pub(super) fn run(case: &Case, image: &str) -> Result<Outputs> {
    let processor = match case.preprocessor_path() {
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read `{}`", path.display()))?;
            VitImageProcessor::from_json(&text)?
        }
        None => VitImageProcessor::default(),
    };
    let image = decode(&case.folder.join(image), &Limits::default())?;
    let pixels = processor.preprocess(&image)?;
    let expected = case.tensors.get("expected.pixel_values")?;
    let mut outputs = Outputs::default();
    // The size is the processor's business: its pixels must fill the expected shape exactly.
    let shape = match expected.shape.as_slice() {
        shape if shape.iter().product::<usize>() == pixels.len() => shape.to_vec(),
        _ => vec![pixels.len()],
    };
    outputs.put_f32("pixel_values", &shape, pixels);
    Ok(outputs)
}
