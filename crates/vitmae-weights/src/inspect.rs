//! What a checkpoint holds, from its header alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vitmae_model::VitMaeConfig;

use crate::architecture::{Architecture, Contradiction};
use crate::dtype::Dtype;
use crate::error::WeightsError;
use crate::folder::ModelFolder;
use crate::layout::Layout;
use crate::safetensors_header::TensorInfo;
use crate::weights_file::{Container, WeightsFile};

/// What a file cannot say itself about the terms it may be used under.
pub const LICENCE_NOTE: &str = "the file does not settle its licence: facebookresearch/mae \
    publishes its weights under CC-BY-NC 4.0 and timm lists them so, while the Hugging Face cards \
    of facebook/vit-mae-* say apache-2.0; check where these weights come from before any \
    commercial use";

/// A checkpoint as its header and its configuration show it; no data are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The weights file.
    pub path: PathBuf,
    /// Its bytes, or those of all shards.
    pub file_bytes: u64,
    /// How they are kept.
    pub container: Container,
    /// The layout of its names; none if they belong to none.
    pub layout: Option<Layout>,
    /// The sizes its shapes show.
    pub architecture: Architecture,
    /// The numbers it holds.
    pub parameters: Parameters,
    /// Tensors by element type.
    pub dtypes: BTreeMap<Dtype, usize>,
    /// The text pairs of its header.
    pub metadata: BTreeMap<String, String>,
    /// Its tensors in the order of their bytes.
    pub tensors: Vec<TensorInfo>,
    /// The configuration beside it, or why there is none that can be used.
    pub config: Result<Box<VitMaeConfig>, String>,
    /// Where configuration and weights disagree.
    pub contradictions: Vec<Contradiction>,
    /// What is known of its licence.
    pub licence: String,
}

/// Numbers held, by the part of the model they belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parameters {
    /// In the encoder.
    pub encoder: u64,
    /// In the decoder.
    pub decoder: u64,
    /// In a classifier.
    pub classifier: u64,
    /// In tensors with no place in the model.
    pub other: u64,
}

impl Parameters {
    /// All together.
    pub fn total(&self) -> u64 {
        self.encoder + self.decoder + self.classifier + self.other
    }
}

/// Looks at the model at `path`, a folder or a file of weights; a broken or missing
/// configuration is part of the answer and not an error.
///
/// # Errors
/// Those of [`ModelFolder::find`] and [`WeightsFile::open`].
pub fn inspect(path: &Path) -> Result<Inspection, WeightsError> {
    let folder = ModelFolder::find(path)?;
    let file = WeightsFile::open(&folder.weights)?;
    let tensors = file.tensors().to_vec();
    let layout = Layout::detect(tensors.iter().map(|tensor| tensor.name.as_str())).ok();
    let architecture = layout.map(|layout| Architecture::infer(layout, &tensors));
    let architecture = architecture.unwrap_or_default();
    let config = folder.read_config().map(Box::new).map_err(|error| chain(&error));
    let contradictions = match &config {
        Ok(config) => architecture.contradictions(config),
        Err(_) => Vec::new(),
    };
    let mut dtypes = BTreeMap::new();
    for tensor in &tensors {
        *dtypes.entry(tensor.dtype).or_default() += 1;
    }
    Ok(Inspection {
        file_bytes: file.file_bytes(),
        container: file.container(),
        layout,
        architecture,
        parameters: count(layout, &tensors),
        dtypes,
        licence: licence(file.metadata()),
        metadata: file.metadata().clone(),
        tensors,
        config,
        contradictions,
        path: folder.weights,
    })
}

impl Inspection {
    /// Whether any tensor of a decoder is there.
    pub fn has_decoder(&self) -> bool {
        self.architecture.decoder.is_some()
    }

    /// The inspection as one JSON object; tensors as `name: {dtype, shape}`.
    pub fn to_json(&self) -> Value {
        let sizes = &self.architecture;
        let dtypes: BTreeMap<_, _> = self.dtypes.iter().map(|(d, n)| (d.name(), n)).collect();
        let tensors: serde_json::Map<_, _> = self
            .tensors
            .iter()
            .map(|t| (t.name.clone(), json!({"dtype": t.dtype.name(), "shape": t.shape})))
            .collect();
        let contradictions: Vec<_> = self
            .contradictions
            .iter()
            .map(|c| json!({"key": c.key, "weights": c.weights, "config": c.config}))
            .collect();
        json!({
            "path": self.path.display().to_string(),
            "file_bytes": self.file_bytes,
            "container": self.container.to_string(),
            "layout": self.layout.map(Layout::code),
            "architecture": {
                "hidden_size": sizes.hidden_size,
                "num_hidden_layers": sizes.num_hidden_layers,
                "intermediate_size": sizes.intermediate_size,
                "patch_size": sizes.patch_size.map(|(h, w)| [h, w]),
                "num_channels": sizes.num_channels,
                "num_patches": sizes.num_patches,
                "qkv_bias": sizes.qkv_bias,
                "decoder": sizes.decoder.as_ref().map(|decoder| json!({
                    "hidden_size": decoder.hidden_size,
                    "num_hidden_layers": decoder.num_hidden_layers,
                    "intermediate_size": decoder.intermediate_size,
                })),
                "num_labels": sizes.num_labels,
            },
            "parameters": {
                "total": self.parameters.total(),
                "encoder": self.parameters.encoder,
                "decoder": self.parameters.decoder,
                "classifier": self.parameters.classifier,
                "other": self.parameters.other,
            },
            "dtypes": dtypes,
            "metadata": self.metadata,
            "config_error": self.config.as_ref().err(),
            "contradictions": contradictions,
            "licence": self.licence,
            "tensors": tensors,
        })
    }
}

fn count(layout: Option<Layout>, tensors: &[TensorInfo]) -> Parameters {
    let mut parameters = Parameters::default();
    for tensor in tensors {
        let name = layout.and_then(|layout| layout.internal(&tensor.name));
        let group = name.as_ref().and_then(|(name, _)| name.split('.').next());
        let count = match group {
            Some("vit") => &mut parameters.encoder,
            Some("decoder") => &mut parameters.decoder,
            Some(_) => &mut parameters.classifier,
            None => &mut parameters.other,
        };
        *count += tensor.len() as u64;
    }
    parameters
}

fn licence(metadata: &BTreeMap<String, String>) -> String {
    let stated = metadata.get("license").or_else(|| metadata.get("licence"));
    match stated {
        Some(licence) => {
            format!("the file states `{}`; {LICENCE_NOTE}", crate::error::shown(licence))
        }
        None => LICENCE_NOTE.to_string(),
    }
}

/// An error with its causes, joined by colons.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::parameters::{ModelKind, expected_parameters};
    use crate::saving::{SaveOptions, Saved, save};

    fn tiny() -> VitMaeConfig {
        VitMaeConfig {
            hidden_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 12,
            image_size: (8, 8),
            patch_size: (4, 4),
            decoder_hidden_size: 4,
            decoder_num_hidden_layers: 1,
            decoder_num_attention_heads: 1,
            decoder_intermediate_size: 6,
            ..VitMaeConfig::default()
        }
    }

    fn store(folder: &Path) {
        let config = tiny();
        let parameters = expected_parameters(&config, ModelKind::PreTraining);
        let (class, layout) = ("ViTMAEForPreTraining", Layout::HuggingFace);
        let model = Saved { config: &config, class, layout, parameters: &parameters };
        let zeros = |i: usize| Ok(vec![0.0; parameters[i].shape.iter().product()]);
        save(folder, &model, &SaveOptions::default(), zeros).unwrap();
    }

    #[test]
    fn a_checkpoint_is_described() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path());
        let found = inspect(folder.path()).unwrap();
        let counted = tiny().parameter_count();
        assert_eq!(found.layout, Some(Layout::HuggingFace));
        assert_eq!(found.parameters.encoder, counted.encoder);
        assert_eq!(found.parameters.decoder, counted.decoder);
        assert_eq!(found.parameters.total(), counted.total());
        assert!(found.has_decoder());
        assert_eq!(found.dtypes, BTreeMap::from([(Dtype::F32, 46)]));
        assert_eq!(found.file_bytes, fs::metadata(&found.path).unwrap().len());
        assert_eq!(found.contradictions, []);
        assert_eq!(found.config.as_ref().unwrap().hidden_size, 8);
        assert!(found.licence.contains("CC-BY-NC 4.0"));
        let json = found.to_json();
        assert_eq!(json["layout"], "L1");
        assert_eq!(json["architecture"]["decoder"]["hidden_size"], 4);
        assert_eq!(json["parameters"]["total"], counted.total());
        assert_eq!(json["tensors"]["vit.embeddings.cls_token"]["shape"][2], 8);
    }

    #[test]
    fn a_broken_config_is_part_of_the_answer() {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path());
        let config = folder.path().join("config.json");
        fs::write(&config, r#"{"hidden_size": 0}"#).unwrap();
        let found = inspect(folder.path()).unwrap();
        let expected = format!(
            "`{}` cannot be used: config: `hidden_size` is 0, expected at least 1",
            config.display()
        );
        assert_eq!(found.config, Err(expected));
        fs::write(&config, VitMaeConfig { num_channels: 1, ..tiny() }.to_json()).unwrap();
        assert_eq!(inspect(folder.path()).unwrap().contradictions[0].key, "num_channels");
        fs::remove_file(&config).unwrap();
        assert!(inspect(folder.path()).unwrap().config.unwrap_err().contains("no `config.json`"));
    }
}
