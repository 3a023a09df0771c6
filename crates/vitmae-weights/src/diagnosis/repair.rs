//! A mended copy of a checkpoint, never in its own place.

use std::fs;
use std::path::{Path, PathBuf};

use vitmae_model::position::table;
use vitmae_model::{VitMaeConfig, init};

use super::{Diagnosis, Finding};
use crate::conversion::copy_preprocessor;
use crate::dtype::Dtype;
use crate::error::WeightsError;
use crate::folder::ModelFolder;
use crate::layout::Layout;
use crate::loading::values_of;
use crate::parameters::{ModelKind, ParameterShape, expected_parameters};
use crate::saving::{SaveOptions, Saved, save};
use crate::weights_file::WeightsFile;

/// What [`repair`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct Repair {
    /// Findings that the copy does not have any more.
    pub mended: Vec<Finding>,
    /// Findings that it still has.
    pub left: Vec<Finding>,
}

/// Writes a copy of the model at `path` without the findings that can be mended into the new folder `out`: in
/// Hugging Face's layout (L1, L2 for a bare encoder), which every version reads. The folder appears whole or not
/// at all; one tensor is in memory at a time.
///
/// # Errors
/// [`WeightsError::Exists`] if `out` holds something, [`WeightsError::CannotMend`] if there is nothing that can be
/// mended, or the model is not whole, and those of reading and writing.
pub fn repair(path: &Path, diagnosis: &Diagnosis, out: &Path) -> Result<Repair, WeightsError> {
    let folder = ModelFolder::find(path)?;
    let cannot = |reason: &str| WeightsError::CannotMend {
        path: folder.weights.clone(),
        reason: reason.to_owned(),
    };
    let (mended, left): (Vec<_>, Vec<_>) =
        diagnosis.findings.iter().cloned().partition(Finding::can_be_mended);
    if mended.is_empty() {
        return Err(cannot("nothing was found that can be mended"));
    }
    let whole = |finding: &Finding| match finding {
        Finding::NonFinite { .. } | Finding::ZeroTensor { .. } | Finding::Repeated { .. } => true,
        Finding::Tensors { missing, misshapen, .. } => missing.is_empty() && misshapen.is_empty(),
        _ => false,
    };
    if let Some(finding) = left.iter().find(|finding| !whole(finding)) {
        return Err(cannot(&finding.to_string()));
    }
    let (Some(layout), Some(config)) = (diagnosis.inspection.layout, &diagnosis.config) else {
        return Err(cannot("its layout or its configuration is not known"));
    };
    let occupied = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => out.exists(),
    };
    if occupied {
        return Err(WeightsError::Exists { path: out.to_path_buf() });
    }
    let temporary = Temporary::beside(out)?;
    write(&folder, layout, &mended_config(config, &mended), diagnosis, &mended, &temporary.0)?;
    copy_preprocessor(&folder, &temporary.0)?;
    let failed = |source| WeightsError::Io { action: "create", path: out.to_path_buf(), source };
    fs::rename(&temporary.0, out).map_err(failed)?;
    Ok(Repair { mended, left })
}

/// The configuration with what the findings correct in it.
fn mended_config(config: &VitMaeConfig, findings: &[Finding]) -> VitMaeConfig {
    let mut config = config.clone();
    for finding in findings {
        match finding {
            Finding::LayerNormEps { usual, .. } => config.layer_norm_eps = *usual,
            Finding::DecoderTarget { normalised, .. } => config.norm_pix_loss = *normalised,
            _ => {}
        }
    }
    config
}

fn write(
    folder: &ModelFolder,
    layout: Layout,
    config: &VitMaeConfig,
    diagnosis: &Diagnosis,
    mended: &[Finding],
    out: &Path,
) -> Result<(), WeightsError> {
    let mut file = WeightsFile::open(&folder.weights)?;
    let names = file.tensors().iter().filter_map(|tensor| layout.internal(&tensor.name));
    let names: Vec<String> = names.map(|(name, _)| name).collect();
    let kind = ModelKind::of(names.iter().map(String::as_str));
    let parameters = expected_parameters(config, kind);
    let bare = matches!(layout, Layout::HuggingFaceEncoder | Layout::Transformers5Encoder);
    let target = if bare { Layout::HuggingFaceEncoder } else { Layout::HuggingFace };
    let dtypes = &diagnosis.inspection.dtypes;
    let dtype = match dtypes.keys().next() {
        Some(&half @ (Dtype::F16 | Dtype::BF16)) if dtypes.len() == 1 => half,
        _ => Dtype::F32,
    };
    let options = SaveOptions { dtype, metadata: file.metadata().clone() };
    let model = Saved { config, class: kind.class(), layout: target, parameters: &parameters };
    save(out, &model, &options, |index| {
        let parameter = &parameters[index];
        match mended_values(config, layout, parameter, mended) {
            Some(values) => Ok(values),
            None => {
                let parts = layout.stored(&parameter.name).unwrap_or_default();
                values_of(&mut file, layout, &parameter.shape, &parts)
            }
        }
    })
}

/// The right values of a parameter that a finding is about.
fn mended_values(
    config: &VitMaeConfig,
    layout: Layout,
    parameter: &ParameterShape,
    findings: &[Finding],
) -> Option<Vec<f32>> {
    let stored = layout.stored(&parameter.name)?;
    findings.iter().find_map(|finding| match finding {
        Finding::ZeroTable { tensor }
        | Finding::SwappedTable { tensor }
        | Finding::WrongGrid { tensor, .. }
            if stored.contains(tensor) =>
        {
            Some(table(*parameter.shape.last()?, config.grid()))
        }
        Finding::ZeroTensor { tensor, .. } if stored.contains(tensor) => {
            Some(init::values(config, 0, &parameter.name, &parameter.shape))
        }
        _ => None,
    })
}

/// A folder that is removed unless it was renamed.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(out: &Path) -> Result<Self, WeightsError> {
        let name = out.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let path = out.with_file_name(format!(".{name}.tmp-{}", std::process::id()));
        let failed = |source| WeightsError::Io { action: "create", path: path.clone(), source };
        fs::create_dir_all(&path).map_err(failed)?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
