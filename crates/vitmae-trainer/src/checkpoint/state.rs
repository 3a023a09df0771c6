//! What a checkpoint holds, written and read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vitmae_image::VitImageProcessor;
use vitmae_model::{ModelError, VitMaeForPreTraining};
use vitmae_tensor::{Device, Tensor};
use vitmae_weights::folder::{PREPROCESSOR_FILE, read_json_text};
use vitmae_weights::{Dtype, SafetensorsFile, TensorToWrite, save_pretrained, write_safetensors};

use crate::adamw::Moments;
use crate::online_probe::OnlineProbe;
use crate::run::{MODEL_EMA, ONLINE_PROBE};
use crate::{AdamW, AdamWOptions, Ema, TrainState, Trainable, TrainerError};

/// The file of the optimizer's moments.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// The file of everything else that training needs.
pub const STATE_FILE: &str = "state.json";
/// The file of the classifier that learns beside a pre-training.
pub const ONLINE_PROBE_FILE: &str = "online_probe.safetensors";
/// The folder of the averaged model.
pub const EMA_FOLDER: &str = "ema";
/// Names of the two moments, as PyTorch has them.
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The run's name; rotation removes only checkpoints that carry it.
    pub run: String,
    /// Updates made.
    pub step: u64,
    /// Sum of the losses of the current epoch's updates.
    pub epoch_loss: f64,
    /// Updates of the current epoch.
    pub epoch_updates: u64,
    /// Updates whose images were passed over, because one of them gave no finite loss.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub passed_over: u64,
    /// What a classifier beside the model found in the current epoch.
    #[serde(default, skip_serializing_if = "Probed::is_empty")]
    pub probed: Probed,
    /// The settings that decide the result.
    pub identity: serde_json::Value,
}

/// Counts of a classifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// Images whose class it found.
    pub hits: u64,
    /// Images it saw.
    pub images: u64,
}

impl Probed {
    fn is_empty(&self) -> bool {
        self.images == 0
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Progress {
    /// Before the first update.
    pub fn new(run: String, identity: serde_json::Value) -> Progress {
        Progress {
            run,
            step: 0,
            epoch_loss: 0.0,
            epoch_updates: 0,
            passed_over: 0,
            probed: Probed::default(),
            identity,
        }
    }
}

/// A copy of a run's state that can be written while training goes on.
pub struct Snapshot<M = VitMaeForPreTraining> {
    model: M,
    ema: Option<M>,
    probe: Option<OnlineProbe>,
    processor: VitImageProcessor,
    moments: Vec<NamedMoments>,
    progress: Progress,
}

/// The moments of one parameter.
struct NamedMoments {
    name: String,
    moments: Moments,
}

impl<M: Trainable> Snapshot<M> {
    /// Copies the state; tensors are shared until the next update writes them.
    pub fn of(
        state: &TrainState<M>,
        processor: &VitImageProcessor,
        progress: Progress,
    ) -> Snapshot<M> {
        let parameters = state.model.parameters();
        let moments =
            parameters.iter().zip(state.optimizer.moments()).filter_map(|(p, moments)| {
                let moments = moments.clone()?;
                Some(NamedMoments { name: p.name.clone(), moments })
            });
        Snapshot {
            moments: moments.collect(),
            model: state.model.clone(),
            ema: state.ema.as_ref().map(|ema| ema.model.clone()),
            probe: state.probe.clone(),
            processor: processor.clone(),
            progress,
        }
    }

    /// Writes every file but the manifest into `folder`, the state first: it tells whose a
    /// half-written folder is.
    ///
    /// # Errors
    /// [`TrainerError::Io`] and [`TrainerError::Weights`].
    pub fn write(&self, folder: &Path) -> Result<(), TrainerError> {
        write_progress(folder, &self.progress)?;
        write(&folder.join(PREPROCESSOR_FILE), &self.processor.to_json())?;
        save_pretrained(&self.model, folder)?;
        if let Some(ema) = &self.ema {
            let folder = folder.join(EMA_FOLDER);
            fs::create_dir(&folder).map_err(failed("create", &folder))?;
            write(&folder.join(PREPROCESSOR_FILE), &self.processor.to_json())?;
            save_pretrained(ema, &folder)?;
        }
        if let Some(probe) = &self.probe {
            probe.write(&folder.join(ONLINE_PROBE_FILE))?;
        }
        self.write_moments(&folder.join(OPTIMIZER_FILE))
    }

    fn write_moments(&self, path: &Path) -> Result<(), TrainerError> {
        let mut tensors = Vec::new();
        let mut values = BTreeMap::new();
        for NamedMoments { name, moments } in &self.moments {
            for (kind, tensor) in MOMENTS.into_iter().zip([&moments.m, &moments.v]) {
                let name = format!("{kind}.{name}");
                let shape = tensor.shape().to_vec();
                tensors.push(TensorToWrite { name: name.clone(), dtype: Dtype::F32, shape });
                values.insert(name, tensor);
            }
        }
        write_safetensors(path, &BTreeMap::new(), &tensors, |tensor| {
            Ok(values[&tensor.name].to_vec().map_err(ModelError::from)?)
        })?;
        Ok(())
    }
}

/// Reads a verified checkpoint back: the state to go on with, and where it stands. `load` reads the model.
///
/// # Errors
/// [`TrainerError::CheckpointContents`] if the files do not fit together, and those of reading.
pub fn restore<M: Trainable>(
    folder: &Path,
    device: &Device,
    options: AdamWOptions,
    load: impl Fn(&Path) -> Result<M, TrainerError>,
) -> Result<(TrainState<M>, Progress), TrainerError> {
    let progress = read_progress(folder)?;
    let model = load(folder)?;
    let mut file = SafetensorsFile::open(&folder.join(OPTIMIZER_FILE))?;
    let mut optimizer = AdamW::new(&model.parameters(), options)?;
    let mut expected = 0;
    for (parameter, moments) in model.parameters().iter().zip(optimizer.moments_mut()) {
        let Some(moments) = moments else { continue };
        for (kind, tensor) in MOMENTS.into_iter().zip([&mut moments.m, &mut moments.v]) {
            let name = format!("{kind}.{}", parameter.name);
            let shape = file.get(&name).map(|info| info.shape.clone());
            if shape.as_deref() != Some(parameter.value.shape()) {
                let found = shape.map_or("missing".to_owned(), |shape| format!("{shape:?}"));
                let expected = format!("{:?}", parameter.value.shape());
                return Err(contents(folder, format!("`{name}`"), found, expected));
            }
            *tensor = Tensor::from_vec(device, parameter.value.shape(), file.read_f32(&name)?)?;
            expected += 1;
        }
    }
    if file.tensors().len() != expected {
        let (what, found) = ("the number of moments".to_owned(), file.tensors().len());
        return Err(contents(folder, what, found.to_string(), expected.to_string()));
    }
    optimizer.set_updates(progress.step);
    let mut state = TrainState::resumed(model, optimizer, progress.step)?;
    if !progress.identity[ONLINE_PROBE].is_null() {
        let width = state.model.config().hidden_size;
        let path = folder.join(ONLINE_PROBE_FILE);
        state.probe = Some(OnlineProbe::read(&path, device, width)?);
    }
    if let Some(decay) = progress.identity[MODEL_EMA].as_f64() {
        state.ema = Some(Ema { model: load(&folder.join(EMA_FOLDER))?, decay });
    }
    Ok((state, progress))
}

pub(crate) fn write_progress(folder: &Path, progress: &Progress) -> Result<(), TrainerError> {
    let path = folder.join(STATE_FILE);
    let text = serde_json::to_string_pretty(progress);
    let text = text.map_err(|error| failed("write", &path)(error.into()))?;
    write(&path, &format!("{text}\n"))
}

pub(crate) fn read_progress(folder: &Path) -> Result<Progress, TrainerError> {
    let path = folder.join(STATE_FILE);
    let text = read_json_text(&path)?.unwrap_or_default();
    serde_json::from_str(&text).map_err(|error| {
        let expected = "the state of a run".to_owned();
        contents(folder, format!("`{STATE_FILE}`"), error.to_string(), expected)
    })
}

/// Where the run stood that wrote the files of `folder`, if its state can be read.
pub(super) fn progress_of(folder: &Path) -> Option<Progress> {
    read_progress(folder).ok()
}

fn contents(folder: &Path, what: String, found: String, expected: String) -> TrainerError {
    TrainerError::CheckpointContents { folder: folder.to_path_buf(), what, found, expected }
}

fn write(path: &Path, text: &str) -> Result<(), TrainerError> {
    fs::write(path, text).map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> TrainerError {
    let path = path.to_path_buf();
    move |source| TrainerError::Io { action, path: path.clone(), source }
}
