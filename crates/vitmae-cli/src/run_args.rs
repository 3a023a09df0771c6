//! The flags that every training has, and what they make of its settings.
//!
//! They are those of the original's `main_pretrain.py` and `main_finetune.py`, with `-` or `_`; those of transformers' `run_mae.py`
//! that mean the same are understood too.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use vitmae_trainer::data::OnBadSample;
use vitmae_trainer::{NanPolicy, Resume, RunConfig, Team};

use crate::exit::Usage;
use crate::precision::PrecisionArgs;
use crate::processes;
use crate::progress::Progress;

/// Flags of every training; what is not given is left to the defaults of its command.
#[derive(Args, Debug, Default, PartialEq)]
pub struct TrainingArgs {
    /// Where checkpoints and logs go [default: output_dir]
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Epochs in all [default: 400; fine-tuning 50, probe 90]
    #[arg(long, alias = "num-train-epochs")]
    epochs: Option<u64>,
    /// Batches of one update [default: 1]
    #[arg(long, alias = "gradient-accumulation-steps")]
    accum_iter: Option<usize>,
    /// Learning rate for 256 images an update [default: 1e-3; probe 0.1]
    #[arg(long, alias = "base-learning-rate")]
    blr: Option<f64>,
    /// Highest learning rate [default: blr x images of an update / 256]
    #[arg(long, alias = "learning-rate")]
    lr: Option<f64>,
    /// Learning rate at the end [default: 0; fine-tuning 1e-6]
    #[arg(long)]
    min_lr: Option<f64>,
    /// Epochs of warm-up [default: 40; fine-tuning 5, probe 10]
    #[arg(long, overrides_with = "warmup_ratio")]
    warmup_epochs: Option<f64>,
    /// Warm-up as a share of all epochs, as in `run_mae.py`
    #[arg(long, overrides_with = "warmup_epochs")]
    warmup_ratio: Option<f64>,
    /// Weight decay; biases and norms are exempt, in fine-tuning the class token and the position table too [default: 0.05; probe 0]
    #[arg(long)]
    pub weight_decay: Option<f64>,
    /// Smallest and largest share of an image that a crop covers [default: 0.2 1; fine-tuning and probe 0.08 1]
    #[arg(long, num_args = 2, value_names = ["MIN", "MAX"])]
    crop_scale: Option<Vec<f64>>,
    /// Mirror no images, for pictures of which a mirror image is another thing, such as digits
    #[arg(long)]
    no_flip: bool,
    /// Seed of everything that is drawn [default: 0]
    #[arg(long)]
    seed: Option<u64>,

    /// Threads that read images; the order does not depend on it [default: 2]
    #[arg(long, visible_alias = "num-workers", alias = "dataloader-num-workers")]
    workers: Option<usize>,
    /// What to do about an image that cannot be read [default: replace]
    #[arg(long, value_enum)]
    on_bad_sample: Option<OnBad>,
    /// Stop above this share of bad images; 10 are always tolerated [default: 0.001]
    #[arg(long)]
    max_bad_fraction: Option<f64>,

    /// auto (newest good checkpoint of the output folder, else new), never, or a checkpoint [default: auto]
    #[arg(long, alias = "resume-from-checkpoint", value_name = "auto|never|DIR")]
    resume: Option<String>,
    /// Resume even though settings differ from the checkpoint's
    #[arg(long = "override")]
    override_settings: bool,
    /// Folder for TensorBoard's event files
    #[arg(long, alias = "logging-dir", value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Epochs between checkpoints [default: 20; fine-tuning and probe 1]
    #[arg(long)]
    save_every: Option<u64>,
    /// Updates between checkpoints, in place of epochs
    #[arg(long, value_name = "N")]
    save_every_steps: Option<u64>,
    /// Checkpoints of this run that are kept [default: 3]
    #[arg(long, alias = "save-total-limit")]
    keep_last: Option<usize>,
    /// Epochs between evaluations [default: 1]
    #[arg(long)]
    eval_every: Option<u64>,
}

/// Flags of `pretrain` and `finetune` alike.
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    pub training: TrainingArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Compute blocks again in the backward pass: less memory, a third more time, the same results
    #[arg(long)]
    recompute: bool,
    /// Images of one batch in one process
    #[arg(long, alias = "per-device-train-batch-size", default_value_t = 64)]
    batch_size: usize,
    /// AdamW's betas [default: 0.9 0.95; fine-tuning 0.9 0.999]
    #[arg(long, num_args = 2, value_names = ["B1", "B2"])]
    betas: Option<Vec<f64>>,
    /// Scale gradients down to this global norm [default: never]
    #[arg(long, alias = "max-grad-norm", value_name = "NORM")]
    clip_grad: Option<f64>,
    /// Keep an average of the weights, judged beside them and saved in `ema` inside each checkpoint
    #[arg(long)]
    model_ema: bool,
    /// Share of the average that an update keeps
    #[arg(long, value_name = "DECAY", default_value_t = 0.9999)]
    model_ema_decay: f64,
    /// What to do about an update whose loss or gradient is not finite
    #[arg(long, value_enum, default_value_t = NanName::Stop)]
    nan_policy: NanName,
    /// Updates that a GPU makes before their losses are read back and checked
    #[arg(long, value_name = "N", default_value_t = 10)]
    sync_every: usize,

    #[command(flatten)]
    original: OriginalFlags,
}

/// Flags of the original that mean nothing here; they are accepted and reported.
#[derive(Args, Debug)]
struct OriginalFlags {
    #[arg(long, hide = true)]
    start_epoch: Option<u64>,
    #[arg(long, hide = true)]
    pin_mem: bool,
    #[arg(long, hide = true)]
    no_pin_mem: bool,
    #[arg(long, hide = true)]
    world_size: Option<usize>,
    #[arg(long, hide = true)]
    dist_url: Option<String>,
    #[arg(long, hide = true)]
    do_train: bool,
    #[arg(long, hide = true)]
    do_eval: bool,
    #[arg(long, hide = true)]
    lr_scheduler_type: Option<String>,
    #[arg(long, hide = true)]
    dataset_name: Option<String>,
    #[arg(long, hide = true)]
    train_val_split: Option<f64>,
    #[arg(long, hide = true)]
    warmup_steps: Option<u64>,
    #[arg(long, hide = true)]
    fp16: bool,
}

/// See [`NanPolicy`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum NanName {
    /// End the run with a dump that repeats it
    Stop,
    /// Leave the update out; ten in a row end the run
    Skip,
    /// Go back to the last checkpoint and on with other images
    Rollback,
}

/// See [`OnBadSample`].
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum OnBad {
    /// Stop the run
    Error,
    /// Leave it out of its batch
    Skip,
    /// Put another image in its place, chosen by the seed
    Replace,
}

impl TrainingArgs {
    /// Where checkpoints and logs go.
    pub fn output_dir(&self) -> PathBuf {
        self.output_dir.clone().unwrap_or_else(|| "output_dir".into())
    }

    /// Writes what was asked for into `run`, which has the defaults of its command.
    ///
    /// # Errors
    /// [`Usage`] for a number out of its range that only means something here.
    pub fn apply(&self, run: &mut RunConfig) -> Result<()> {
        if let Some(ratio) = self.warmup_ratio.filter(|ratio| !(0.0..=1.0).contains(ratio)) {
            return Err(Usage(format!("`--warmup-ratio` is {ratio}, expected from 0 to 1")).into());
        }
        set(&mut run.epochs, self.epochs);
        set(&mut run.accumulation, self.accum_iter);
        set(&mut run.blr, self.blr);
        run.lr = self.lr;
        set(&mut run.min_lr, self.min_lr);
        let share = self.warmup_ratio.map(|ratio| ratio * run.epochs as f64);
        set(&mut run.warmup_epochs, self.warmup_epochs.or(share));
        set(&mut run.adamw.weight_decay, self.weight_decay);
        set(&mut run.crop_scale, self.crop_scale.as_ref().map(|values| (values[0], values[1])));
        run.flip = !self.no_flip;
        set(&mut run.seed, self.seed);
        set(&mut run.workers, self.workers);
        let on_bad = self.on_bad_sample.map(|choice| match choice {
            OnBad::Error => OnBadSample::Error,
            OnBad::Skip => OnBadSample::Skip,
            OnBad::Replace => OnBadSample::Replace,
        });
        set(&mut run.on_bad_sample, on_bad);
        set(&mut run.max_bad_fraction, self.max_bad_fraction);
        run.resume = match self.resume.as_deref() {
            None | Some("auto" | "") => Resume::Auto,
            Some("never") => Resume::Never,
            Some(folder) => Resume::From(folder.into()),
        };
        run.override_settings = self.override_settings;
        run.log_dir.clone_from(&self.log_dir);
        set(&mut run.save_every_epochs, self.save_every);
        run.save_every_steps = self.save_every_steps;
        set(&mut run.keep_last, self.keep_last);
        set(&mut run.evaluate_every_epochs, self.eval_every);
        Ok(())
    }
}

fn set<T>(to: &mut T, from: Option<T>) {
    if let Some(value) = from {
        *to = value;
    }
}

impl RunArgs {
    /// Speaks of flags that have no effect here.
    ///
    /// # Errors
    /// [`Usage`] for one that asks for something else than what would happen.
    pub fn check(&self, team: &Team, progress: &Progress) -> Result<()> {
        self.original.report(progress)?;
        processes::check_world_size(self.original.world_size, team)
    }

    /// As [`TrainingArgs::apply`].
    ///
    /// # Errors
    /// As there.
    pub fn apply(&self, run: &mut RunConfig) -> Result<()> {
        self.training.apply(run)?;
        set(&mut run.adamw.betas, self.betas.as_ref().map(|betas| [betas[0], betas[1]]));
        run.precision = self.precision.get();
        run.recompute = self.recompute;
        (run.batch_size, run.clip_grad) = (self.batch_size, self.clip_grad);
        run.nan_policy = match self.nan_policy {
            NanName::Stop => NanPolicy::Stop,
            NanName::Skip => NanPolicy::Skip,
            NanName::Rollback => NanPolicy::Rollback,
        };
        run.model_ema = self.model_ema.then_some(self.model_ema_decay);
        run.sync_every = self.sync_every;
        Ok(())
    }
}

impl OriginalFlags {
    fn report(&self, progress: &Progress) -> Result<()> {
        if self.start_epoch.is_some_and(|epoch| epoch > 0) {
            let message = "`--start-epoch` is not needed: `--resume` knows its step".to_owned();
            return Err(Usage(message).into());
        }
        let scheduler = self.lr_scheduler_type.as_deref().filter(|name| *name != "cosine");
        let refused = [
            (
                scheduler.is_some(),
                "`--lr-scheduler-type` can only be `cosine`: the schedule is warm-up and cosine",
            ),
            (
                self.dataset_name.is_some(),
                "`--dataset-name` fetches data, which this program does not do\nhelp: `--data-path` names a folder of images",
            ),
            (
                self.train_val_split.is_some(),
                "`--train-val-split` is not possible: nothing is split\nhelp: in the folder of `--data-path` lie `train` and `val`",
            ),
            (
                self.warmup_steps.is_some(),
                "`--warmup-steps` is not known\nhelp: `--warmup-epochs` counts epochs, `--warmup-ratio` is a share of the run",
            ),
            (self.fp16, "`--fp16` is not possible\nhelp: `--precision bf16`"),
        ];
        if let Some((_, message)) = refused.into_iter().find(|(given, _)| *given) {
            return Err(Usage(message.to_owned()).into());
        }
        let given = [
            ("--do-train", self.do_train),
            ("--do-eval", self.do_eval),
            ("--pin-mem", self.pin_mem),
            ("--no-pin-mem", self.no_pin_mem),
            ("--dist-url", self.dist_url.is_some()),
        ];
        for (flag, _) in given.into_iter().filter(|(_, given)| *given) {
            progress.line(&format!("note: `{flag}` has no effect"));
        }
        Ok(())
    }
}
