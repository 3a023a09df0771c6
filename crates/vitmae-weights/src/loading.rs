//! From a file that was found to the values of each parameter, whatever model they go into.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vitmae_model::VitMaeConfig;

use crate::comparison::{Fit, LoadOptions, compare, part_shape};
use crate::dtype::Dtype;
use crate::error::WeightsError;
use crate::folder::ModelFolder;
use crate::inferred::config_of_weights;
use crate::layout::Layout;
use crate::order::Order;
use crate::parameters::{ModelKind, ParameterShape, expected_parameters};
use crate::safetensors_header::TensorInfo;
use crate::weights_file::WeightsFile;

/// What was loaded, and what is remarkable about it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadReport {
    /// The weights file.
    pub path: PathBuf,
    /// The layout of its names.
    pub layout: Layout,
    /// The text pairs of its header.
    pub metadata: BTreeMap<String, String>,
    /// Tensors read, by the element type they are stored in.
    pub dtypes: BTreeMap<Dtype, usize>,
    /// Tensors that were allowed to be absent; their parameters are as in a new model.
    pub missing: Vec<String>,
    /// Tensors that were allowed to be left out.
    pub unexpected: Vec<String>,
    /// Values that are not a number.
    pub nan: u64,
    /// Values that are infinite.
    pub infinite: u64,
    /// Parameters that hold such values.
    pub non_finite: Vec<String>,
    /// Position tables that are zero throughout, as a known fault of transformers leaves them:
    /// a model with one predicts the same for every removed patch.
    pub zero_position_tables: Vec<String>,
}

/// A file whose names and shapes fit its configuration; no data read yet.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) config: VitMaeConfig,
    pub(crate) file: WeightsFile,
    pub(crate) layout: Layout,
    pub(crate) fit: Fit,
}

impl Opened {
    /// Opens the model at `path` and compares it with what its configuration asks for.
    pub(crate) fn open(
        path: &Path,
        kind: ModelKind,
        options: &LoadOptions,
    ) -> Result<Opened, WeightsError> {
        Self::open_as(path, |_, _| kind, options)
    }

    /// [`Opened::open`] as the model to which the tensors belong.
    pub(crate) fn open_any(
        path: &Path,
        options: &LoadOptions,
    ) -> Result<(Opened, ModelKind), WeightsError> {
        let mut found = ModelKind::Encoder;
        let kind = |layout: Layout, tensors: &[TensorInfo]| {
            let names = tensors.iter().filter_map(|tensor| layout.internal(&tensor.name));
            let names: Vec<String> = names.map(|(name, _)| name).collect();
            found = ModelKind::of(names.iter().map(String::as_str));
            found
        };
        Ok((Self::open_as(path, kind, options)?, found))
    }

    fn open_as(
        path: &Path,
        kind: impl FnOnce(Layout, &[TensorInfo]) -> ModelKind,
        options: &LoadOptions,
    ) -> Result<Opened, WeightsError> {
        let folder = ModelFolder::find(path)?;
        let file = WeightsFile::open(&folder.weights)?;
        let names = file.tensors().iter().map(|tensor| tensor.name.as_str());
        let layout = Layout::detect(names).map_err(|error| error.in_file(&folder.weights))?;
        let config = match folder.read_config() {
            Err(WeightsError::NotInFolder { .. }) => config_of_weights(layout, &file, options)
                .map_err(|error| error.in_file(&folder.weights))?,
            other => other?,
        };
        let expected = expected_parameters(&config, kind(layout, file.tensors()));
        let fit = compare(layout, file.tensors(), &config, &expected, options)
            .map_err(|mismatch| WeightsError::Mismatch(mismatch).in_file(&folder.weights))?;
        Ok(Opened { config, file, layout, fit })
    }

    /// Reads every parameter and hands it to `put`, in the model's order.
    pub(crate) fn read(
        mut self,
        mut put: impl FnMut(&ParameterShape, Vec<f32>) -> Result<(), WeightsError>,
    ) -> Result<LoadReport, WeightsError> {
        let mut report = LoadReport {
            path: self.file.path().to_path_buf(),
            layout: self.layout,
            metadata: self.file.metadata().clone(),
            dtypes: BTreeMap::new(),
            missing: std::mem::take(&mut self.fit.missing),
            unexpected: std::mem::take(&mut self.fit.unexpected),
            nan: 0,
            infinite: 0,
            non_finite: Vec::new(),
            zero_position_tables: Vec::new(),
        };
        for index in 0..self.fit.found.len() {
            let values = self.values(index)?;
            let found = &self.fit.found[index];
            for tensor in found.parts.iter().filter_map(|part| self.file.get(part)) {
                *report.dtypes.entry(tensor.dtype).or_default() += 1;
            }
            report.look_at(&found.parameter.name, &values);
            put(&found.parameter, values)?;
        }
        Ok(report)
    }

    /// The values of the parameter `index` among those found, in our order.
    pub(crate) fn values(&mut self, index: usize) -> Result<Vec<f32>, WeightsError> {
        let found = &self.fit.found[index];
        values_of(&mut self.file, self.layout, &found.parameter.shape, &found.parts)
    }
}

/// The values of a parameter of this shape that `file` holds as `parts`, in our order.
pub(crate) fn values_of(
    file: &mut WeightsFile,
    layout: Layout,
    shape: &[usize],
    parts: &[String],
) -> Result<Vec<f32>, WeightsError> {
    let shape = part_shape(shape, parts.len());
    let mut values = Vec::new();
    for part in parts {
        match layout.order(part) {
            Order::Same => file.append_f32(part, &mut values)?,
            order => values.extend(order.to_ours(file.read_f32(part)?, &shape)),
        }
    }
    Ok(values)
}

impl LoadReport {
    fn look_at(&mut self, name: &str, values: &[f32]) {
        let nan = values.iter().filter(|value| value.is_nan()).count() as u64;
        let infinite = values.iter().filter(|value| value.is_infinite()).count() as u64;
        if nan + infinite > 0 {
            self.nan += nan;
            self.infinite += infinite;
            self.non_finite.push(name.to_string());
        }
        if name.ends_with(".position_embeddings") && values.iter().all(|&value| value == 0.0) {
            self.zero_position_tables.push(name.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::error::Error;
    use std::fs;

    use super::*;
    use crate::saving::{SaveOptions, Saved, save};

    fn tiny() -> VitMaeConfig {
        let text = r#"{
            "model_type": "vit_mae", "hidden_size": 8, "num_hidden_layers": 2,
            "num_attention_heads": 2, "intermediate_size": 12, "image_size": [8, 12],
            "patch_size": 4, "num_channels": 1, "decoder_hidden_size": 4,
            "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 1,
            "decoder_intermediate_size": 6, "transformers_version": "4.57.6", "zebra": {"x": [1]}
        }"#;
        VitMaeConfig::from_json(text).unwrap()
    }

    /// Values that tell every number of every parameter apart.
    fn values(index: usize, shape: &[usize]) -> Vec<f32> {
        (0..shape.iter().product()).map(|i: usize| (index * 10_000 + i) as f32 * 0.37).collect()
    }

    fn store(folder: &Path, layout: Layout, kind: ModelKind, options: &SaveOptions) {
        let config = tiny();
        let parameters = expected_parameters(&config, kind);
        let class = "ViTMAEForPreTraining";
        let model = Saved { config: &config, class, layout, parameters: &parameters };
        save(folder, &model, options, |i| Ok(values(i, &parameters[i].shape))).unwrap();
    }

    fn load(
        path: &Path,
        kind: ModelKind,
        options: &LoadOptions,
    ) -> Result<(HashMap<String, Vec<f32>>, LoadReport), WeightsError> {
        let mut loaded = HashMap::new();
        let report = Opened::open(path, kind, options)?.read(|parameter, values| {
            assert_eq!(values.len(), parameter.shape.iter().product::<usize>());
            assert_eq!(loaded.insert(parameter.name.clone(), values), None);
            Ok(())
        })?;
        Ok((loaded, report))
    }

    #[test]
    fn what_is_saved_is_loaded_bit_for_bit_in_every_layout() {
        for (layout, kind) in [
            (Layout::HuggingFace, ModelKind::PreTraining),
            (Layout::HuggingFace, ModelKind::Classifier),
            (Layout::HuggingFaceEncoder, ModelKind::Encoder),
            (Layout::Transformers5State, ModelKind::PreTraining),
            (Layout::Transformers5Encoder, ModelKind::Encoder),
            (Layout::Transformers5Saved, ModelKind::PreTraining),
            (Layout::Original, ModelKind::PreTraining),
            (Layout::Original, ModelKind::MeanClassifier),
            (Layout::TensorFlow, ModelKind::PreTraining),
            (Layout::Mmpretrain, ModelKind::PreTraining),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a/new/folder");
            let metadata = BTreeMap::from([("note".to_string(), "kept".to_string())]);
            let options = SaveOptions { metadata, ..SaveOptions::default() };
            store(&path, layout, kind, &options);
            let (loaded, report) = load(&path, kind, &LoadOptions::default()).unwrap();
            let expected = expected_parameters(&tiny(), kind);
            assert_eq!(loaded.len(), expected.len());
            for (index, parameter) in expected.iter().enumerate() {
                assert_eq!(loaded[&parameter.name], values(index, &parameter.shape));
            }
            assert_eq!(report.layout, layout);
            assert_eq!(report.metadata["note"], "kept");
            assert_eq!(report.metadata["format"], "pt");
            assert_eq!((report.nan, report.infinite), (0, 0));
            let config = Opened::open(&path, kind, &LoadOptions::default()).unwrap().config;
            assert_eq!(config.extra["zebra"], tiny().extra["zebra"]);
            assert_eq!(config.extra["architectures"][0], "ViTMAEForPreTraining");
            let sizes = VitMaeConfig { extra: tiny().extra, ..config };
            assert_eq!(sizes, tiny());
        }
    }

    #[test]
    fn query_key_and_value_are_stored_apart_in_this_order() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), Layout::HuggingFace, ModelKind::PreTraining, &SaveOptions::default());
        let mut file = WeightsFile::open(&folder.path().join("model.safetensors")).unwrap();
        let expected = expected_parameters(&tiny(), ModelKind::PreTraining);
        let name = "vit.blocks.1.attention.qkv.weight";
        let index = expected.iter().position(|p| p.name == name).unwrap();
        let all = values(index, &[24, 8]);
        for (part, stored) in ["query", "key", "value"].iter().enumerate() {
            let name = format!("vit.encoder.layer.1.attention.attention.{stored}.weight");
            assert_eq!(file.get(&name).unwrap().shape, [8, 8]);
            assert_eq!(file.read_f32(&name).unwrap(), all[64 * part..64 * (part + 1)]);
        }
    }

    #[test]
    fn half_precision_files_are_read_as_f32() {
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F64] {
            let folder = tempfile::tempdir().unwrap();
            let options = SaveOptions { dtype, ..SaveOptions::default() };
            store(folder.path(), Layout::HuggingFace, ModelKind::Encoder, &options);
            let (loaded, report) =
                load(folder.path(), ModelKind::Encoder, &LoadOptions::default()).unwrap();
            assert_eq!(report.dtypes, BTreeMap::from([(dtype, 38)]));
            for (index, parameter) in
                expected_parameters(&tiny(), ModelKind::Encoder).iter().enumerate()
            {
                let exact = values(index, &parameter.shape);
                let rounded = exact.iter().map(|&x| match dtype {
                    Dtype::F16 => half::f16::from_f32(x).to_f32(),
                    Dtype::BF16 => half::bf16::from_f32(x).to_f32(),
                    _ => x,
                });
                assert_eq!(loaded[&parameter.name], rounded.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn an_encoder_loads_from_a_full_file_and_a_full_model_from_an_encoder() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), Layout::HuggingFace, ModelKind::PreTraining, &SaveOptions::default());
        let error = load(folder.path(), ModelKind::Encoder, &LoadOptions::default()).unwrap_err();
        assert!(error.source().unwrap().to_string().contains("24 unexpected"), "{error:?}");
        let options =
            LoadOptions { allow_unexpected: vec!["decoder.*".into()], ..LoadOptions::default() };
        let (loaded, report) = load(folder.path(), ModelKind::Encoder, &options).unwrap();
        assert!(loaded.keys().all(|name| name.starts_with("vit.")));
        assert_eq!(report.unexpected.len(), 24);

        let folder = tempfile::tempdir().unwrap();
        let (layout, kind) = (Layout::HuggingFaceEncoder, ModelKind::Encoder);
        store(folder.path(), layout, kind, &SaveOptions::default());
        let options =
            LoadOptions { allow_missing: vec!["decoder.*".into()], ..LoadOptions::default() };
        let (_, report) = load(folder.path(), ModelKind::PreTraining, &options).unwrap();
        assert_eq!(report.missing.len(), 24);
    }

    #[test]
    fn odd_values_are_reported_and_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let config = tiny();
        let parameters = expected_parameters(&config, ModelKind::PreTraining);
        let (class, layout) = ("ViTMAEForPreTraining", Layout::HuggingFace);
        let model = Saved { config: &config, class, layout, parameters: &parameters };
        save(folder.path(), &model, &SaveOptions::default(), |i| {
            let mut values = values(i, &parameters[i].shape);
            match parameters[i].name.as_str() {
                "vit.norm.bias" => {
                    values[..3].copy_from_slice(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
                }
                "decoder.position_embeddings" => values.fill(0.0),
                _ => {}
            }
            Ok(values)
        })
        .unwrap();
        let (loaded, report) =
            load(folder.path(), ModelKind::PreTraining, &LoadOptions::default()).unwrap();
        assert_eq!((report.nan, report.infinite), (1, 2));
        assert_eq!(report.non_finite, ["vit.norm.bias"]);
        assert_eq!(report.zero_position_tables, ["decoder.position_embeddings"]);
        assert!(loaded["vit.norm.bias"][0].is_nan());
    }

    #[test]
    fn a_config_that_contradicts_the_weights_is_one_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), Layout::HuggingFace, ModelKind::PreTraining, &SaveOptions::default());
        let wrong = VitMaeConfig { decoder_intermediate_size: 7, ..tiny() };
        fs::write(folder.path().join("config.json"), wrong.to_json()).unwrap();
        let error =
            load(folder.path(), ModelKind::PreTraining, &LoadOptions::default()).unwrap_err();
        assert_eq!(
            error.source().unwrap().to_string(),
            "the tensors do not fit the config: 0 missing, 0 unexpected, 3 misshapen\n  misshapen \
             `decoder.decoder_layers.0.intermediate.dense.weight`: found [6, 4], expected [7, 4]\n  \
             misshapen `decoder.decoder_layers.0.intermediate.dense.bias`: found [6], expected \
             [7]\n  misshapen `decoder.decoder_layers.0.output.dense.weight`: found [4, 6], \
             expected [4, 7]\nhelp: `decoder_intermediate_size` is 6 in the weights and 7 in the \
             config; use the `config.json` that belongs to these weights"
        );
    }

    #[test]
    fn a_failed_save_leaves_the_old_model() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), Layout::HuggingFace, ModelKind::PreTraining, &SaveOptions::default());
        let weights = fs::read(folder.path().join("model.safetensors")).unwrap();
        let config = tiny();
        let parameters = expected_parameters(&config, ModelKind::PreTraining);
        let (class, layout) = ("ViTMAEForPreTraining", Layout::HuggingFace);
        let model = Saved { config: &config, class, layout, parameters: &parameters };
        let error = save(folder.path(), &model, &SaveOptions::default(), |i| match i {
            9 => Err(WeightsError::NoSuchTensor { name: "x".into() }),
            _ => Ok(values(i, &parameters[i].shape)),
        });
        assert!(error.is_err());
        assert_eq!(fs::read(folder.path().join("model.safetensors")).unwrap(), weights);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let layout = Layout::HuggingFaceEncoder;
        let model = Saved { layout, ..model };
        let error = save(folder.path(), &model, &SaveOptions::default(), |_| Ok(vec![]));
        assert_eq!(
            error.unwrap_err().to_string(),
            "parameter `decoder.embed.weight` has no place in the layout of a bare Hugging Face \
             encoder (L2)"
        );
    }
}
