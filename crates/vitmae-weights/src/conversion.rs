//! From a checkpoint in one layout to a checkpoint in another.
//!
//! Values pass through f32, which keeps every f32, f16 and bf16 value; only f64 is rounded. One parameter is in
//! memory at a time, except for HDF5, whose writer needs them all.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use vitmae_model::VitMaeConfig;

use crate::atomic_file::write_atomically;
use crate::comparison::LoadOptions;
use crate::dtype::Dtype;
use crate::error::WeightsError;
use crate::folder::{CONFIG_FILE, ModelFolder, PREPROCESSOR_FILE, WEIGHTS_FILE};
use crate::hdf5::write_hdf5;
use crate::layout::Layout;
use crate::loading::Opened;
use crate::parameters::{ModelKind, ParameterShape};
use crate::saving::{Stored, write_config};
use crate::torch::write_torch;
use crate::weights_file::Container;
use crate::write_safetensors;

/// What a checkpoint is converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A folder for Hugging Face's classes, transformers 4 and 5 (L1).
    HuggingFace,
    /// A folder with the encoder alone, for its `ViTMAEModel` (L2).
    HuggingFaceEncoder,
    /// A folder as transformers 5 writes it (L4); version 4 does not read its decoder.
    Transformers5,
    /// A `.pth` file of the original (L5).
    Original,
    /// A folder with `tf_model.h5` for the TensorFlow classes (L6).
    TensorFlowH5,
    /// A folder with safetensors for the TensorFlow classes (L7).
    TensorFlowSafetensors,
    /// A folder with safetensors for timm: encoder and head (L5).
    Timm,
}

use Target::{
    HuggingFace, HuggingFaceEncoder, Original, TensorFlowH5, TensorFlowSafetensors, Timm,
    Transformers5,
};

impl Target {
    /// Every target.
    pub const ALL: [Target; 7] = [
        HuggingFace,
        HuggingFaceEncoder,
        Transformers5,
        Original,
        TensorFlowH5,
        TensorFlowSafetensors,
        Timm,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            HuggingFace => "hf",
            HuggingFaceEncoder => "hf-bare",
            Transformers5 => "hf5",
            Original => "fb",
            TensorFlowH5 => "tf-h5",
            TensorFlowSafetensors => "tf-safetensors",
            Timm => "timm",
        }
    }

    /// The layout of its names.
    pub fn layout(self) -> Layout {
        match self {
            HuggingFace => Layout::HuggingFace,
            HuggingFaceEncoder => Layout::HuggingFaceEncoder,
            Transformers5 => Layout::Transformers5Saved,
            Original | Timm => Layout::Original,
            TensorFlowH5 | TensorFlowSafetensors => Layout::TensorFlow,
        }
    }

    /// The weights' file in the folder; none where the target is a file itself.
    pub fn file_name(self) -> Option<&'static str> {
        match self {
            Original => None,
            TensorFlowH5 => Some("tf_model.h5"),
            _ => Some(WEIGHTS_FILE),
        }
    }

    /// Whether it holds our parameter `name`.
    fn wants(self, name: &str) -> bool {
        match self {
            HuggingFaceEncoder => name.starts_with("vit."),
            Timm => !name.starts_with("decoder."),
            _ => true,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a checkpoint is converted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConvertOptions {
    /// Element type of every tensor; without one each keeps its own, but f64, which becomes f32, and what HDF5
    /// does not hold.
    pub dtype: Option<Dtype>,
    /// Whether files in the way are replaced.
    pub replace: bool,
    /// What may differ between the checkpoint and its configuration.
    pub load: LoadOptions,
}

/// What was converted.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvertReport {
    /// The file that was read.
    pub input: PathBuf,
    /// Its layout.
    pub layout: Layout,
    /// Its container.
    pub container: Container,
    /// The file of weights that was written.
    pub output: PathBuf,
    /// Tensors written.
    pub tensors: usize,
    /// Our names of the parameters that the target does not hold.
    pub dropped: Vec<String>,
    /// Tensors of the file that have no place in a model and were allowed to be left out.
    pub unexpected: Vec<String>,
    /// Our names of the parameters whose values were rounded to another type.
    pub rounded: Vec<String>,
    /// Whether there was no `config.json` and its sizes were read off the weights.
    pub config_inferred: bool,
}

/// Converts the checkpoint at `input`, a folder or a file of weights, to `output`: a folder with `config.json` and,
/// if there is one, `preprocessor_config.json`, or for [`Target::Original`] a file. Each file is written atomically.
///
/// # Errors
/// [`WeightsError`]: what loading finds; [`WeightsError::Exists`] if a file is in the way;
/// [`WeightsError::NoPlace`] if the target has no name for a parameter.
pub fn convert(
    input: &Path,
    target: Target,
    output: &Path,
    options: &ConvertOptions,
) -> Result<ConvertReport, WeightsError> {
    let folder = ModelFolder::find(input)?;
    let (mut opened, kind) = Opened::open_any(input, &options.load)?;
    if target.layout() == Layout::TensorFlow && !opened.config.qkv_bias {
        return Err(WeightsError::TensorFlowBias.in_file(folder.weights));
    }
    let path = target.file_name().map_or(output.to_path_buf(), |name| output.join(name));
    for path in [&path, &output.join(CONFIG_FILE)] {
        if !options.replace && path.exists() {
            return Err(WeightsError::Exists { path: path.clone() });
        }
    }
    // Those that the target holds, and where they are among those found.
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    for (index, found) in opened.fit.found.iter().enumerate() {
        match target.wants(&found.parameter.name) {
            true => kept.push(index),
            false => dropped.push(found.parameter.name.clone()),
        }
    }
    let parameters: Vec<ParameterShape> =
        kept.iter().map(|&index| opened.fit.found[index].parameter.clone()).collect();
    let had: Vec<Dtype> = kept.iter().map(|&index| dtype_of(&opened, index)).collect();
    let stored = Stored::new(target.layout(), &parameters, |i| {
        options.dtype.unwrap_or(kept_dtype(target, had[i]))
    })?;
    let rounded = parameters.iter().enumerate().filter(|(i, parameter)| {
        let names = target.layout().stored(&parameter.name).unwrap_or_default();
        let now = stored.tensors.iter().find(|tensor| Some(&tensor.name) == names.first());
        now.is_some_and(|now| !holds(now.dtype, had[*i]))
    });
    let rounded = rounded.map(|(_, parameter)| parameter.name.clone()).collect();

    let config_inferred = !folder.config.exists();
    let mut values = |i: usize| opened.values(kept[i]);
    match target {
        Original => {
            write_torch(&path, Some("model"), &stored.tensors, |t| stored.values(t, &mut values))?;
        }
        _ => {
            fs::create_dir_all(output).map_err(|source| WeightsError::Io {
                action: "create",
                path: output.to_path_buf(),
                source,
            })?;
            if target == TensorFlowH5 {
                write_hdf5(&path, &stored.tensors, |t| stored.values(t, &mut values))?;
            } else {
                let format = if target == TensorFlowSafetensors { "tf" } else { "pt" };
                let metadata = BTreeMap::from([("format".to_string(), format.to_string())]);
                let tensors = &stored.tensors;
                write_safetensors(&path, &metadata, tensors, |t| stored.values(t, &mut values))?;
            }
            let kind = if target == HuggingFaceEncoder { ModelKind::Encoder } else { kind };
            write_config(output, &config_for(&opened.config, kind))?;
            copy_preprocessor(&folder, output)?;
        }
    }
    Ok(ConvertReport {
        input: folder.weights,
        layout: opened.layout,
        container: opened.file.container(),
        output: path,
        tensors: stored.tensors.len(),
        dropped,
        unexpected: opened.fit.unexpected,
        rounded,
        config_inferred,
    })
}

/// The element type of a parameter in the file; of several parts, the first's.
fn dtype_of(opened: &Opened, index: usize) -> Dtype {
    let first = opened.fit.found[index].parts.first();
    first.and_then(|part| opened.file.get(part)).map_or(Dtype::F32, |tensor| tensor.dtype)
}

/// The type that stands in for `dtype` where none is asked for.
fn kept_dtype(target: Target, dtype: Dtype) -> Dtype {
    match dtype {
        Dtype::F16 | Dtype::BF16 if target != TensorFlowH5 => dtype,
        _ => Dtype::F32,
    }
}

/// Whether `new` holds every value of `old` that passes through f32.
fn holds(new: Dtype, old: Dtype) -> bool {
    match old {
        Dtype::F64 => false,
        Dtype::F32 => matches!(new, Dtype::F32 | Dtype::F64),
        _ => new == old || matches!(new, Dtype::F32 | Dtype::F64),
    }
}

/// The configuration of `kind`, which Hugging Face's tools find their class by.
fn config_for(config: &VitMaeConfig, kind: ModelKind) -> VitMaeConfig {
    let mut config = config.clone();
    let classifies = matches!(kind, ModelKind::Classifier | ModelKind::MeanClassifier);
    config.model_type = if classifies { "vit" } else { "vit_mae" }.to_string();
    config.extra.insert("architectures".to_string(), json!([kind.class()]));
    config
}

pub(crate) fn copy_preprocessor(folder: &ModelFolder, output: &Path) -> Result<(), WeightsError> {
    let Some(text) = folder.read_preprocessor_text()? else { return Ok(()) };
    let path = output.join(PREPROCESSOR_FILE);
    write_atomically(&path, |out| {
        out.write_all(text.as_bytes()).map_err(|source| WeightsError::Io {
            action: "write",
            path: path.clone(),
            source,
        })
    })
}

#[cfg(test)]
mod tests {
    use vitmae_model::{Head, VitForImageClassification, VitMaeForPreTraining};
    use vitmae_tensor::Device;

    use super::*;
    use crate::{SaveOptions, save_pretrained, save_pretrained_with};

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
            image_size: (8, 8),
            patch_size: (4, 4),
            num_channels: 3,
            ..VitMaeConfig::default()
        };
        config.extra.insert("num_labels".into(), 3.into());
        config
    }

    fn options() -> ConvertOptions {
        let load = LoadOptions { heads: Some(2), decoder_heads: Some(1), ..LoadOptions::default() };
        ConvertOptions { load, ..ConvertOptions::default() }
    }

    fn place(folder: &Path, target: Target, name: &str) -> PathBuf {
        folder.join(if target == Original { format!("{name}.pth") } else { name.to_string() })
    }

    #[test]
    fn every_target_leads_back_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let start = folder.path().join("start");
        let model = VitMaeForPreTraining::new(tiny(), &Device::cpu(), 1).unwrap();
        save_pretrained(&model, &start).unwrap();
        let first = fs::read(start.join(WEIGHTS_FILE)).unwrap();
        for target in Target::ALL {
            let there = place(folder.path(), target, target.name());
            let report = convert(&start, target, &there, &options()).unwrap();
            assert_eq!(report.layout, Layout::HuggingFace);
            let encoder_only = matches!(target, HuggingFaceEncoder | Timm);
            assert_eq!(report.dropped.len(), if encoder_only { 20 } else { 0 }, "{target}");
            assert!(report.rounded.is_empty() && report.unexpected.is_empty());
            let back = folder.path().join(format!("back-{target}"));
            let report = convert(&there, HuggingFace, &back, &options()).unwrap();
            assert_eq!(report.layout, target.layout(), "{target}");
            assert_eq!(report.config_inferred, target == Original);
            if encoder_only {
                let bare = folder.path().join(format!("bare-{target}"));
                convert(&back, HuggingFaceEncoder, &bare, &options()).unwrap();
                let expected = folder.path().join("hf-bare").join(WEIGHTS_FILE);
                let found = fs::read(bare.join(WEIGHTS_FILE)).unwrap();
                assert_eq!(found, fs::read(expected).unwrap(), "{target}");
            } else {
                assert_eq!(fs::read(back.join(WEIGHTS_FILE)).unwrap(), first, "{target}");
            }
        }
    }

    #[test]
    fn classifiers_are_converted_with_their_heads() {
        let folder = tempfile::tempdir().unwrap();
        for (head, name) in [(Head::Cls, "cls"), (Head::MeanFcNorm, "mean")] {
            let start = folder.path().join(name);
            let model = VitForImageClassification::new(tiny(), head, &Device::cpu(), 2).unwrap();
            save_pretrained(&model, &start).unwrap();
            for target in [Original, Timm, HuggingFace, TensorFlowH5] {
                let there = place(folder.path(), target, &format!("{name}-{target}"));
                let converted = convert(&start, target, &there, &options());
                if (head, target) == (Head::MeanFcNorm, TensorFlowH5) {
                    let error = converted.unwrap_err().to_string();
                    assert!(error.contains("`fc_norm.weight` has no place"), "{error}");
                    continue;
                }
                converted.unwrap();
                let back = folder.path().join(format!("{name}-{target}-back"));
                convert(&there, HuggingFace, &back, &options()).unwrap();
                let found = fs::read(back.join(WEIGHTS_FILE)).unwrap();
                assert_eq!(found, fs::read(start.join(WEIGHTS_FILE)).unwrap(), "{name} {target}");
            }
        }
    }

    #[test]
    fn types_are_kept_or_changed_and_roundings_told() {
        let folder = tempfile::tempdir().unwrap();
        let model = VitMaeForPreTraining::new(tiny(), &Device::cpu(), 1).unwrap();
        let half = folder.path().join("half");
        let dtype = SaveOptions { dtype: Dtype::BF16, ..SaveOptions::default() };
        save_pretrained_with(&model, &half, &dtype).unwrap();
        let pth = folder.path().join("half.pth");
        let report = convert(&half, Original, &pth, &options()).unwrap();
        assert!(report.rounded.is_empty());
        let kept = crate::TorchFile::open(&pth).unwrap();
        assert!(kept.tensors().iter().all(|tensor| tensor.dtype == Dtype::BF16));
        let narrow = ConvertOptions { dtype: Some(Dtype::F16), ..options() };
        let report = convert(&half, HuggingFace, &folder.path().join("narrow"), &narrow).unwrap();
        assert_eq!(report.rounded.len(), model.parameters().len());
    }

    #[test]
    fn nothing_is_replaced_unless_asked() {
        let folder = tempfile::tempdir().unwrap();
        let start = folder.path().join("start");
        let model = VitMaeForPreTraining::new(tiny(), &Device::cpu(), 1).unwrap();
        save_pretrained(&model, &start).unwrap();
        let error = convert(&start, HuggingFace, &start, &options()).unwrap_err();
        let file = start.join(WEIGHTS_FILE);
        assert_eq!(
            error.to_string(),
            format!(
                "`{}` exists\nhelp: name another place, or allow it to be replaced",
                file.display()
            )
        );
        let replace = ConvertOptions { replace: true, ..options() };
        convert(&start, HuggingFace, &start, &replace).unwrap();
    }

    #[test]
    fn tensorflow_gets_no_model_that_it_would_complete_by_chance() {
        let folder = tempfile::tempdir().unwrap();
        let start = folder.path().join("start");
        let config = VitMaeConfig { qkv_bias: false, ..tiny() };
        let model = VitMaeForPreTraining::new(config, &Device::cpu(), 1).unwrap();
        save_pretrained(&model, &start).unwrap();
        for target in [TensorFlowH5, TensorFlowSafetensors] {
            let to = folder.path().join(target.name());
            let error = convert(&start, target, &to, &options()).unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.starts_with("the model has `qkv_bias` false"), "{cause}");
            assert!(!to.exists());
        }
    }

    #[test]
    fn unknown_heads_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let start = folder.path().join("start");
        let model = VitMaeForPreTraining::new(tiny(), &Device::cpu(), 1).unwrap();
        save_pretrained(&model, &start).unwrap();
        let pth = folder.path().join("x.pth");
        convert(&start, Original, &pth, &options()).unwrap();
        let to = folder.path().join("to");
        let error = convert(&pth, HuggingFace, &to, &ConvertOptions::default()).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("a width of 8 is that of no published model"), "{cause}");
    }
}
