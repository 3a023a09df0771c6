//! A run: set up or resume, then update after update until the end or a stop. What is trained, and how a batch becomes a
//! loss, is its [`Task`]'s.

mod config;
mod dump;
mod nan_policy;
mod probing;
mod resume;
mod saver;
mod task;
mod updates;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use vitmae_tensor::Device;
use vitmae_weights::Pretrained;

use crate::checkpoint::{self, CheckpointStore, Probed, Progress, Snapshot, restore, text_hash};
use crate::data::{BadSampleLog, BatchMaker, BatchPlan, Dataset, Prefetch};
use crate::gradient_sums::GradientSums;
use crate::online_probe::OnlineProbe;
use crate::reconstruction::sheets;
use crate::spikes::Spikes;
use crate::{Ema, Event, MetricsLog, Started, StopFlag, TrainState, Trainable, TrainerError};

pub use config::{IMAGENET_MEAN, IMAGENET_STD, Resume, RunConfig};
pub(crate) use config::{MODEL_EMA, ONLINE_PROBE};
pub use nan_policy::NanPolicy;
use nan_policy::RolledBack;
pub use probing::{PROBE_FILE, ProbeConfig, train_probe};
use resume::find_checkpoint;
use saver::Saver;
pub use task::Evaluation;
pub(crate) use task::Task;
use updates::{Launched, Ready};

/// The images of a run.
#[derive(Clone)]
pub struct Datasets {
    /// To train on.
    pub train: Arc<dyn Dataset>,
    /// To evaluate on, if any.
    pub evaluation: Option<Arc<dyn Dataset>>,
}

/// How a run ended.
pub struct Summary<M = vitmae_model::VitMaeForPreTraining> {
    /// The model as it is now.
    pub model: M,
    /// Updates made in all.
    pub step: u64,
    /// Loss of the last update; none if there was nothing left to do.
    pub last_loss: Option<f64>,
    /// The last evaluation.
    pub evaluation: Option<Evaluation>,
    /// That of the average of weights, if one is kept.
    pub ema_evaluation: Option<Evaluation>,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// The reason of the [`StopFlag`], if it ended the run early.
    pub stopped: Option<usize>,
}

/// Runs a task until the last epoch is done or `stop` is set; saves in either case.
pub(crate) fn run<T: Task>(
    task: &T,
    config: &RunConfig,
    data: &Datasets,
    device: &Device,
    stop: &StopFlag,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Summary<T::Model>, TrainerError> {
    config.validate()?;
    let plan = checked_plan(config, data)?;
    if !config.team.leads() {
        return Run::set_up(task, config, data, plan, device, &mut |_| {})?
            .train(stop, &mut |_| {});
    }
    locked(&config.output_dir, || {
        Run::set_up(task, config, data, plan, device, on_event)?.train(stop, on_event)
    })
}

/// How batches follow one another, if there are images for one update.
fn checked_plan(config: &RunConfig, data: &Datasets) -> Result<BatchPlan, TrainerError> {
    let plan = config.plan(data.train.len());
    if plan.updates_per_epoch() == 0 {
        return Err(TrainerError::TooFewImages {
            found: plan.images,
            needed: config.effective_batch() as u64,
            batch_size: plan.batch_size,
            accumulation: plan.accumulation * plan.processes,
        });
    }
    Ok(plan)
}

/// Does `work` while no other run can write into `output`, which is made if needed.
fn locked<R>(
    output: &Path,
    work: impl FnOnce() -> Result<R, TrainerError>,
) -> Result<R, TrainerError> {
    fs::create_dir_all(output).map_err(failed("create", output))?;
    let lock_path = output.join(".lock");
    let lock_file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path);
    let mut lock = fd_lock::RwLock::new(lock_file.map_err(failed("open", &lock_path))?);
    let Ok(_guard) = lock.try_write() else {
        return Err(TrainerError::OutputInUse { folder: output.to_path_buf() });
    };
    work()
}

/// Everything a running training holds.
struct Run<'a, T: Task> {
    task: &'a T,
    config: &'a RunConfig,
    data: &'a Datasets,
    plan: BatchPlan,
    device: Device,
    state: TrainState<T::Model>,
    progress: Progress,
    saver: Saver,
    /// Where this process leads.
    log: Option<MetricsLog>,
    bad_samples: BadSampleLog,
    /// The next batch, where it crosses to the device ahead of time.
    ready: Option<Result<Ready<T::Input>, TrainerError>>,
    launched: Vec<Launched>,
    skipped_in_a_row: u32,
    rolled_back: Option<RolledBack>,
    spikes: Spikes,
    last_loss: Option<f64>,
    evaluation: Option<Evaluation>,
    ema_evaluation: Option<Evaluation>,
    resumed_from: Option<PathBuf>,
}

impl<'a, T: Task> Run<'a, T> {
    fn set_up(
        task: &'a T,
        config: &'a RunConfig,
        data: &'a Datasets,
        plan: BatchPlan,
        device: &Device,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Run<'a, T>, TrainerError> {
        let output = &config.output_dir;
        let mut identity = config.identity(data.train.as_ref());
        if let (Some(own), Some(all)) = (task.identity(), identity.as_object_mut()) {
            all.insert("task".to_owned(), own);
        }
        let team = &config.team;
        team.same("settings or images", || Ok(text_hash(&identity.to_string())))?;
        let resume = team.ask_leader(|| find_checkpoint(config, on_event))?;
        let (mut state, mut progress) = match &resume {
            Some(folder) => {
                restore(folder, device, config.adamw, |folder| task.load(folder, device))?
            }
            None => {
                let state = TrainState::new(task.first_model(config, device)?, config.adamw)?;
                (state, Progress::new(new_run_name(), identity.clone()))
            }
        };
        equip(&mut state, task, config)?;
        if let Some(folder) = &resume {
            let differences = config::differences(&progress.identity, &identity);
            if !differences.is_empty() && !config.override_settings {
                let folder = folder.clone();
                return Err(TrainerError::OtherSettings { folder, differences });
            }
            progress.identity = identity;
        }
        let store = CheckpointStore::new(output, &progress.run);
        let mut log = None;
        if team.leads() {
            store.sweep(&progress.identity)?;
            log = Some(MetricsLog::open(&output.join("log.txt"), config.log_dir.as_deref())?);
        }
        let hash = text_hash(&progress.identity.to_string());
        let mut run = Run {
            task,
            saver: Saver::new(store, hash, config.keep_last),
            log,
            bad_samples: BadSampleLog::open(
                &output.join("bad_samples.jsonl"),
                data.train.len(),
                config.max_bad_fraction,
            )?,
            config,
            data,
            plan,
            device: device.clone(),
            state,
            progress,
            ready: None,
            launched: Vec::new(),
            skipped_in_a_row: 0,
            rolled_back: None,
            spikes: Spikes::default(),
            last_loss: None,
            evaluation: None,
            ema_evaluation: None,
            resumed_from: resume,
        };
        run.state.compare()?;
        run.announce(on_event)?;
        Ok(run)
    }

    fn announce(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<(), TrainerError> {
        let sizes = self.state.model.parameters();
        let parameters: usize =
            sizes.iter().map(|p| p.value.shape().iter().product::<usize>()).sum();
        on_event(Event::Started(Started {
            images: self.plan.images,
            updates_per_epoch: self.plan.updates_per_epoch(),
            total_steps: self.total_steps(),
            effective_batch: self.config.effective_batch() as u64,
            lr: self.config.peak_lr(),
            parameters: parameters as u64,
        }));
        if let Some(folder) = &self.resumed_from {
            let step = self.state.step();
            on_event(Event::Resumed { folder, step });
            self.write_log(&json!({"kind": "resume", "step": step}))?;
        }
        Ok(())
    }

    fn train(
        &mut self,
        stop: &StopFlag,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Summary<T::Model>, TrainerError> {
        let team = &self.config.team;
        let mut prefetch = self.prefetch()?;
        let mut saved_at = self.resumed_from.as_ref().map(|_| self.state.step());
        let mut stopped = team.agree(stop.get())?;
        while self.state.step() < self.total_steps() && stopped.is_none() {
            self.update(&mut prefetch, on_event)?;
            let step = self.state.step();
            let per_epoch = self.plan.updates_per_epoch();
            let ends_epoch = step.is_multiple_of(per_epoch);
            let saves = step < self.total_steps() && step.is_multiple_of(self.save_interval());
            if (ends_epoch || saves || self.launched.len() >= self.updates_at_once())
                && let Some(back) = self.settle(on_event)?
            {
                self.roll_back(back, on_event)?;
                prefetch = self.prefetch()?;
                saved_at = Some(self.state.step());
                continue;
            }
            if ends_epoch {
                self.end_epoch(step / per_epoch, on_event)?;
            }
            if saves {
                self.state.compare()?;
                if team.leads() {
                    self.saver.start(self.snapshot(), on_event)?;
                }
                saved_at = Some(step);
            }
            stopped = team.agree(stop.get())?;
        }
        if let Some(back) = self.settle(on_event)? {
            self.roll_back(back, on_event)?;
            saved_at = Some(self.state.step());
        }
        self.saver.finish(on_event)?;
        let step = self.state.step();
        let on_disk = self.saver.newest().or(self.resumed_from.as_ref()).cloned();
        let checkpoint = match on_disk.filter(|_| saved_at == Some(step)) {
            Some(folder) if folder.ends_with(checkpoint::folder_name(step)) => folder,
            _ if !team.leads() => self.config.output_dir.join(checkpoint::folder_name(step)),
            _ => self.saver.last(self.snapshot(), on_event)?,
        };
        // Nobody leaves before the last checkpoint is there: a launcher may end the others then.
        team.agree(None)?;
        Ok(Summary {
            model: self.state.model.clone(),
            step,
            last_loss: self.last_loss,
            evaluation: self.evaluation,
            ema_evaluation: self.ema_evaluation,
            checkpoint,
            stopped: stopped.filter(|_| step < self.total_steps()),
        })
    }

    fn end_epoch(
        &mut self,
        epoch: u64,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        let train_loss = self.progress.epoch_loss / self.progress.epoch_updates.max(1) as f64;
        (self.progress.epoch_loss, self.progress.epoch_updates) = (0.0, 0);
        let step = self.state.step();
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
        let is_last = epoch == self.config.epochs;
        let sheets = self.config.sheet_every_epochs.filter(|_| self.config.team.leads());
        if sheets.is_some_and(|every| is_last || epoch.is_multiple_of(every)) {
            self.draw_sheet(epoch, on_event);
        }
        let Some(dataset) = &self.data.evaluation else { return Ok(()) };
        if is_last || epoch.is_multiple_of(self.config.evaluate_every_epochs) {
            let found = self.task.evaluate(self.config, &self.state.model, dataset.as_ref())?;
            self.evaluation = Some(found);
            let Evaluation { loss, accuracy } = found;
            let mut line = json!({
                "kind": "evaluation", "step": step, "epoch": epoch, "val_loss": loss,
            });
            if let Some(accuracy) = accuracy {
                line["val_accuracy"] = accuracy.into();
            }
            let images = dataset.len() as u64;
            on_event(Event::Evaluated { step, loss, accuracy, images });
            if let Some(ema) = &self.state.ema {
                let found = self.task.evaluate(self.config, &ema.model, dataset.as_ref())?;
                self.ema_evaluation = Some(found);
                let Evaluation { loss, accuracy } = found;
                line["val_loss_ema"] = loss.into();
                if let Some(accuracy) = accuracy {
                    line["val_accuracy_ema"] = accuracy.into();
                }
                on_event(Event::EmaEvaluated { step, loss, accuracy, images });
            }
            self.write_log(&line)?;
        }
        Ok(())
    }

    /// A picture is not worth a run: one that cannot be made is told and left out.
    fn draw_sheet(&self, epoch: u64, on_event: &mut dyn FnMut(Event<'_>)) {
        let path = self.config.output_dir.join(format!("sheets/epoch-{epoch:04}.png"));
        let images = self.data.evaluation.as_ref().unwrap_or(&self.data.train);
        let sheet = self.task.sheet(self.config, &self.state.model, images.as_ref());
        match sheet.transpose().map(|sheet| sheets::write(&path, &sheet?)) {
            None => {}
            Some(Ok(())) => on_event(Event::Sheet { epoch, path: &path }),
            Some(Err(error)) => on_event(Event::SheetFailed { epoch, error: &error }),
        }
    }

    fn write_log(&mut self, line: &Value) -> Result<(), TrainerError> {
        self.log.as_mut().map_or(Ok(()), |log| log.write(line))
    }

    fn snapshot(&self) -> Snapshot<T::Model> {
        let progress = Progress { step: self.state.step(), ..self.progress.clone() };
        Snapshot::of(&self.state, &self.config.processor, progress)
    }

    /// The batches from the next update on, made ahead of time.
    fn prefetch(&self) -> Result<Prefetch, TrainerError> {
        let team = &self.config.team;
        let (per_update, passed_over) = (self.plan.batches_per_update(), self.progress.passed_over);
        let updates = self.state.step() + passed_over..self.total_steps() + passed_over;
        let batches = updates.start * per_update..updates.end * per_update;
        let own = batches.skip(team.rank()).step_by(team.size());
        Prefetch::start(self.batch_maker(), own, self.config.workers)
    }

    fn batch_maker(&self) -> Arc<BatchMaker> {
        Arc::new(BatchMaker {
            dataset: Arc::clone(&self.data.train),
            plan: self.plan,
            augmentation: self.config.augmentation(),
            channels: self.config.model.num_channels,
            grid: self.config.model.grid(),
            masking: (self.config.mask_ratio(self.plan), self.config.mask_strategy),
            seed: self.config.seed,
            on_bad: self.config.on_bad_sample,
        })
    }

    fn total_steps(&self) -> u64 {
        self.config.epochs * self.plan.updates_per_epoch()
    }

    fn save_interval(&self) -> u64 {
        let epochs = self.config.save_every_epochs * self.plan.updates_per_epoch();
        self.config.save_every_steps.unwrap_or(epochs)
    }
}

/// Gives a state what its checkpoint does not hold.
fn equip<T: Task>(
    state: &mut TrainState<T::Model>,
    task: &T,
    config: &RunConfig,
) -> Result<(), TrainerError> {
    state.model.set_precision(config.precision);
    state.recompute = config.recompute;
    state.drop_path = task.drop_path();
    state.distance = config.distance;
    state.sums = GradientSums::new(config.team.clone());
    state.forgets = config.nan_policy == NanPolicy::Skip;
    let kept = state.ema.take();
    if let Some(decay) = config.model_ema {
        // Without one in the checkpoint, which `--override` allows, it begins here.
        let mut ema = Ema::new(kept.as_ref().map_or(&state.model, |ema| &ema.model), decay)?;
        ema.model.set_precision(config.precision);
        state.ema = Some(ema);
    }
    let kept = state.probe.take();
    if let Some(classes) = &config.online_probe {
        let (count, width) = (classes.names.len(), config.model.hidden_size);
        let new = || OnlineProbe::new(state.model.device(), count, width);
        state.probe = Some(kept.map_or_else(new, Ok)?);
    }
    Ok(())
}

/// A name that no other run has; it decides nothing but which checkpoints rotation may remove.
fn new_run_name() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanoseconds = now.map_or(0, |now| now.as_nanos());
    text_hash(&format!("{nanoseconds} {}", std::process::id()))[..16].to_owned()
}

fn failed(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> TrainerError {
    let path = path.to_path_buf();
    move |source| TrainerError::Io { action, path: path.clone(), source }
}
