//! The checkpoint doctor: what is wrong with a checkpoint, as data, and a mended copy.
//!
//! Every tensor is read once, one at a time, so that a model of any size is looked at in the memory of its
//! largest tensor. What a decoder was trained to predict shows only when it predicts: [`predictions`].

mod finding;
pub mod predictions;
mod repair;
mod tables;

pub use finding::Finding;
pub use repair::{Repair, repair};

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use vitmae_model::VitMaeConfig;

use crate::comparison::{LoadOptions, compare};
use crate::error::WeightsError;
use crate::folder::ModelFolder;
use crate::inferred::config_of_weights;
use crate::inspect::{Inspection, inspect};
use crate::layout::Layout;
use crate::parameters::{ModelKind, expected_parameters};
use crate::weights_file::WeightsFile;

/// A checkpoint and what was found wrong with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnosis {
    /// What it holds.
    pub inspection: Inspection,
    /// The configuration that its tensors were held against: the file's, or the one its shapes show.
    pub config: Option<VitMaeConfig>,
    /// What is wrong, in the order of the checks.
    pub findings: Vec<Finding>,
}

/// Looks for everything that can be wrong with the model at `path`, a folder or a file of weights.
/// `options` gives the heads of weights without a configuration.
///
/// # Errors
/// Those of [`inspect`], and of reading the values; what is wrong with the model is no error.
pub fn diagnose(path: &Path, options: &LoadOptions) -> Result<Diagnosis, WeightsError> {
    let inspection = inspect(path)?;
    let mut findings = Vec::new();
    let Some(layout) = inspection.layout else {
        findings.push(Finding::UnknownLayout);
        return Ok(Diagnosis { inspection, config: None, findings });
    };
    let mut file = WeightsFile::open(&inspection.path)?;
    let config = match (&inspection.config, ModelFolder::find(path)?.config.exists()) {
        (Ok(config), _) => Some((**config).clone()),
        (Err(reason), true) => {
            findings.push(Finding::Config { reason: reason.clone() });
            None
        }
        (Err(_), false) => match config_of_weights(layout, &file, options) {
            Ok(config) => Some(config),
            Err(reason) => {
                findings.push(Finding::Config { reason: reason.to_string() });
                None
            }
        },
    };
    if let Some(config) = &config {
        check_names(&inspection, layout, config, &mut findings);
        check_eps(layout, config, &mut findings);
    }
    if let Some(tensors) = unread_by_4(layout, &inspection) {
        findings.push(Finding::Transformers5 { layout, tensors });
    }
    check_values(&mut file, layout, config.as_ref(), &mut findings)?;
    Ok(Diagnosis { inspection, config, findings })
}

/// Tensors that are missing, too many, or of another size than the configuration says.
fn check_names(
    found: &Inspection,
    layout: Layout,
    config: &VitMaeConfig,
    findings: &mut Vec<Finding>,
) {
    // A table of another grid is told as such by its values.
    let others = found.contradictions.iter().filter(|other| other.key != "image_size");
    findings.extend(others.cloned().map(Finding::Contradiction));
    if findings.iter().any(|finding| matches!(finding, Finding::Contradiction(_))) {
        return;
    }
    let names = found.tensors.iter().filter_map(|tensor| layout.internal(&tensor.name));
    let names: Vec<String> = names.map(|(name, _)| name).collect();
    let kind = ModelKind::of(names.iter().map(String::as_str));
    let expected = expected_parameters(config, kind);
    if let Err(mismatch) =
        compare(layout, &found.tensors, config, &expected, &LoadOptions::default())
    {
        let is_table = |name: &str| {
            layout.internal(name).is_some_and(|(name, _)| name.ends_with(".position_embeddings"))
        };
        let names = |shapes: Vec<crate::comparison::NamedShape>| shapes.into_iter().map(|s| s.name);
        let missing: Vec<String> = names(mismatch.missing).collect();
        let unexpected: Vec<String> = names(mismatch.unexpected).collect();
        let misshapen = mismatch.misshapen.into_iter().map(|wrong| wrong.name);
        let misshapen: Vec<String> = misshapen.filter(|name| !is_table(name)).collect();
        if missing.len() + unexpected.len() + misshapen.len() > 0 {
            findings.push(Finding::Tensors { missing, unexpected, misshapen });
        }
    }
}

/// The original's models were trained with 1e-6 and Hugging Face's classes run them with 1e-12; any other
/// number comes from elsewhere.
fn check_eps(layout: Layout, config: &VitMaeConfig, findings: &mut Vec<Finding>) {
    let usual = layout.layer_norm_eps();
    let found = config.layer_norm_eps;
    let fits = match layout {
        Layout::Original | Layout::Mmpretrain => found == usual,
        _ => found == usual || found == 1e-6,
    };
    if !fits {
        findings.push(Finding::LayerNormEps { found, usual, layout });
    }
}

/// How many tensors transformers 4 does not find in a file of transformers 5, if it is one.
fn unread_by_4(layout: Layout, found: &Inspection) -> Option<usize> {
    let unread = |name: &str| match layout {
        Layout::Transformers5Saved => name.starts_with("decoder.decoder_encoder."),
        Layout::Transformers5State | Layout::Transformers5Encoder => {
            Layout::HuggingFace.internal(name).is_none()
                && Layout::HuggingFaceEncoder.internal(name).is_none()
        }
        _ => false,
    };
    let count = found.tensors.iter().filter(|tensor| unread(&tensor.name)).count();
    (count > 0).then_some(count)
}

/// Reads every tensor once and looks at its values.
fn check_values(
    file: &mut WeightsFile,
    layout: Layout,
    config: Option<&VitMaeConfig>,
    findings: &mut Vec<Finding>,
) -> Result<(), WeightsError> {
    let mut seen: HashMap<(Vec<usize>, u64), Vec<String>> = HashMap::new();
    let mut order = Vec::new();
    for tensor in file.tensors().to_vec() {
        let Some((internal, _)) = layout.internal(&tensor.name) else { continue };
        if !tensor.dtype.is_read() || tensor.is_empty() {
            continue;
        }
        let values = file.read_f32(&tensor.name)?;
        let name = tensor.name.clone();
        let nan = values.iter().filter(|value| value.is_nan()).count();
        let infinite = values.iter().filter(|value| value.is_infinite()).count();
        if nan + infinite > 0 {
            findings.push(Finding::NonFinite { tensor: name, nan, infinite });
            continue;
        }
        if internal.ends_with(".position_embeddings") {
            findings.extend(tables::check(&name, &tensor.shape, &values, config));
            continue; // two exact tables of one width are equal, and right
        }
        let constant = values.iter().all(|&value| value == values[0]);
        if constant && values[0] == 0.0 && tensor.shape.len() > 1 {
            let token = matches!(internal.as_str(), "vit.cls_token" | "decoder.mask_token");
            findings.push(Finding::ZeroTensor { tensor: name, token });
        } else if !constant {
            let mut hasher = DefaultHasher::new();
            values.iter().for_each(|value| value.to_bits().hash(&mut hasher));
            let key = (tensor.shape.clone(), hasher.finish());
            let names = seen.entry(key.clone()).or_default();
            names.push(name);
            if names.len() == 2 {
                order.push(key);
            }
        }
    }
    let repeats = order.iter().filter_map(|key| seen.remove(key));
    findings.extend(repeats.map(|tensors| Finding::Repeated { tensors }));
    Ok(())
}

#[cfg(test)]
mod tests;
