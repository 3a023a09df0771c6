//! A run: set up or resume, then update after update until the end or a stop. What is trained, and how a batch becomes a
//! loss, is its [`Task`]'s.

mod config;
mod course;
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

use vitmae_tensor::Device;
use vitmae_weights::Pretrained;

use crate::checkpoint::{Progress, Snapshot, restore, text_hash};
use crate::data::{BatchMaker, BatchPlan, Dataset, Prefetch};
use crate::gradient_sums::GradientSums;
use crate::online_probe::OnlineProbe;
use crate::reconstruction::sheets;
use crate::spikes::Spikes;
use crate::{Ema, Event, StopFlag, TrainState, Trainable, TrainerError};

pub use config::{IMAGENET_MEAN, IMAGENET_STD, Resume, RunConfig};
pub(crate) use config::{MODEL_EMA, ONLINE_PROBE};
use course::Course;
pub use nan_policy::NanPolicy;
use nan_policy::RolledBack;
pub use probing::{PROBE_FILE, ProbeConfig, train_probe};
use resume::begin;
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
    course: Course<'a>,
    device: Device,
    state: TrainState<T::Model>,
    saver: Saver,
    /// The next batch, where it crosses to the device ahead of time.
    ready: Option<Result<Ready<T::Input>, TrainerError>>,
    launched: Vec<Launched>,
    skipped_in_a_row: u32,
    rolled_back: Option<RolledBack>,
    spikes: Spikes,
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
        let mut identity = config.identity(data.train.as_ref());
        if let (Some(own), Some(all)) = (task.identity(), identity.as_object_mut()) {
            all.insert("task".to_owned(), own);
        }
        config.team.same("settings or images", || Ok(text_hash(&identity.to_string())))?;
        let begun = begin(config, identity, on_event)?;
        let mut state = match &begun.0 {
            Some(folder) => {
                restore(folder, device, config.adamw, |folder| task.load(folder, device))?.0
            }
            None => TrainState::new(task.first_model(config, device)?, config.adamw)?,
        };
        equip(&mut state, task, config)?;
        state.compare()?;
        let sizes = state.model.parameters();
        let parameters = sizes.iter().map(|p| p.value.len()).sum();
        Ok(Run {
            task,
            saver: Saver::new(config, &begun.1),
            course: Course::open(config, data, plan, begun, parameters, on_event)?,
            device: device.clone(),
            state,
            ready: None,
            launched: Vec::new(),
            skipped_in_a_row: 0,
            rolled_back: None,
            spikes: Spikes::default(),
        })
    }

    fn train(
        &mut self,
        stop: &StopFlag,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Summary<T::Model>, TrainerError> {
        let team = &self.course.config.team;
        let (total, interval) = (self.course.total_steps(), self.course.save_interval());
        let mut prefetch = self.prefetch()?;
        let mut stopped = team.agree(stop.get())?;
        while self.state.step() < total && stopped.is_none() {
            self.update(&mut prefetch, on_event)?;
            let step = self.state.step();
            let ends_epoch = step.is_multiple_of(self.course.plan.updates_per_epoch());
            let saves = step < total && step.is_multiple_of(interval);
            if (ends_epoch || saves || self.launched.len() >= self.updates_at_once())
                && let Some(back) = self.settle(on_event)?
            {
                self.roll_back(back, on_event)?;
                prefetch = self.prefetch()?;
                continue;
            }
            if ends_epoch {
                self.end_epoch(on_event)?;
            }
            if saves {
                self.state.compare()?;
                let snapshot = self.snapshot(step);
                self.saver.start(step, move |folder| snapshot.write(folder), on_event)?;
            }
            stopped = team.agree(stop.get())?;
        }
        if let Some(back) = self.settle(on_event)? {
            self.roll_back(back, on_event)?;
        }
        let (step, resumed_from) = (self.state.step(), self.course.resumed_from.as_ref());
        let snapshot = self.snapshot(step);
        let write = |folder: &Path| snapshot.write(folder);
        let checkpoint = self.saver.conclude(step, resumed_from, write, on_event)?;
        // Nobody leaves before the last checkpoint is there: a launcher may end the others then.
        team.agree(None)?;
        Ok(Summary {
            model: self.state.model.clone(),
            step,
            last_loss: self.course.last_loss,
            evaluation: self.course.evaluation,
            ema_evaluation: self.course.ema_evaluation,
            checkpoint,
            stopped: stopped.filter(|_| step < total),
        })
    }

    fn end_epoch(&mut self, on_event: &mut dyn FnMut(Event<'_>)) -> Result<(), TrainerError> {
        let (step, config) = (self.state.step(), self.course.config);
        let epoch = self.course.end_epoch(step, on_event)?;
        let sheets = config.sheet_every_epochs.filter(|_| config.team.leads());
        if sheets.is_some_and(|every| epoch == config.epochs || epoch.is_multiple_of(every)) {
            self.draw_sheet(epoch, on_event);
        }
        let Some(dataset) = self.course.to_judge_by(epoch) else { return Ok(()) };
        let found = self.task.evaluate(config, &self.state.model, dataset)?;
        let ema = self.state.ema.as_ref();
        let of_ema = ema.map(|ema| self.task.evaluate(config, &ema.model, dataset)).transpose()?;
        self.course.judged((step, epoch, dataset.len()), found, of_ema, on_event)
    }

    /// A picture is not worth a run: one that cannot be made is told and left out.
    fn draw_sheet(&self, epoch: u64, on_event: &mut dyn FnMut(Event<'_>)) {
        let Course { config, data, .. } = &self.course;
        let path = config.output_dir.join(format!("sheets/epoch-{epoch:04}.png"));
        let images = data.evaluation.as_ref().unwrap_or(&data.train);
        let sheet = self.task.sheet(config, &self.state.model, images.as_ref());
        match sheet.transpose().map(|sheet| sheets::write(&path, &sheet?)) {
            None => {}
            Some(Ok(())) => on_event(Event::Sheet { epoch, path: &path }),
            Some(Err(error)) => on_event(Event::SheetFailed { epoch, error: &error }),
        }
    }

    /// The state as it is after `step` updates.
    fn snapshot(&self, step: u64) -> Snapshot<T::Model> {
        let progress = Progress { step, ..self.course.progress.clone() };
        Snapshot::of(&self.state, &self.course.config.processor, progress)
    }

    fn prefetch(&self) -> Result<Prefetch, TrainerError> {
        self.course.prefetch(self.state.step(), self.batch_maker())
    }

    fn batch_maker(&self) -> Arc<BatchMaker> {
        self.course.batch_maker(self.course.config.augmentation())
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

fn failed(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> TrainerError {
    let path = path.to_path_buf();
    move |source| TrainerError::Io { action, path: path.clone(), source }
}
