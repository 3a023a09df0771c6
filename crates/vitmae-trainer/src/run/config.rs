//! The settings of a run, and what of them must agree to resume.

use std::path::PathBuf;

use serde_json::{Value, json};
use vitmae_image::{Filter, PerChannel, RandAugment, RandomResizedCrop, Size, VitImageProcessor};
use vitmae_model::{Masking, VitMaeConfig};
use vitmae_tensor::ops::{Distance, Precision};

use crate::data::{Augmentation, BatchPlan, Dataset, MaskRatio, MaskStrategy, OnBadSample, SIZES};
use crate::schedule::{WarmupCosine, scaled_lr};
use crate::{AdamWOptions, Classes, NanPolicy, Team, TrainerError, ema};

/// The fingerprint of the images in an identity.
const DATA: &str = "data";
/// The number of processes in an identity.
const PROCESSES: &str = "processes";
/// The decay of the average of weights in an identity.
pub(crate) const MODEL_EMA: &str = "model_ema";
/// The classes of a classifier beside a pre-training in an identity.
pub(crate) const ONLINE_PROBE: &str = "online_probe";

/// Mean of ImageNet's colours, the default of the recipe.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's colours.
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// Where a run begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// At the newest checkpoint of the output folder that verifies, or new if there is none.
    #[default]
    Auto,
    /// New; an output folder with checkpoints is refused.
    Never,
    /// At this checkpoint.
    From(PathBuf),
}

/// The settings of a run; the defaults are those of the original's pre-training.
///
/// Source: `main_pretrain.py` of facebookresearch/mae, by name and value only.
#[derive(Clone, Debug, PartialEq)]
pub struct RunConfig {
    /// Sizes of the model, the share of removed patches and the kind of loss.
    pub model: VitMaeConfig,
    /// Model folder to take the first weights from; `model` must describe them.
    pub start_from: Option<PathBuf>,
    /// Colours: whether to convert to RGB, rescaling, mean and standard deviation.
    pub processor: VitImageProcessor,
    /// Smallest and largest share of an image that a crop covers.
    pub crop_scale: (f64, f64),
    /// Whether half of the crops are mirrored.
    pub flip: bool,
    /// What is done to the colours and shapes of the crops, if anything; for RGB alone.
    pub rand_augment: Option<RandAugment>,
    /// How the removed patches of a training image lie to each other; evaluation always removes at random.
    pub mask_strategy: MaskStrategy,
    /// How predictions of removed patches are compared with their targets, in training and evaluation.
    pub distance: Distance,
    /// The share of removed patches in the last update, which the model's own changes to along a line; by default it stays.
    pub mask_ratio_end: Option<f64>,
    /// Of the matrix products; everything else is f32.
    pub precision: Precision,
    /// Whether blocks run forward again in the backward pass to save memory; it changes no result.
    pub recompute: bool,
    /// Images of one batch in one process.
    pub batch_size: usize,
    /// Batches of one update.
    pub accumulation: usize,
    /// Epochs in all.
    pub epochs: u64,
    /// Learning rate for 256 images an update; [`lr`](Self::lr) wins.
    pub blr: f64,
    /// The highest learning rate.
    pub lr: Option<f64>,
    /// The learning rate at the end.
    pub min_lr: f64,
    /// Epochs of warm-up.
    pub warmup_epochs: f64,
    /// Betas, epsilon and weight decay.
    pub adamw: AdamWOptions,
    /// Longest gradient; a longer one is scaled down.
    pub clip_grad: Option<f64>,
    /// Share of the average of weights that an update keeps; no average if none.
    pub model_ema: Option<f64>,
    /// Classes of the training images, for a pre-training beside which a linear classifier learns.
    pub online_probe: Option<Classes>,
    /// What to do about an update whose loss or gradient is not finite.
    pub nan_policy: NanPolicy,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Threads that read images.
    pub workers: usize,
    /// What to do about an image that cannot be read.
    pub on_bad_sample: OnBadSample,
    /// Share of bad images that is tolerated; 10 always are.
    pub max_bad_fraction: f64,
    /// Where checkpoints and logs go.
    pub output_dir: PathBuf,
    /// Where TensorBoard's event files go, if anywhere.
    pub log_dir: Option<PathBuf>,
    /// Epochs between checkpoints.
    pub save_every_epochs: u64,
    /// Updates between checkpoints, in place of epochs.
    pub save_every_steps: Option<u64>,
    /// Checkpoints of this run that are kept.
    pub keep_last: usize,
    /// Epochs between evaluations.
    pub evaluate_every_epochs: u64,
    /// Epochs between pictures of reconstructions in `sheets` of the output folder, if any; they change nothing else.
    pub sheet_every_epochs: Option<u64>,
    /// Most updates that a GPU makes before their losses are read back; each look waits for the device.
    pub sync_every: usize,
    /// Where to begin.
    pub resume: Resume,
    /// Whether to resume under other settings than the checkpoint's.
    pub override_settings: bool,
    /// The processes that train together; by default this one alone.
    pub team: Team,
}

impl RunConfig {
    /// The original's settings for `model`, into `output_dir`.
    pub fn new(model: VitMaeConfig, output_dir: PathBuf) -> RunConfig {
        let (height, width) = model.image_size;
        let processor = VitImageProcessor {
            size: Size::Exact { height, width },
            resample: Filter::Bicubic,
            image_mean: PerChannel::Each(IMAGENET_MEAN.to_vec()),
            image_std: PerChannel::Each(IMAGENET_STD.to_vec()),
            do_convert_rgb: Some(true),
            ..VitImageProcessor::default()
        };
        let processor = match model.num_channels {
            3 => processor,
            _ => VitImageProcessor {
                image_mean: PerChannel::All(0.5),
                image_std: PerChannel::All(0.5),
                do_convert_rgb: None,
                ..processor
            },
        };
        RunConfig {
            model,
            start_from: None,
            processor,
            crop_scale: (0.2, 1.0),
            flip: true,
            rand_augment: None,
            mask_strategy: MaskStrategy::Random,
            mask_ratio_end: None,
            distance: Distance::Squared,
            precision: Precision::F32,
            recompute: false,
            batch_size: 64,
            accumulation: 1,
            epochs: 400,
            blr: 1e-3,
            lr: None,
            min_lr: 0.0,
            warmup_epochs: 40.0,
            adamw: AdamWOptions::default(),
            clip_grad: None,
            model_ema: None,
            online_probe: None,
            nan_policy: NanPolicy::Stop,
            seed: 0,
            workers: 2,
            on_bad_sample: OnBadSample::Replace,
            max_bad_fraction: 0.001,
            output_dir,
            log_dir: None,
            save_every_epochs: 20,
            save_every_steps: None,
            keep_last: 3,
            evaluate_every_epochs: 1,
            sheet_every_epochs: None,
            sync_every: 10,
            resume: Resume::Auto,
            override_settings: false,
            team: Team::default(),
        }
    }

    /// Checks every setting but those of files.
    ///
    /// # Errors
    /// [`TrainerError::Setting`] naming the first that is outside its range.
    pub fn validate(&self) -> Result<(), TrainerError> {
        self.model.validate().map_err(vitmae_weights::WeightsError::from)?;
        let at_least_one: [(&'static str, u64); 7] = [
            ("batch_size", self.batch_size as u64),
            ("accum_iter", self.accumulation as u64),
            ("epochs", self.epochs),
            ("save_every", self.save_every_steps.unwrap_or(self.save_every_epochs)),
            ("eval_every", self.evaluate_every_epochs),
            ("sheet_every", self.sheet_every_epochs.unwrap_or(1)),
            ("sync_every", self.sync_every as u64),
        ];
        for (key, value) in at_least_one {
            range(key, value as f64, "at least 1", |value| value >= 1.0)?;
        }
        let ratio = self.model.mask_ratio;
        let end = self.mask_ratio_end.unwrap_or(ratio);
        for (key, ratio) in [("mask_ratio", ratio), ("mask_ratio_end", end)] {
            range(key, ratio, "above 0 and below 1", |ratio| ratio > 0.0 && ratio < 1.0)?;
        }
        if let MaskStrategy::Given(masks) = &self.mask_strategy {
            let patches = self.model.num_patches();
            if end != ratio || !masks.iter().all(|mask| removes(mask, patches, ratio)) {
                let found = format!("{} masks, mask_ratio {ratio} to {end}", masks.len());
                let expected = "masks of the model's patches that remove the share of one ratio";
                return Err(TrainerError::Setting { key: "mask_file", found, expected });
            }
        }
        let rates = [("lr", self.peak_lr()), ("min_lr", self.min_lr), ("eps", self.adamw.eps)];
        let others =
            [("warmup_epochs", self.warmup_epochs), ("weight_decay", self.adamw.weight_decay)];
        for (key, value) in rates.into_iter().chain(others) {
            range(key, value, "a number from 0 up", |value| value >= 0.0 && value.is_finite())?;
        }
        let clip = self.clip_grad.unwrap_or(1.0);
        range("clip_grad", clip, "above 0", |clip| clip > 0.0 && clip.is_finite())?;
        for beta in self.adamw.betas {
            range("betas", beta, "from 0 to below 1", |beta| (0.0..1.0).contains(&beta))?;
        }
        let decay = self.model_ema.unwrap_or(0.0);
        range("model_ema_decay", decay, ema::RANGE, |decay| (0.0..1.0).contains(&decay))?;
        let (low, high) = self.crop_scale;
        range("crop_scale", low, "above 0", |low| low > 0.0)?;
        range("crop_scale", high, "from its start to 1", |high| high >= low && high <= 1.0)?;
        if self.rand_augment.is_some() {
            let channels = self.model.num_channels as f64;
            range("num_channels", channels, "3, since RandAugment is for RGB", |c| c == 3.0)?;
        }
        let fraction = self.max_bad_fraction;
        range("max_bad_fraction", fraction, "from 0 to 1", |f| (0.0..=1.0).contains(&f))
    }

    /// Images of one update, over all processes.
    pub fn effective_batch(&self) -> usize {
        self.batch_size * self.accumulation * self.team.size()
    }

    /// The highest learning rate.
    pub fn peak_lr(&self) -> f64 {
        self.lr.unwrap_or_else(|| scaled_lr(self.blr, self.effective_batch()))
    }

    /// The learning rate over fractional epochs.
    pub fn schedule(&self) -> WarmupCosine {
        WarmupCosine {
            lr: self.peak_lr(),
            min_lr: self.min_lr,
            warmup: self.warmup_epochs,
            total: self.epochs as f64,
        }
    }

    /// The share of removed patches over the updates of a run whose batches follow `plan`.
    pub fn mask_ratio(&self, plan: BatchPlan) -> MaskRatio {
        let first = self.model.mask_ratio;
        let updates = self.epochs * plan.updates_per_epoch();
        MaskRatio { first, last: self.mask_ratio_end.unwrap_or(first), updates }
    }

    /// How batches of `images` images follow one another.
    pub fn plan(&self, images: usize) -> BatchPlan {
        BatchPlan {
            images: images as u64,
            batch_size: self.batch_size as u64,
            accumulation: self.accumulation as u64,
            processes: self.team.size() as u64,
        }
    }

    /// How a training image becomes pixels.
    pub fn augmentation(&self) -> Augmentation {
        let crop = RandomResizedCrop {
            scale: self.crop_scale,
            ..RandomResizedCrop::new(self.model.image_size)
        };
        Augmentation {
            crop,
            flip: self.flip,
            rand_augment: self.rand_augment,
            processor: self.processor.clone(),
        }
    }

    /// Everything that decides the weights of each step, as JSON; two runs of the same identity
    /// compute the same, and a checkpoint resumes only under its own.
    pub fn identity(&self, dataset: &dyn Dataset) -> Value {
        let parsed = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
        let mut identity = json!({
            "model": parsed(&self.model.to_json()),
            "processor": parsed(&self.processor.to_json()),
            "crop_scale": [self.crop_scale.0, self.crop_scale.1],
            "flip": self.flip,
            "precision": format!("{:?}", self.precision).to_lowercase(),
            "batch_size": self.batch_size,
            "accum_iter": self.accumulation,
            "epochs": self.epochs,
            "lr": self.peak_lr(),
            "min_lr": self.min_lr,
            "warmup_epochs": self.warmup_epochs,
            "betas": self.adamw.betas,
            "eps": self.adamw.eps,
            "weight_decay": self.adamw.weight_decay,
            "clip_grad": self.clip_grad,
            "seed": self.seed,
            "on_bad_sample": format!("{:?}", self.on_bad_sample).to_lowercase(),
            "images": dataset.len(),
            (DATA): dataset.fingerprint(),
        });
        // Checkpoints from before there was a choice have no such key.
        if self.mask_strategy != MaskStrategy::Random {
            identity["masking"] = self.mask_strategy.identity().into();
        }
        if self.distance == Distance::Absolute {
            identity["loss"] = "l1".into();
        }
        if let Some(end) = self.mask_ratio_end {
            identity["mask_ratio_end"] = end.into();
        }
        // Nor have those of one process a number of them.
        if self.team.size() > 1 {
            identity[PROCESSES] = self.team.size().into();
        }
        if let Some(policy) = &self.rand_augment {
            identity["aa"] = policy.to_string().into();
        }
        if let Some(decay) = self.model_ema {
            identity[MODEL_EMA] = decay.into();
        }
        if let Some(classes) = &self.online_probe {
            identity[ONLINE_PROBE] = classes.names.clone().into();
        }
        identity
    }
}

/// Whether a mask that is given is one of `patches` patches and what the model makes of it at `ratio`.
fn removes(mask: &[bool], patches: usize, ratio: f64) -> bool {
    let noise: Vec<f64> = mask.iter().map(|&removed| f64::from(removed)).collect();
    Masking::from_noise(&noise, 1, patches, ratio).is_ok_and(|found| {
        found.mask.iter().zip(mask).all(|(&found, &removed)| (found == 1.0) == removed)
    })
}

fn range(
    key: &'static str,
    value: f64,
    expected: &'static str,
    good: impl Fn(f64) -> bool,
) -> Result<(), TrainerError> {
    if good(value) {
        return Ok(());
    }
    Err(TrainerError::Setting { key, found: value.to_string(), expected })
}

/// The keys on which two identities differ, as "`key` found, now expected".
///
/// Another number of processes is no difference where an update has as many images as before, nor are sizes of files that the
/// checkpoint does not know.
pub(crate) fn differences(found: &Value, expected: &Value) -> Vec<String> {
    let mut all = Vec::new();
    collect("", found, expected, &mut all);
    let images = |of: &Value| {
        let number = |key| of[key].as_u64();
        Some(number("batch_size")? * number("accum_iter")? * number(PROCESSES).unwrap_or(1))
    };
    if found[PROCESSES] != expected[PROCESSES] && images(found) == images(expected) {
        let split = [PROCESSES, "batch_size", "accum_iter"].map(|key| format!("`{key}` "));
        all.retain(|difference| !split.iter().any(|key| difference.starts_with(key)));
    }
    let data = |of: &Value| of[DATA].as_str().unwrap_or_default().to_owned();
    let now = data(expected);
    if now.split_once(SIZES).is_some_and(|(names, _)| names == data(found)) {
        all.retain(|difference| !difference.starts_with(&format!("`{DATA}` ")));
    }
    all
}

fn collect(path: &str, found: &Value, expected: &Value, all: &mut Vec<String>) {
    if let (Value::Object(found), Value::Object(expected)) = (found, expected) {
        let missing = expected.keys().filter(|key| !found.contains_key(*key));
        for key in found.keys().chain(missing) {
            let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let side = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
            let (found, expected) = (side(found), side(expected));
            collect(&inner, &found.unwrap_or_default(), &expected.unwrap_or_default(), all);
        }
    } else if found != expected {
        all.push(format!("`{path}` {found}, now {expected}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn differences_name_the_key_and_both_values() {
        let found = json!({"lr": 0.1, "model": {"hidden_size": 8, "x": 1}, "old": true});
        let expected = json!({"lr": 0.2, "model": {"hidden_size": 9, "x": 1}, "new": null});
        assert_eq!(
            differences(&found, &expected),
            ["`lr` 0.1, now 0.2", "`model.hidden_size` 8, now 9", "`old` true, now null"]
        );
        assert!(differences(&found, &found).is_empty());
    }

    #[test]
    fn a_checkpoint_that_knows_no_sizes_of_files_goes_on() {
        let of = |data: &str| json!({"data": data, "lr": 0.1});
        let differ = |found, expected| differences(&of(found), &of(expected));
        assert!(differ("abc", "abc, sizes 12").is_empty());
        assert_eq!(differ("abd", "abc, sizes 12"), ["`data` \"abd\", now \"abc, sizes 12\""]);
        assert_eq!(
            differ("abc, sizes 12", "abc, sizes 13"),
            ["`data` \"abc, sizes 12\", now \"abc, sizes 13\""]
        );
        assert_eq!(differ("abc, sizes 12", "abc").len(), 1);
        let other = json!({"data": "abc, sizes 12", "lr": 0.2});
        assert_eq!(differences(&of("abc"), &other), ["`lr` 0.1, now 0.2"]);
    }

    #[test]
    fn every_setting_out_of_range_is_named() {
        let good = RunConfig::new(VitMaeConfig::base(), "out".into());
        good.validate().unwrap();
        type Break = fn(&mut RunConfig);
        let cases: [(Break, &str); 15] = [
            (
                |c| c.mask_strategy = MaskStrategy::Given(Arc::new(vec![vec![true; 196]])),
                "`mask_file` is 1 masks, mask_ratio 0.75 to 0.75, expected masks of the model's patches that remove the share of one ratio",
            ),
            (
                |c| {
                    let mask = (0..196).map(|at| at < 147).collect();
                    c.mask_strategy = MaskStrategy::Given(Arc::new(vec![mask]));
                    c.mask_ratio_end = Some(0.5);
                },
                "`mask_file` is 1 masks, mask_ratio 0.75 to 0.5, expected masks of the model's patches that remove the share of one ratio",
            ),
            (|c| c.model_ema = Some(1.0), "`model_ema_decay` is 1, expected from 0 to below 1"),
            (|c| c.batch_size = 0, "`batch_size` is 0, expected at least 1"),
            (|c| c.epochs = 0, "`epochs` is 0, expected at least 1"),
            (|c| c.clip_grad = Some(0.0), "`clip_grad` is 0, expected above 0"),
            (|c| c.lr = Some(f64::NAN), "`lr` is NaN, expected a number from 0 up"),
            (|c| c.adamw.betas = [0.9, 1.0], "`betas` is 1, expected from 0 to below 1"),
            (|c| c.crop_scale = (0.5, 0.4), "`crop_scale` is 0.4, expected from its start to 1"),
            (|c| c.max_bad_fraction = 2.0, "`max_bad_fraction` is 2, expected from 0 to 1"),
            (|c| c.model.mask_ratio = 0.0, "`mask_ratio` is 0, expected above 0 and below 1"),
            (
                |c| c.mask_ratio_end = Some(1.0),
                "`mask_ratio_end` is 1, expected above 0 and below 1",
            ),
            (|c| c.sheet_every_epochs = Some(0), "`sheet_every` is 0, expected at least 1"),
            (
                |c| {
                    c.rand_augment = "rand-m9-inc1".parse().ok();
                    c.model.num_channels = 1;
                },
                "`num_channels` is 1, expected 3, since RandAugment is for RGB",
            ),
            (|c| c.save_every_steps = Some(0), "`save_every` is 0, expected at least 1"),
        ];
        for (spoil, message) in cases {
            let mut config = good.clone();
            spoil(&mut config);
            assert_eq!(config.validate().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn the_learning_rate_follows_the_effective_batch() {
        let mut config = RunConfig::new(VitMaeConfig::base(), "out".into());
        (config.batch_size, config.accumulation, config.blr) = (64, 8, 1.5e-4);
        assert_eq!(config.peak_lr(), 3e-4);
        config.lr = Some(1e-3);
        assert_eq!(config.schedule().at(40.0), 1e-3);
    }
}
