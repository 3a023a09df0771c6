//! Models from folders and back.

use std::collections::HashMap;
use std::path::Path;

use vitmae_layers::Param;
use vitmae_model::{
    Head, ModelError, VitForImageClassification, VitMaeConfig, VitMaeForPreTraining, VitMaeModel,
    init,
};
use vitmae_tensor::Device;

use crate::comparison::LoadOptions;
use crate::error::WeightsError;
use crate::layout::Layout;
use crate::loading::{LoadReport, Opened};
use crate::parameters::{ModelKind, ParameterShape};
use crate::saving::{SaveOptions, Saved, save};

/// The masked autoencoder of a folder or `.safetensors` file.
///
/// # Errors
/// [`WeightsError`], which names the file, the tensor, what was found and what is expected.
pub fn from_pretrained(
    path: &Path,
    device: &Device,
    options: &LoadOptions,
) -> Result<(VitMaeForPreTraining, LoadReport), WeightsError> {
    let make = |config| VitMaeForPreTraining::build(config, device, &mut zeros);
    load(path, ModelKind::PreTraining, options, make, VitMaeForPreTraining::parameters_mut)
}

/// The encoder of a folder or `.safetensors` file.
///
/// # Errors
/// As [`from_pretrained`].
pub fn encoder_from_pretrained(
    path: &Path,
    device: &Device,
    options: &LoadOptions,
) -> Result<(VitMaeModel, LoadReport), WeightsError> {
    let make = |config| VitMaeModel::build(config, device, &mut zeros);
    load(path, ModelKind::Encoder, options, make, VitMaeModel::parameters_mut)
}

/// The classifier of a folder or `.safetensors` file.
///
/// # Errors
/// As [`from_pretrained`].
pub fn classifier_from_pretrained(
    path: &Path,
    head: Head,
    device: &Device,
    options: &LoadOptions,
) -> Result<(VitForImageClassification, LoadReport), WeightsError> {
    let kind = match head {
        Head::Cls => ModelKind::Classifier,
        Head::MeanFcNorm => ModelKind::MeanClassifier,
    };
    let make = |config| VitForImageClassification::build(config, head, device, &mut zeros);
    load(path, kind, options, make, VitForImageClassification::parameters_mut)
}

/// Values that the file's replace.
fn zeros(_name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
    Ok(vec![0.0; shape.iter().product()])
}

fn load<M>(
    path: &Path,
    kind: ModelKind,
    options: &LoadOptions,
    make: impl FnOnce(VitMaeConfig) -> Result<M, ModelError>,
    parameters_mut: impl FnOnce(&mut M) -> Vec<&mut Param>,
) -> Result<(M, LoadReport), WeightsError> {
    let opened = Opened::open(path, kind, options)?;
    let config = opened.config.clone();
    let mut model = make(config.clone())?;
    let mut waiting: HashMap<String, &mut Param> =
        parameters_mut(&mut model).into_iter().map(|param| (param.name.clone(), param)).collect();
    let report = opened.read(|parameter, values| {
        if let Some(param) = waiting.remove(&parameter.name) {
            param.set(&values).map_err(ModelError::from)?;
        }
        Ok(())
    })?;
    for (name, param) in waiting {
        let first = init::values(&config, options.seed, &name, param.value.shape());
        param.set(&first).map_err(ModelError::from)?;
    }
    Ok((model, report))
}

/// A model that can be written to a folder.
pub trait Pretrained {
    /// Its configuration, as written.
    fn config(&self) -> VitMaeConfig;
    /// Its parameters.
    fn parameters(&self) -> Vec<&Param>;
    /// Hugging Face's name of its class.
    const CLASS: &'static str;
    /// The layout its tensors are written in.
    const LAYOUT: Layout;
}

impl Pretrained for VitMaeForPreTraining {
    fn config(&self) -> VitMaeConfig {
        self.config.clone()
    }
    fn parameters(&self) -> Vec<&Param> {
        self.parameters()
    }
    const CLASS: &'static str = "ViTMAEForPreTraining";
    const LAYOUT: Layout = Layout::HuggingFace;
}

impl Pretrained for VitMaeModel {
    fn config(&self) -> VitMaeConfig {
        self.config.clone()
    }
    fn parameters(&self) -> Vec<&Param> {
        self.parameters()
    }
    const CLASS: &'static str = "ViTMAEModel";
    const LAYOUT: Layout = Layout::HuggingFaceEncoder;
}

impl Pretrained for VitForImageClassification {
    fn config(&self) -> VitMaeConfig {
        VitMaeConfig { model_type: "vit".to_string(), ..self.config.clone() }
    }
    fn parameters(&self) -> Vec<&Param> {
        self.parameters()
    }
    const CLASS: &'static str = "ViTForImageClassification";
    const LAYOUT: Layout = Layout::HuggingFace;
}

/// Writes `config.json` and `model.safetensors` in f32, each atomically, making the folder if needed.
///
/// # Errors
/// [`WeightsError::Io`]; what was there before stays as it was.
pub fn save_pretrained(model: &impl Pretrained, folder: &Path) -> Result<(), WeightsError> {
    save_pretrained_with(model, folder, &SaveOptions::default())
}

/// As [`save_pretrained`], with another element type or more metadata.
///
/// # Errors
/// As [`save_pretrained`].
pub fn save_pretrained_with<M: Pretrained>(
    model: &M,
    folder: &Path,
    options: &SaveOptions,
) -> Result<(), WeightsError> {
    let (config, params) = (model.config(), model.parameters());
    let shape = |param: &&Param| ParameterShape {
        name: param.name.clone(),
        shape: param.value.shape().to_vec(),
    };
    let parameters: Vec<ParameterShape> = params.iter().map(shape).collect();
    let (class, layout) = (M::CLASS, M::LAYOUT);
    let saved = Saved { config: &config, class, layout, parameters: &parameters };
    save(folder, &saved, options, |index| {
        Ok(params[index].value.to_vec().map_err(ModelError::from)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::expected_parameters;

    fn tiny() -> VitMaeConfig {
        let mut config = VitMaeConfig {
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 12,
            decoder_hidden_size: 4,
            decoder_num_hidden_layers: 1,
            decoder_num_attention_heads: 1,
            decoder_intermediate_size: 6,
            image_size: (8, 12),
            patch_size: (4, 4),
            num_channels: 1,
            ..VitMaeConfig::default()
        };
        config.extra.insert("num_labels".into(), 3.into());
        config
    }

    fn same(a: &[&Param], b: &[&Param]) {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            assert_eq!((&a.name, a.value.to_vec().unwrap()), (&b.name, b.value.to_vec().unwrap()));
            assert_eq!(a.trainable, b.trainable, "{}", a.name);
        }
    }

    #[test]
    fn every_model_comes_back_bit_for_bit() {
        let (folder, device) = (tempfile::tempdir().unwrap(), Device::cpu());
        let (path, options) = (folder.path(), LoadOptions::default());
        let model = VitMaeForPreTraining::new(tiny(), &device, 1).unwrap();
        save_pretrained(&model, path).unwrap();
        let (loaded, report) = from_pretrained(path, &device, &options).unwrap();
        same(&loaded.parameters(), &model.parameters());
        assert!(report.missing.is_empty() && report.zero_position_tables.is_empty());

        save_pretrained(&model.vit, path).unwrap();
        let (loaded, _) = encoder_from_pretrained(path, &device, &options).unwrap();
        same(&loaded.parameters(), &model.vit.parameters());

        for head in [Head::Cls, Head::MeanFcNorm] {
            let model = VitForImageClassification::new(tiny(), head, &device, 2).unwrap();
            save_pretrained(&model, path).unwrap();
            let (loaded, _) = classifier_from_pretrained(path, head, &device, &options).unwrap();
            same(&loaded.parameters(), &model.parameters());
            assert_eq!(loaded.config.model_type, "vit");
        }
    }

    #[test]
    fn what_may_be_missing_gets_the_first_values_of_its_seed() {
        let (folder, device) = (tempfile::tempdir().unwrap(), Device::cpu());
        let model = VitMaeForPreTraining::new(tiny(), &device, 1).unwrap();
        save_pretrained(&model.vit, folder.path()).unwrap();
        let allow_missing = vec!["decoder.*".to_string()];
        let options = LoadOptions { allow_missing, seed: 7, ..LoadOptions::default() };
        let (loaded, report) = from_pretrained(folder.path(), &device, &options).unwrap();
        assert_eq!(report.missing.len(), 24);
        same(&loaded.vit.parameters(), &model.vit.parameters());
        let other = VitMaeForPreTraining::new(tiny(), &device, 7).unwrap();
        same(&loaded.decoder.parameters(), &other.decoder.parameters());
    }

    #[test]
    fn a_masked_autoencoder_becomes_a_classifier_and_the_report_names_every_difference() {
        let (folder, device) = (tempfile::tempdir().unwrap(), Device::cpu());
        let model = VitMaeForPreTraining::new(tiny(), &device, 1).unwrap();
        save_pretrained(&model, folder.path()).unwrap();
        let block = "decoder.decoder_layers.0";
        let mut decoder: Vec<String> = [
            "attention.attention.key",
            "attention.attention.query",
            "attention.attention.value",
            "attention.output.dense",
            "intermediate.dense",
            "layernorm_after",
            "layernorm_before",
            "output.dense",
        ]
        .iter()
        .flat_map(|part| ["bias", "weight"].map(|kind| format!("{block}.{part}.{kind}")))
        .collect();
        for part in ["decoder_embed", "decoder_norm", "decoder_pred"] {
            decoder.extend(["bias", "weight"].map(|kind| format!("decoder.{part}.{kind}")));
        }
        decoder.extend(["decoder.decoder_pos_embed", "decoder.mask_token"].map(str::to_owned));
        decoder.sort();

        let cls = ["classifier.weight", "classifier.bias"];
        let mean = ["fc_norm.weight", "fc_norm.bias", "classifier.weight", "classifier.bias"];
        let norm = ["vit.layernorm.bias", "vit.layernorm.weight"];
        for (head, new, dropped) in
            [(Head::Cls, &cls[..], &[][..]), (Head::MeanFcNorm, &mean, &norm)]
        {
            let options = LoadOptions { seed: 3, ..LoadOptions::for_fine_tuning() };
            let (loaded, report) =
                classifier_from_pretrained(folder.path(), head, &device, &options).unwrap();
            assert_eq!(report.missing, new);
            let mut unexpected = report.unexpected.clone();
            unexpected.sort();
            let expected: Vec<String> =
                decoder.iter().cloned().chain(dropped.iter().map(|s| s.to_string())).collect();
            assert_eq!(unexpected, expected);
            // The encoder is the file's, its table now trained; the head is that of a new model.
            let start = loaded.vit.cls_token.value.to_vec().unwrap();
            assert_eq!(start, model.vit.cls_token.value.to_vec().unwrap());
            let table = &loaded.vit.position_embeddings;
            assert!(table.trainable);
            assert_eq!(
                table.value.to_vec().unwrap(),
                model.vit.position_embeddings.value.to_vec().unwrap()
            );
            let other = VitForImageClassification::new(tiny(), head, &device, 3).unwrap();
            same(&loaded.classifier.parameters(), &other.classifier.parameters());

            let error =
                classifier_from_pretrained(folder.path(), head, &device, &Default::default());
            let counts = format!("{} missing, {} unexpected", new.len(), expected.len());
            let error = error.unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains(&counts), "{cause}");
        }
    }

    #[test]
    fn the_models_have_the_parameters_that_files_are_compared_with() {
        let device = Device::cpu();
        let check = |params: Vec<&Param>, kind| {
            let expected = expected_parameters(&tiny(), kind);
            let found: Vec<_> =
                params.iter().map(|p| (p.name.clone(), p.value.shape().to_vec())).collect();
            let expected: Vec<_> = expected.into_iter().map(|p| (p.name, p.shape)).collect();
            assert_eq!(found, expected);
        };
        let model = VitMaeForPreTraining::new(tiny(), &device, 1).unwrap();
        check(model.parameters(), ModelKind::PreTraining);
        check(model.vit.parameters(), ModelKind::Encoder);
        for (head, kind) in
            [(Head::Cls, ModelKind::Classifier), (Head::MeanFcNorm, ModelKind::MeanClassifier)]
        {
            let model = VitForImageClassification::new(tiny(), head, &device, 2).unwrap();
            check(model.parameters(), kind);
        }
    }
}
