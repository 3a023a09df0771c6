//! What every training keeps beside what it trains: its settings and images, how far it is, and where it tells of that.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Datasets, Evaluation, RunConfig};
use crate::checkpoint::{CheckpointStore, Probed, Progress};
use crate::data::{
    Augmentation, BadSample, BadSampleLog, BatchMaker, BatchPlan, Dataset, Prefetch,
};
use crate::{Event, MetricsLog, Started, Step, TrainerError};

/// The course of a training.
pub(super) struct Course<'a> {
    pub(super) config: &'a RunConfig,
    pub(super) data: &'a Datasets,
    pub(super) plan: BatchPlan,
    pub(super) progress: Progress,
    pub(super) resumed_from: Option<PathBuf>,
    pub(super) last_loss: Option<f64>,
    pub(super) evaluation: Option<Evaluation>,
    pub(super) ema_evaluation: Option<Evaluation>,
    /// Where this process leads.
    log: Option<MetricsLog>,
    bad_samples: BadSampleLog,
}

impl<'a> Course<'a> {
    /// Opens the logs of a training of `parameters` numbers that is where [`begin`](super::resume::begin) found it, and tells of it.
    pub(super) fn open(
        config: &'a RunConfig,
        data: &'a Datasets,
        plan: BatchPlan,
        (resumed_from, progress): (Option<PathBuf>, Progress),
        parameters: usize,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Self, TrainerError> {
        let output = &config.output_dir;
        let mut log = None;
        if config.team.leads() {
            CheckpointStore::new(output, &progress.run).sweep(&progress.identity)?;
            log = Some(MetricsLog::open(&output.join("log.txt"), config.log_dir.as_deref())?);
        }
        let bad_samples = output.join("bad_samples.jsonl");
        let bad_samples =
            BadSampleLog::open(&bad_samples, data.train.len(), config.max_bad_fraction)?;
        let mut course = Self {
            config,
            data,
            plan,
            progress,
            resumed_from,
            last_loss: None,
            evaluation: None,
            ema_evaluation: None,
            log,
            bad_samples,
        };
        on_event(Event::Started(Started {
            images: plan.images,
            updates_per_epoch: plan.updates_per_epoch(),
            total_steps: course.total_steps(),
            effective_batch: config.effective_batch() as u64,
            lr: config.peak_lr(),
            parameters: parameters as u64,
        }));
        if let Some(folder) = &course.resumed_from {
            let step = course.progress.step;
            on_event(Event::Resumed { folder, step });
            course.write_log(&json!({"kind": "resume", "step": step}))?;
        }
        Ok(course)
    }

    /// The batches of the updates from `step` on, made ahead of time.
    pub(super) fn prefetch(
        &self,
        step: u64,
        maker: Arc<BatchMaker>,
    ) -> Result<Prefetch, TrainerError> {
        let team = &self.config.team;
        let (per_update, passed_over) = (self.plan.batches_per_update(), self.progress.passed_over);
        let updates = step + passed_over..self.total_steps() + passed_over;
        let batches = updates.start * per_update..updates.end * per_update;
        let own = batches.skip(team.rank()).step_by(team.size());
        Prefetch::start(maker, own, self.config.workers)
    }

    pub(super) fn batch_maker(&self, augmentation: Augmentation) -> Arc<BatchMaker> {
        Arc::new(BatchMaker {
            dataset: Arc::clone(&self.data.train),
            plan: self.plan,
            augmentation,
            channels: self.config.model.num_channels,
            grid: self.config.model.grid(),
            masking: (self.config.mask_ratio(self.plan), self.config.mask_strategy.clone()),
            seed: self.config.seed,
            on_bad: self.config.on_bad_sample,
        })
    }

    /// Writes down the bad images that each process found in its batch.
    pub(super) fn record_bad(
        &mut self,
        own: &[BadSample],
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        let team = &self.config.team;
        for bad in &team.gather(own.to_vec())?.concat() {
            if team.leads() && self.bad_samples.record(bad)? {
                on_event(Event::BadSample(bad));
            }
        }
        Ok(())
    }

    /// Counts an update and tells of it; `mask_ratio` where it changes.
    pub(super) fn report(
        &mut self,
        step: Step,
        mask_ratio: Option<f64>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        self.progress.epoch_loss += step.loss;
        self.progress.epoch_updates += 1;
        self.last_loss = Some(step.loss);
        let mut line = json!({
            "kind": "step", "step": step.step, "epoch": step.epoch, "loss": step.loss, "lr": step.lr,
            "gradient_norm": step.gradient_norm, "images_per_second": step.images as f64 / step.seconds,
        });
        if let Some(ratio) = mask_ratio {
            line["mask_ratio"] = ratio.into();
        }
        self.write_log(&line)?;
        on_event(Event::Step(step));
        Ok(())
    }

    /// Tells of the epoch that ends with update `step`; gives its number, from 1.
    pub(super) fn end_epoch(
        &mut self,
        step: u64,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<u64, TrainerError> {
        let epoch = step / self.plan.updates_per_epoch();
        let train_loss = self.progress.epoch_loss / self.progress.epoch_updates.max(1) as f64;
        (self.progress.epoch_loss, self.progress.epoch_updates) = (0.0, 0);
        let lr = self.config.schedule().at(self.plan.fractional_epoch(step - 1));
        let mut line = json!({
            "kind": "epoch", "train_lr": lr, "train_loss": train_loss, "epoch": epoch - 1,
            "step": step,
        });
        let Probed { hits, images } = std::mem::take(&mut self.progress.probed);
        if images > 0 {
            let accuracy = hits as f64 / images as f64;
            line["probe_accuracy"] = accuracy.into();
            on_event(Event::Probed { step, accuracy });
        }
        self.write_log(&line)?;
        on_event(Event::EpochEnd { epoch, train_loss, lr });
        Ok(epoch)
    }

    /// The images to judge by, if there are some and it is time after `epoch`.
    pub(super) fn to_judge_by(&self, epoch: u64) -> Option<&'a dyn Dataset> {
        let every = self.config.evaluate_every_epochs;
        let due = epoch == self.config.epochs || epoch.is_multiple_of(every);
        self.data.evaluation.as_deref().filter(|_| due)
    }

    /// Keeps and tells what an evaluation on `images` images found, and that of averaged weights.
    pub(super) fn judged(
        &mut self,
        (step, epoch, images): (u64, u64, usize),
        found: Evaluation,
        of_ema: Option<Evaluation>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        (self.evaluation, self.ema_evaluation) = (Some(found), of_ema);
        let mut line = json!({"kind": "evaluation", "step": step, "epoch": epoch});
        for (ending, found) in [("", Some(found)), ("_ema", of_ema)] {
            let Some(Evaluation { loss, accuracy }) = found else { continue };
            line[format!("val_loss{ending}")] = loss.into();
            if let Some(accuracy) = accuracy {
                line[format!("val_accuracy{ending}")] = accuracy.into();
            }
        }
        let images = images as u64;
        let Evaluation { loss, accuracy } = found;
        on_event(Event::Evaluated { step, loss, accuracy, images });
        if let Some(Evaluation { loss, accuracy }) = of_ema {
            on_event(Event::EmaEvaluated { step, loss, accuracy, images });
        }
        self.write_log(&line)
    }

    /// What the images of an update are called.
    pub(super) fn names(&self, samples: &[u64]) -> Vec<String> {
        samples.iter().map(|&sample| self.data.train.name(sample as usize)).collect()
    }

    pub(super) fn write_log(&mut self, line: &Value) -> Result<(), TrainerError> {
        self.log.as_mut().map_or(Ok(()), |log| log.write(line))
    }

    pub(super) fn total_steps(&self) -> u64 {
        self.config.epochs * self.plan.updates_per_epoch()
    }

    pub(super) fn save_interval(&self) -> u64 {
        let epochs = self.config.save_every_epochs * self.plan.updates_per_epoch();
        self.config.save_every_steps.unwrap_or(epochs)
    }
}
