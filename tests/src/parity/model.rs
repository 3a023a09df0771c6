//! The masked autoencoder and the bare encoder.

use anyhow::{Context, Result, bail};
use vitmae_layers::Param;
use vitmae_model::{TrainOptions, VitMaeForPreTraining};
use vitmae_tensor::Device;
use vitmae_testing::cases::{Case, Layout};
use vitmae_weights::{Layout as Found, LoadOptions, encoder_from_pretrained, from_pretrained};

use super::{Outputs, loss_shape, masking_of, options, pixels, put_by_stored_names};

pub(super) fn pretraining(case: &Case, device: &Device) -> Result<Outputs> {
    let (model, ratio) = load(case, device)?;
    forward(case, device, &model, ratio)
}

pub(super) fn gradients(case: &Case, device: &Device) -> Result<Outputs> {
    let (mut model, ratio) = load(case, device)?;
    let mut outputs = forward(case, device, &model, ratio)?;
    let masking = masking_of(case, ratio)?;
    let options =
        TrainOptions { forward: options(case), dropout: false, ..TrainOptions::default() };
    let loss = model.forward_backward(&pixels(case, device)?, &masking, &options)?;
    // The loss of the training pass counts; the forward pass gave the rest.
    outputs.put_f32("loss", loss_shape(case), vec![loss.item()?]);
    put_gradients(&mut outputs, &model.parameters())?;
    Ok(outputs)
}

pub(super) fn encoder(case: &Case, device: &Device) -> Result<Outputs> {
    let path = weights(case)?;
    // A whole model's file gives its encoder; anything else that is too much is an error.
    let allow_unexpected = vec!["decoder.*".to_owned()];
    let load = LoadOptions { allow_unexpected, ..LoadOptions::default() };
    let (model, _) = encoder_from_pretrained(&path, device, &load)?;
    let masking = masking_of(case, model.config.mask_ratio)?;
    let output = model.forward(&pixels(case, device)?, &masking, &options(case))?;
    let mut outputs = Outputs::default();
    outputs.put("last_hidden_state", &output.last_hidden_state)?;
    outputs.put_masking(&masking);
    outputs.put_all("hidden_states", output.hidden_states)?;
    outputs.put_all("attentions", output.attentions)?;
    Ok(outputs)
}

/// The model of a case, and the ratio its config asks for.
///
/// A config with ratio 1 is refused by the product, which takes that ratio in a call only; so such a case
/// is loaded from a copy of its folder with another ratio.
pub(super) fn load(case: &Case, device: &Device) -> Result<(VitMaeForPreTraining, f64)> {
    let weights = weights(case)?;
    let options = LoadOptions::default();
    let text = std::fs::read_to_string(case.config_path())?;
    let mut config: serde_json::Value = serde_json::from_str(&text)?;
    if config["mask_ratio"].as_f64() != Some(1.0) {
        let model = from_pretrained(&weights, device, &options)?.0;
        let ratio = model.config.mask_ratio;
        return Ok((model, ratio));
    }
    let folder = tempfile::tempdir()?;
    config["mask_ratio"] = 0.5.into();
    std::fs::write(folder.path().join("config.json"), config.to_string())?;
    let copy = folder.path().join("model.safetensors");
    std::fs::copy(&weights, &copy)?;
    Ok((from_pretrained(&copy, device, &options)?.0, 1.0))
}

/// The weights file. Its layout is told by its contents, and `case.json` has to say the same.
pub(super) fn weights(case: &Case) -> Result<std::path::PathBuf> {
    let path = case.weights_path().context("it names no weights")?;
    let found = vitmae_weights::inspect(&path)?.layout;
    let fits = |layout| match layout {
        Layout::Hf | Layout::Bin => matches!(
            found,
            Some(Found::HuggingFace | Found::HuggingFaceEncoder | Found::Transformers5State)
        ),
        Layout::HfBare => found == Some(Found::HuggingFaceEncoder),
        Layout::Hf5 => found == Some(Found::Transformers5Saved),
        Layout::Hf5Memory => {
            matches!(found, Some(Found::Transformers5State | Found::Transformers5Encoder))
        }
        Layout::Fb => found == Some(Found::Original),
        Layout::TfH5 | Layout::TfSafetensors => found == Some(Found::TensorFlow),
    };
    match case.layout {
        Some(layout) if fits(layout) => Ok(path),
        layout => bail!("case.json says layout {layout:?}, the file is of {found:?}"),
    }
}

/// Everything the model returns.
fn forward(
    case: &Case,
    device: &Device,
    model: &VitMaeForPreTraining,
    ratio: f64,
) -> Result<Outputs> {
    let masking = masking_of(case, ratio)?;
    let output = model.forward(&pixels(case, device)?, &masking, &options(case))?;
    let mut outputs = Outputs::default();
    if let Some(loss) = output.loss {
        outputs.put_f32("loss", loss_shape(case), vec![loss]);
    }
    outputs.put("logits", &output.logits)?;
    outputs.put("last_hidden_state", &output.last_hidden_state)?;
    outputs.put_masking(&masking);
    outputs.put_all("hidden_states", output.hidden_states)?;
    outputs.put_all("attentions", output.attentions)?;
    Ok(outputs)
}

/// The gradient of every trainable parameter.
pub(super) fn put_gradients(outputs: &mut Outputs, parameters: &[&Param]) -> Result<()> {
    let trained = parameters.iter().filter(|param| param.trainable);
    let gradients = trained.filter_map(|param| Some((param.name.as_str(), param.grad.as_ref()?)));
    put_by_stored_names(outputs, "grad", gradients)
}
