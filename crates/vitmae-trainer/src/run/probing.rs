//! The original's linear probe: batch normalisation and a linear layer on the features of a frozen encoder, trained by LARS on
//! images that are cropped and mirrored anew in each epoch.
//!
//! It is a loop of its own beside [`run`](super::run): the encoder runs forward alone, nothing but the head changes, and the
//! head's optimizer and running statistics are no parameters of a model. Data order, logs, checkpoints and
//! resume are those of a run ([`Course`], [`Saver`]).

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::json;
use vitmae_image::{Fit, RandomResizedCrop};
use vitmae_model::{ForwardOptions, Head, VitForImageClassification};
use vitmae_tensor::{Device, Tensor};
use vitmae_weights::folder::PREPROCESSOR_FILE;
use vitmae_weights::save_pretrained;

use super::course::Course;
use super::saver::Saver;
use super::{Datasets, RunConfig, Summary, Task, begin, checked_plan, dump, failed, locked};
use crate::checkpoint::write_progress;
use crate::data::{Augmentation, Batch, BatchPlan, Prefetch};
use crate::linear_probe::{ProbeGradient, ProbeHead};
use crate::{Classes, Event, FinetuneConfig, Lars, Step, StopFlag, TrainerError};

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
    course: Course<'a>,
    /// The frozen encoder; its classifier is written where somebody reads it.
    model: VitForImageClassification,
    head: ProbeHead,
    saver: Saver,
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
        let begun = begin(run, identity, on_event)?;
        let (classes, width) = (config.classes.names.len(), run.model.hidden_size);
        let (mut model, head) = match &begun.0 {
            None => {
                let model = classifier.first_model(&classifier.run, device)?;
                (model, ProbeHead::new(classes, width, run.seed))
            }
            Some(folder) => {
                let head = ProbeHead::read(&folder.join(PROBE_FILE), classes, width)?;
                (classifier.load(folder, device)?, head)
            }
        };
        model.set_precision(run.precision);
        model.vit.pack_weights()?;
        let saver = Saver::new(run, &begun.1);
        let parameters = head.weight.len() + head.bias.len();
        let course = Course::open(run, data, plan, begun, parameters, on_event)?;
        Ok(Self { config, classifier, course, model, head, saver })
    }

    fn train(
        &mut self,
        stop: &StopFlag,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Summary<VitForImageClassification>, TrainerError> {
        let maker = self.course.batch_maker(self.config.augmentation());
        let mut prefetch = self.course.prefetch(self.course.progress.step, maker)?;
        let (total, interval) = (self.course.total_steps(), self.course.save_interval());
        while self.course.progress.step < total && stop.get().is_none() {
            self.update(&mut prefetch, on_event)?;
            let step = self.course.progress.step;
            if step.is_multiple_of(self.course.plan.updates_per_epoch()) {
                self.end_epoch(on_event)?;
            }
            if step < total && step.is_multiple_of(interval) {
                let write = self.checkpoint()?;
                self.saver.start(step, write, on_event)?;
            }
        }
        let (step, write) = (self.course.progress.step, self.checkpoint()?);
        let resumed_from = self.course.resumed_from.as_ref();
        let checkpoint = self.saver.conclude(step, resumed_from, write, on_event)?;
        Ok(Summary {
            model: self.model.clone(),
            step,
            last_loss: self.course.last_loss,
            evaluation: self.course.evaluation,
            ema_evaluation: None,
            checkpoint,
            stopped: stop.get().filter(|_| step < total),
        })
    }

    fn update(
        &mut self,
        prefetch: &mut Prefetch,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        let start = Instant::now();
        let before = self.head.clone();
        let plan = self.course.plan;
        let share = 1.0 / plan.accumulation as f64;
        let (mut loss, mut data_seconds) = (0.0, 0.0);
        let (mut gradient, mut samples) = (ProbeGradient::default(), Vec::new());
        for _ in 0..plan.accumulation {
            let waiting = Instant::now();
            let batch = prefetch.next_batch().unwrap_or(Err(TrainerError::WorkerLost))?;
            data_seconds += waiting.elapsed().as_secs_f64();
            self.course.record_bad(&batch.bad, on_event)?;
            loss += share * self.accumulate(&batch, share, &mut gradient)?;
            samples.extend(batch.samples);
        }
        let step = self.course.progress.step + 1;
        let epoch = plan.fractional_epoch(step - 1);
        let lr = self.config.run.schedule().at(epoch);
        let gradient_norm = self.head.update(gradient, &self.config.lars, lr)?;
        if !(loss.is_finite() && gradient_norm.is_finite()) {
            self.head = before;
            let write = self.checkpoint()?;
            let numbers = (loss, gradient_norm);
            return Err(dump::write(&self.course, (step, &samples), numbers, json!({}), write));
        }
        self.course.progress.step = step;
        let told = Step {
            step,
            total_steps: self.course.total_steps(),
            epoch,
            loss,
            lr,
            gradient_norm,
            images: samples.len() as u64,
            seconds: start.elapsed().as_secs_f64(),
            data_seconds,
        };
        self.course.report(told, None, on_event)
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

    fn end_epoch(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<(), TrainerError> {
        let step = self.course.progress.step;
        let epoch = self.course.end_epoch(step, on_event)?;
        let Some(dataset) = self.course.to_judge_by(epoch) else { return Ok(()) };
        self.write_classifier()?;
        let found = self.classifier.evaluate(&self.config.run, &self.model, dataset)?;
        self.course.judged((step, epoch, dataset.len()), found, None, on_event)
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

    /// What writes the state as it is now.
    fn checkpoint(
        &mut self,
    ) -> Result<impl FnOnce(&Path) -> Result<(), TrainerError> + Send + use<>, TrainerError> {
        self.write_classifier()?;
        let (model, head) = (self.model.clone(), self.head.clone());
        let (progress, processor) =
            (self.course.progress.clone(), self.config.run.processor.to_json());
        Ok(move |folder: &Path| {
            write_progress(folder, &progress)?;
            let path = folder.join(PREPROCESSOR_FILE);
            fs::write(&path, processor).map_err(failed("write", &path))?;
            save_pretrained(&model, folder)?;
            head.write(&folder.join(PROBE_FILE))
        })
    }
}
