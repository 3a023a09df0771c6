//! What `--model` names, and the images that go into the model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vitmae_image::{Image, Limits, Size, VitImageProcessor, decode};
use vitmae_model::VitMaeConfig;
use vitmae_trainer::{RunConfig, checkpoint};
use vitmae_weights::ModelFolder;
use vitmae_weights::folder::WEIGHTS_FILE;

use crate::exit::BadInput;

/// The model folder or file that `path` means: itself, the newest good checkpoint inside it, or, where nothing of
/// this path exists, the model `ORG/NAME` or `ORG/NAME@REVISION` of the Hugging Face hub.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    if let Some((id, revision)) = hub_name(path).filter(|_| !path.exists()) {
        return from_hub(id, revision);
    }
    if path.is_dir() && !path.join(WEIGHTS_FILE).exists() {
        let (found, skipped) = checkpoint::newest(path)?;
        if let Some(found) = found {
            return Ok(found.folder);
        }
        if let Some(newest) = skipped.into_iter().next() {
            let what = format!("no checkpoint in `{}` can be used", path.display());
            return Err(anyhow::Error::new(BadInput(newest.flaw.to_string())).context(what));
        }
    }
    Ok(path.to_path_buf())
}

/// `ORG/NAME` and the revision behind an `@`, if `path` can be such a name.
fn hub_name(path: &Path) -> Option<(&str, Option<&str>)> {
    let text = path.to_str()?;
    let (id, revision) = match text.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (text, None),
    };
    let (owner, name) = id.split_once('/')?;
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('/');
    (plain(owner) && plain(name) && path.extension().is_none()).then_some((id, revision))
}

#[cfg(feature = "hub")]
fn from_hub(id: &str, revision: Option<&str>) -> Result<PathBuf> {
    Ok(vitmae_weights::Hub::from_environment().model(id, revision)?)
}

#[cfg(not(feature = "hub"))]
fn from_hub(id: &str, _revision: Option<&str>) -> Result<PathBuf> {
    let message = format!(
        "there is no folder `{id}`, and this build does not fetch models\nhelp: build with `--features hub` to take \
         `{id}` from the Hugging Face hub, or name a folder"
    );
    Err(BadInput(message).into())
}

/// The image processor beside the weights, for images of the model's size.
///
/// Without a `preprocessor_config.json`, that of training is taken.
pub fn processor(path: &Path, config: &VitMaeConfig) -> Result<VitImageProcessor> {
    let text = ModelFolder::find(path)?.read_preprocessor_text()?;
    let found = text.map(|text| VitImageProcessor::from_json(&text)).transpose();
    let found = found.context("`preprocessor_config.json` cannot be used")?;
    let processor =
        found.unwrap_or_else(|| RunConfig::new(config.clone(), PathBuf::new()).processor);
    let (height, width) = config.image_size;
    Ok(VitImageProcessor { do_resize: true, size: Size::Exact { height, width }, ..processor })
}

/// Reads an image and makes the model's pixels of it, `[C, H, W]`.
pub fn pixels(
    path: &Path,
    config: &VitMaeConfig,
    processor: &VitImageProcessor,
) -> Result<Vec<f32>> {
    let image = decode(path, &Limits::default())?;
    let wrong = || format!("`{}` cannot be used", path.display());
    let image = fit_channels(image, config.num_channels);
    let pixels = processor.preprocess(&image).with_context(wrong)?;
    let (height, width) = config.image_size;
    let found = pixels.len() / (height * width);
    if found != config.num_channels {
        let message = format!("it has {found} channels, the model expects {}", config.num_channels);
        return Err(anyhow::Error::new(BadInput(message)).context(wrong()));
    }
    Ok(pixels)
}

/// Grey and transparent images as RGB where the model wants three channels.
fn fit_channels(image: Image, channels: usize) -> Image {
    if channels == 3 && image.channels != 3 { image.to_rgb() } else { image }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_hub_are_told_from_paths() {
        let name = |text: &'static str| hub_name(Path::new(text));
        assert_eq!(name("facebook/vit-mae-base"), Some(("facebook/vit-mae-base", None)));
        assert_eq!(name("facebook/vit-mae-base@v1"), Some(("facebook/vit-mae-base", Some("v1"))));
        for path in ["run", "/run/a", "./run/a", "../a", "a/b/c", "run/", "a/model.safetensors"] {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
