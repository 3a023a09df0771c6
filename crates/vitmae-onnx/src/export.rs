//! From a model to a file that has been run.

use std::path::Path;

use vitmae_model::{VitForImageClassification, VitMaeConfig, VitMaeForPreTraining, VitMaeModel};

use crate::graph::Graph;
use crate::proto::{ModelProto, OperatorSetIdProto, StringStringEntryProto};
use crate::{OnnxError, file, models};

/// IR version of opset 17, the first with `LayerNormalization`.
const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;

/// A graph that can be written. `pixel_values: [B, C, H, W]` is an input of each, normalised as the model wants it;
/// all are f32 but `ids_restore`, int64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exported {
    /// [`VitMaeModel::forward`]: `noise: [B, L]` → `last_hidden_state: [B, 1 + K, D]` in the order of the noise, `mask` and
    /// `ids_restore: [B, L]`.
    Encoder,
    /// [`VitMaeModel::encode`]: → `last_hidden_state: [B, 1 + L, D]` in grid order, `cls: [B, D]` and the mean of the
    /// patches' tokens, `mean: [B, D]`.
    Features,
    /// [`VitMaeForPreTraining::forward`]: `noise: [B, L]` → `logits: [B, L, PH·PW·C]`, `mask`, `ids_restore`, `loss: []`.
    Reconstruction,
    /// [`VitForImageClassification::forward`]: → `logits: [B, classes]`.
    Classifier,
}

impl Exported {
    /// Its name in messages, in the metadata and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encoder => "encoder",
            Self::Features => "features",
            Self::Reconstruction => "reconstruction",
            Self::Classifier => "classifier",
        }
    }
}

/// A model to take a graph from.
#[derive(Clone, Copy, Debug)]
pub enum Model<'a> {
    /// Encoder and decoder.
    Pretraining(&'a VitMaeForPreTraining),
    /// The encoder alone.
    Encoder(&'a VitMaeModel),
    /// The encoder with a classifier.
    Classifier(&'a VitForImageClassification),
}

/// Choices of [`export`].
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// B, if it shall be fixed; any number of images by default.
    pub batch: Option<usize>,
    /// Share of patches removed, in [0, 1]; that of the configuration by default.
    pub mask_ratio: Option<f64>,
    /// `preprocessor_config.json`, for the metadata.
    pub preprocessor: Option<String>,
    /// The largest difference from the model that is accepted, times the largest absolute value of an output where
    /// that is above 1.
    pub bound: f64,
    /// Of the images and the noise of the check.
    pub seed: u64,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { batch: None, mask_ratio: None, preprocessor: None, bound: 1e-4, seed: 0 }
    }
}

/// The largest difference of an output from the model's own, as tract computes the graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Checked {
    /// The difference.
    pub max_abs_error: f64,
    /// The output that has it.
    pub output: &'static str,
}

/// What [`export`] did.
#[derive(Clone, Debug)]
pub struct ExportReport {
    /// What running the graph told, if this build runs it.
    pub checked: Option<Checked>,
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// Whether they stand in a file of their own, `NAME.data`, since a message of ONNX holds 2 GiB.
    pub external: bool,
}

/// Writes a graph of a model to `path`, with the feature `check` after running it beside the model on random images. The
/// file, and `NAME.data` beside it where weights are external, are replaced as a whole or not at all.
///
/// # Errors
/// [`OnnxError`]; nothing is written then.
pub fn export(
    model: Model<'_>,
    what: Exported,
    path: &Path,
    options: &ExportOptions,
) -> Result<ExportReport, OnnxError> {
    let mut graph = Graph::new(options.batch);
    let config = build(model, what, options, &mut graph)?;
    let mut proto = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "vitmae".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph.finish(what.name())),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        ..ModelProto::default()
    };
    let checked = check(&proto, model, what, options)?;
    let entry =
        |key: &str, value: String| StringStringEntryProto { key: format!("vitmae.{key}"), value };
    let bound =
        format!("{:e}, times the largest absolute value where that is above 1", options.bound);
    proto.metadata_props = vec![
        entry("graph", what.name().to_owned()),
        entry("config", config.to_json()),
        entry("error_bound", bound),
    ];
    if let Some(Checked { max_abs_error, output }) = checked {
        let how = format!("of {output}, by tract on random images of seed {}", options.seed);
        proto.metadata_props.push(entry("max_abs_error", format!("{max_abs_error:e}")));
        proto.metadata_props.push(entry("max_abs_error_of", how));
    }
    if let Some(preprocessor) = &options.preprocessor {
        proto.metadata_props.push(entry("preprocessor", preprocessor.clone()));
    }
    let (weight_bytes, external) = file::write(proto, path)?;
    Ok(ExportReport { checked, weight_bytes, external })
}

#[cfg(feature = "check")]
fn check(
    proto: &ModelProto,
    model: Model<'_>,
    what: Exported,
    options: &ExportOptions,
) -> Result<Option<Checked>, OnnxError> {
    crate::check::run(proto, model, what, options).map(Some)
}

#[cfg(not(feature = "check"))]
fn check(
    _: &ModelProto,
    _: Model<'_>,
    _: Exported,
    _: &ExportOptions,
) -> Result<Option<Checked>, OnnxError> {
    Ok(None)
}

/// Builds the graph; returns the configuration.
fn build<'a>(
    model: Model<'a>,
    what: Exported,
    options: &ExportOptions,
    graph: &mut Graph,
) -> Result<&'a VitMaeConfig, OnnxError> {
    let (config, of_model) = match model {
        Model::Pretraining(model) => (&model.config, "an encoder with its decoder"),
        Model::Encoder(model) => (&model.config, "an encoder without a decoder"),
        Model::Classifier(model) => (&model.config, "a classifier"),
    };
    let refuse =
        |needs, help| Err(OnnxError::Model { what: what.name(), needs, model: of_model, help });
    match (what, model) {
        (Exported::Features, Model::Pretraining(VitMaeForPreTraining { vit, .. }))
        | (Exported::Features, Model::Encoder(vit)) => models::features(graph, vit)?,
        (Exported::Encoder, Model::Pretraining(VitMaeForPreTraining { vit, .. }))
        | (Exported::Encoder, Model::Encoder(vit)) => {
            models::encoder(graph, vit, kept(config, options, config.num_patches())?)?;
        }
        (Exported::Reconstruction, Model::Pretraining(model)) => {
            let most = config.num_patches() - 1;
            models::reconstruction(graph, model, kept(config, options, most)?)?;
        }
        (Exported::Classifier, Model::Classifier(model)) => models::classifier(graph, model)?,
        (Exported::Reconstruction, _) => {
            return refuse("a decoder", "name the checkpoint of a pre-training");
        }
        (Exported::Classifier, _) => {
            return refuse("a classifier", "name the output of `vitmae finetune`");
        }
        (_, Model::Classifier(_)) => {
            return refuse(
                "a bare encoder",
                "export the classifier, or the checkpoint it was trained from",
            );
        }
    }
    Ok(config)
}

/// K, which a graph has as a number.
fn kept(config: &VitMaeConfig, options: &ExportOptions, most: usize) -> Result<usize, OnnxError> {
    let ratio = options.mask_ratio.unwrap_or(config.mask_ratio);
    let patches = config.num_patches();
    let noise: Vec<f64> = (0..patches).map(|i| i as f64).collect();
    let kept = vitmae_model::Masking::from_noise(&noise, 1, patches, ratio)?.len_keep;
    if (1..=most).contains(&kept) {
        return Ok(kept);
    }
    Err(OnnxError::MaskRatio { ratio, kept, patches, most })
}
