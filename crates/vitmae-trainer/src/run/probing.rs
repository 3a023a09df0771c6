//! The original's linear probe: batch normalisation and a linear layer on the features of a frozen encoder, trained by LARS on
//! images that are cropped and mirrored anew in each epoch.
//!
//! It is a loop of its own beside [`run`](super::run): the encoder runs forward alone, nothing but the head changes, and the
//! head's optimizer and running statistics are no parameters of a model. Data order, logs, checkpoints and
//! resume are those of a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;
use vitmae_image::{Fit, RandomResizedCrop};
use vitmae_model::{ForwardOptions, Head, VitForImageClassification};
use vitmae_tensor::{Device, Tensor};
use vitmae_weights::folder::PREPROCESSOR_FILE;
use vitmae_weights::save_pretrained;

use super::config::differences;
use super::{
    Datasets, Evaluation, RunConfig, Summary, Task, checked_plan, failed, find_checkpoint, locked,
    new_run_name,
};
use crate::checkpoint::{
    CheckpointStore, Progress, folder_name, read_progress, text_hash, write_progress,
};
use crate::data::{Augmentation, BadSampleLog, Batch, BatchMaker, BatchPlan, MaskRatio, Prefetch};
use crate::linear_probe::{ProbeGradient, ProbeHead};
use crate::{
    Classes, Event, FinetuneConfig, Lars, MetricsLog, Started, Step, StopFlag, TrainerError,
};

/// The file of the head in training, beside the classifier that it makes with the encoder.
pub const PROBE_FILE: &str = "probe.safetensors";

/// The settings of a linear probe.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeConfig {
    /// Those that every run has; `start_from` has the encoder. Optimizer, clipping and averages of weights are not used.
    pub run: RunConfig,
    /// Classes of the training images.
    pub classes: Classes,
    /// Labels of the evaluation images, by the same names.
    pub evaluation_labels: Vec<usize>,
    /// Which vector stands for an image. With [`Head::MeanFcNorm`] its norm is new: scale 1, shift 0.
    pub head: Head,
    /// The optimizer.
    pub lars: Lars,
}

impl ProbeConfig {
    /// The original's defaults: 90 epochs with 10 of warm-up, a learning rate of 0.1 for 256 images down to 0, crops from 0.08 of
    /// an image on, the class token.
    ///
    /// Source: `main_linprobe.py` of facebookresearch/mae, by name and value only.
    pub fn new(run: RunConfig, classes: Classes, evaluation_labels: Vec<usize>) -> Self {
        let run = RunConfig {
            epochs: 90,
            warmup_epochs: 10.0,
            blr: 0.1,
            min_lr: 0.0,
            crop_scale: (0.08, 1.0),
            save_every_epochs: 1,
            ..run
        };
        let (head, lars) = (Head::Cls, Lars::default());
        Self { run, classes, evaluation_labels, head, lars }
    }

    fn validate(&self) -> Result<(), TrainerError> {
        self.run.validate()?;
        let Lars { momentum, trust, weight_decay } = self.lars;
        let bad =
            |key, found: String, expected| Err(TrainerError::Setting { key, found, expected });
        if !(0.0..1.0).contains(&momentum) {
            return bad("momentum", momentum.to_string(), "from 0 to below 1");
        }
        for (key, value) in [("trust", trust), ("weight_decay", weight_decay)] {
            if !(value >= 0.0 && value.is_finite()) {
                return bad(key, value.to_string(), "a number from 0 up");
            }
        }
        if self.run.batch_size < 2 {
            let expected = "at least 2, since features are normalised over a batch";
            return bad("batch_size", self.run.batch_size.to_string(), expected);
        }
        if self.run.team.size() > 1 {
            return bad("processes", self.run.team.size().to_string(), "1 for a linear probe");
        }
        Ok(())
    }

    /// The classifier that encoder and head become, and how it is judged.
    fn classifier(&self) -> FinetuneConfig {
        let labels = self.evaluation_labels.clone();
        let mut made = FinetuneConfig::new(self.run.clone(), self.classes.clone(), labels);
        made.run = self.run.clone();
        made.head = self.head;
        made.name_classes();
        made
    }

    fn augmentation(&self) -> Augmentation {
        let all = self.run.augmentation();
        let crop = RandomResizedCrop { fit: Fit::Clamp, ..all.crop };
        Augmentation { crop, ..all }
    }
}

/// Trains a linear classifier on a frozen encoder until the last epoch is done or `stop` is set; saves in either case, and each
/// checkpoint is a classifier like those of fine-tuning. Resumes exactly, as [`pretrain`](crate::pretrain()) does.
///
/// # Errors
/// [`TrainerError`]; what was saved before stays as it is.
pub fn train_probe(
    config: &ProbeConfig,
    data: &Datasets,
    device: &Device,
    stop: &StopFlag,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Summary<VitForImageClassification>, TrainerError> {
    config.validate()?;
    let plan = checked_plan(&config.run, data)?;
    locked(&config.run.output_dir, || {
        Probing::set_up(config, data, plan, device, on_event)?.train(stop, on_event)
    })
}

struct Probing<'a> {
    config: &'a ProbeConfig,
    classifier: FinetuneConfig,
    data: &'a Datasets,
    plan: BatchPlan,
    /// The frozen encoder; its classifier is written where somebody reads it.
    model: VitForImageClassification,
    head: ProbeHead,
    progress: Progress,
    store: CheckpointStore,
    log: MetricsLog,
    bad_samples: BadSampleLog,
    saved: Option<PathBuf>,
    last_loss: Option<f64>,
    evaluation: Option<Evaluation>,
}

impl<'a> Probing<'a> {
    fn set_up(
        config: &'a ProbeConfig,
        data: &'a Datasets,
        plan: BatchPlan,
        device: &Device,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Self, TrainerError> {
        let (run, classifier) = (&config.run, config.classifier());
        let Lars { momentum, trust, weight_decay } = config.lars;
        let mut identity = classifier.run.identity(data.train.as_ref());
        identity["task"] = json!({
            "linear_probe": format!("{:?}", config.head),
            "classes": config.classes.names,
            "momentum": momentum,
            "trust": trust,
            "weight_decay": weight_decay,
        });
        let saved = find_checkpoint(run, on_event)?;
        let (mut model, head, mut progress) = match &saved {
            None => {
                let model = classifier.first_model(&classifier.run, device)?;
                let (classes, width) = (config.classes.names.len(), run.model.hidden_size);
                let head = ProbeHead::new(classes, width, run.seed);
                (model, head, Progress::new(new_run_name(), identity.clone()))
            }
            Some(folder) => {
                let progress = read_progress(folder)?;
                let differences = differences(&progress.identity, &identity);
                if !differences.is_empty() && !run.override_settings {
                    let folder = folder.clone();
                    return Err(TrainerError::OtherSettings { folder, differences });
                }
                let model = classifier.load(folder, device)?;
                let (classes, width) = (config.classes.names.len(), run.model.hidden_size);
                (model, ProbeHead::read(&folder.join(PROBE_FILE), classes, width)?, progress)
            }
        };
        progress.identity = identity;
        model.set_precision(run.precision);
        model.vit.pack_weights()?;
        let store = CheckpointStore::new(&run.output_dir, &progress.run);
        store.sweep(&progress.identity)?;
        let bad_samples = run.output_dir.join("bad_samples.jsonl");
        let mut probing = Self {
            log: MetricsLog::open(&run.output_dir.join("log.txt"), run.log_dir.as_deref())?,
            bad_samples: BadSampleLog::open(&bad_samples, data.train.len(), run.max_bad_fraction)?,
            config,
            classifier,
            data,
            plan,
            model,
            head,
            progress,
            store,
            saved,
            last_loss: None,
            evaluation: None,
        };
        on_event(Event::Started(Started {
            images: plan.images,
            updates_per_epoch: plan.updates_per_epoch(),
            total_steps: probing.total_steps(),
            effective_batch: run.effective_batch() as u64,
            lr: run.peak_lr(),
            parameters: (probing.head.weight.len() + probing.head.bias.len()) as u64,
        }));
        if let Some(folder) = &probing.saved {
            let step = probing.progress.step;
            on_event(Event::Resumed { folder, step });
            probing.log.write(&json!({"kind": "resume", "step": step}))?;
        }
        Ok(probing)
    }

    fn train(
        &mut self,
        stop: &StopFlag,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Summary<VitForImageClassification>, TrainerError> {
        let mut prefetch = self.prefetch()?;
        let per_epoch = self.plan.updates_per_epoch();
        let run = &self.config.run;
        let interval = run.save_every_steps.unwrap_or(run.save_every_epochs * per_epoch);
        let mut saved_at = self.saved.as_ref().map(|_| self.progress.step);
        while self.progress.step < self.total_steps() && stop.get().is_none() {
            self.update(&mut prefetch, on_event)?;
            let step = self.progress.step;
            if step.is_multiple_of(per_epoch) {
                self.end_epoch(step / per_epoch, on_event)?;
            }
            if step.is_multiple_of(interval) {
                self.save(on_event)?;
                saved_at = Some(step);
            }
        }
        if saved_at != Some(self.progress.step) {
            self.save(on_event)?;
        }
        self.write_classifier()?;
        let step = self.progress.step;
        Ok(Summary {
            model: self.model.clone(),
            step,
            last_loss: self.last_loss,
            evaluation: self.evaluation,
            ema_evaluation: None,
            checkpoint: self.saved.clone().unwrap_or_default(),
            stopped: stop.get().filter(|_| step < self.total_steps()),
        })
    }

    fn update(
        &mut self,
        prefetch: &mut Prefetch,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        let start = Instant::now();
        let before = self.head.clone();
        let share = 1.0 / self.plan.accumulation as f64;
        let (mut loss, mut data_seconds) = (0.0, 0.0);
        let (mut gradient, mut samples) = (ProbeGradient::default(), Vec::new());
        for _ in 0..self.plan.accumulation {
            let waiting = Instant::now();
            let batch = prefetch.next_batch().unwrap_or(Err(TrainerError::WorkerLost))?;
            data_seconds += waiting.elapsed().as_secs_f64();
            for bad in &batch.bad {
                if self.bad_samples.record(bad)? {
                    on_event(Event::BadSample(bad));
                }
            }
            loss += share * self.accumulate(&batch, share, &mut gradient)?;
            samples.extend(batch.samples);
        }
        let step = self.progress.step + 1;
        let epoch = self.plan.fractional_epoch(step - 1);
        let lr = self.config.run.schedule().at(epoch);
        let norm = self.head.update(gradient, &self.config.lars, lr)?;
        if !(loss.is_finite() && norm.is_finite()) {
            self.head = before;
            return Err(self.dump(step, &samples, loss, norm));
        }
        self.progress.step = step;
        self.progress.epoch_loss += loss;
        self.progress.epoch_updates += 1;
        self.last_loss = Some(loss);
        let (seconds, images) = (start.elapsed().as_secs_f64(), samples.len() as u64);
        self.log.write(&json!({
            "kind": "step", "step": step, "epoch": epoch, "loss": loss, "lr": lr,
            "gradient_norm": norm, "images_per_second": images as f64 / seconds,
        }))?;
        let total_steps = self.total_steps();
        on_event(Event::Step(Step {
            step,
            total_steps,
            epoch,
            loss,
            lr,
            gradient_norm: norm,
            images,
            seconds,
            data_seconds,
        }));
        Ok(())
    }

    fn accumulate(
        &mut self,
        batch: &Batch,
        share: f64,
        gradient: &mut ProbeGradient,
    ) -> Result<f64, TrainerError> {
        let model = &self.config.run.model;
        let (height, width) = model.image_size;
        let shape = [batch.samples.len(), model.num_channels, height, width];
        let pixels = Tensor::from_slice(self.model.vit.device(), &shape, &batch.pixels)?;
        let features = self.model.features(&pixels, &ForwardOptions::default())?.to_vec()?;
        let of = |&sample: &u64| self.config.classes.labels[sample as usize];
        let labels: Vec<usize> = batch.samples.iter().map(of).collect();
        self.head.accumulate(features, &labels, share, gradient)
    }

    fn end_epoch(
        &mut self,
        epoch: u64,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        let train_loss = self.progress.epoch_loss / self.progress.epoch_updates.max(1) as f64;
        (self.progress.epoch_loss, self.progress.epoch_updates) = (0.0, 0);
        let (step, run) = (self.progress.step, &self.config.run);
        let lr = run.schedule().at(self.plan.fractional_epoch(step - 1));
        self.log.write(&json!({
            "kind": "epoch", "train_lr": lr, "train_loss": train_loss, "epoch": epoch - 1,
            "step": step,
        }))?;
        on_event(Event::EpochEnd { epoch, train_loss, lr });
        let Some(dataset) = &self.data.evaluation else { return Ok(()) };
        if epoch == run.epochs || epoch.is_multiple_of(run.evaluate_every_epochs) {
            self.write_classifier()?;
            let found = self.classifier.evaluate(run, &self.model, dataset.as_ref())?;
            self.evaluation = Some(found);
            let Evaluation { loss, accuracy } = found;
            self.log.write(&json!({
                "kind": "evaluation", "step": step, "epoch": epoch, "val_loss": loss,
                "val_accuracy": accuracy,
            }))?;
            let images = dataset.len() as u64;
            on_event(Event::Evaluated { step, loss, accuracy, images });
        }
        Ok(())
    }

    /// Puts the head as it stands into the model.
    fn write_classifier(&mut self) -> Result<(), TrainerError> {
        let (weight, bias) = self.head.norm.folded(&self.head.weight, &self.head.bias);
        self.model.classifier.weight.set(&weight)?;
        if let Some(parameter) = &mut self.model.classifier.bias {
            parameter.set(&bias)?;
        }
        Ok(())
    }

    fn save(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<(), TrainerError> {
        self.write_classifier()?;
        let step = self.progress.step;
        let folder = self.save_in(&self.store)?;
        self.store.rotate(step, self.config.run.keep_last)?;
        on_event(Event::Saved { folder: folder.clone(), step });
        self.saved = Some(folder);
        Ok(())
    }

    fn save_in(&self, store: &CheckpointStore) -> Result<PathBuf, TrainerError> {
        let hash = text_hash(&self.progress.identity.to_string());
        store.save(self.progress.step, &hash, |folder| {
            write_progress(folder, &self.progress)?;
            let path = folder.join(PREPROCESSOR_FILE);
            fs::write(&path, self.config.run.processor.to_json())
                .map_err(failed("write", &path))?;
            save_pretrained(&self.model, folder)?;
            self.head.write(&folder.join(PROBE_FILE))
        })
    }

    /// Writes `nan_dump/` and gives the error that ends the run; the head is as it was before the update.
    fn dump(&mut self, step: u64, samples: &[u64], loss: f64, norm: f64) -> TrainerError {
        let folder = self.config.run.output_dir.join("nan_dump");
        let (what, value) =
            if loss.is_finite() { ("the gradient's norm", norm) } else { ("the loss", loss) };
        let written = self.write_dump(&folder, step, samples, loss, norm);
        match written {
            Ok((dump, checkpoint)) => {
                TrainerError::NonFinite { step, what: what.to_owned(), value, dump, checkpoint }
            }
            Err(error) => error,
        }
    }

    fn write_dump(
        &mut self,
        folder: &Path,
        step: u64,
        samples: &[u64],
        loss: f64,
        norm: f64,
    ) -> Result<(PathBuf, PathBuf), TrainerError> {
        self.write_classifier()?;
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        let checkpoint = match &self.saved {
            Some(saved) if saved.ends_with(folder_name(step - 1)) => saved.clone(),
            _ => self.save_in(&CheckpointStore::new(folder, &self.progress.run))?,
        };
        let images: Vec<String> =
            samples.iter().map(|&sample| self.data.train.name(sample as usize)).collect();
        // JSON has no NaN, so these two are texts.
        let report = json!({
            "step": step, "samples": samples, "images": images, "loss": loss.to_string(),
            "gradient_norm": norm.to_string(), "checkpoint": checkpoint,
            "settings": self.progress.identity,
        });
        let path = folder.join(format!("step-{step:08}.json"));
        fs::write(&path, format!("{report:#}\n")).map_err(failed("write", &path))?;
        Ok((path, checkpoint))
    }

    fn prefetch(&self) -> Result<Prefetch, TrainerError> {
        let run = &self.config.run;
        let maker = BatchMaker {
            dataset: self.data.train.clone(),
            plan: self.plan,
            augmentation: self.config.augmentation(),
            channels: run.model.num_channels,
            grid: run.model.grid(),
            masking: (MaskRatio::constant(run.model.mask_ratio), run.mask_strategy.clone()),
            seed: run.seed,
            on_bad: run.on_bad_sample,
        };
        let per_update = self.plan.batches_per_update();
        let batches = self.progress.step * per_update..self.total_steps() * per_update;
        Prefetch::start(maker.into(), batches, run.workers)
    }

    fn total_steps(&self) -> u64 {
        self.config.run.epochs * self.plan.updates_per_epoch()
    }
}
