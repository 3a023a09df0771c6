//! What each batch holds: its samples, their augmented pixels and their masking noise.

use std::sync::Arc;

use vitmae_cpu::random::Stream;
use vitmae_image::{
    Image, ImageError, PerChannel, RandAugment, RandomResizedCrop, VitImageProcessor,
    horizontal_flip, random_resized_crop,
};

use super::{BadSample, Dataset, MaskRatio, MaskStrategy, OnBadSample, Permutation};
use crate::TrainerError;

/// Substitutes tried for one bad image before giving up.
const SUBSTITUTES: u64 = 32;

/// How batches follow one another through the epochs.
///
/// A batch number counts every batch of the run from 0. An epoch uses as many whole updates as fit;
/// what is left over is discarded, and the next epoch draws from all images again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// Images in the data set.
    pub images: u64,
    /// Images of one batch in one process.
    pub batch_size: u64,
    /// Batches of one update in one process.
    pub accumulation: u64,
    /// Processes that train together. They take batches in turn: process r of n has those whose number is r modulo n.
    pub processes: u64,
}

impl BatchPlan {
    /// Updates in an epoch.
    pub fn updates_per_epoch(&self) -> u64 {
        self.batches_per_loader_epoch() / self.accumulation.max(1)
    }

    /// Batches of one update in all processes.
    pub fn batches_per_update(&self) -> u64 {
        self.accumulation * self.processes
    }

    /// Where update number `update` stands, in epochs: the time of the schedule.
    ///
    /// As the original: batch number within the epoch, over the batches that the epoch has with its
    /// leftovers.
    pub fn fractional_epoch(&self, update: u64) -> f64 {
        let per_epoch = self.updates_per_epoch().max(1);
        let inside = (update % per_epoch * self.accumulation) as f64;
        (update / per_epoch) as f64 + inside / self.batches_per_loader_epoch().max(1) as f64
    }

    /// Epoch of batch number `batch`, and the position of its first image in that epoch's order.
    pub fn place(&self, batch: u64) -> (u64, u64) {
        let per_epoch = self.updates_per_epoch() * self.batches_per_update();
        let per_epoch = per_epoch.max(1);
        (batch / per_epoch, batch % per_epoch * self.batch_size)
    }

    fn batches_per_loader_epoch(&self) -> u64 {
        self.images / (self.batch_size * self.processes).max(1)
    }
}

/// How a training image becomes the model's pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Augmentation {
    /// The crop and its filter.
    pub crop: RandomResizedCrop,
    /// Whether half of the crops are mirrored.
    pub flip: bool,
    /// What is done to the colours and shapes of the crop, if anything.
    pub rand_augment: Option<RandAugment>,
    /// Converts to RGB if it says so, then rescales and normalises.
    pub processor: VitImageProcessor,
}

impl Augmentation {
    /// Crops, flips, varies and normalises; the draws are a pure function of seed, epoch and sample.
    ///
    /// # Shapes
    /// `[H, W, C]` u8 → `[C, size.0, size.1]` f32
    ///
    /// # Errors
    /// Those of [`random_resized_crop`], [`RandAugment::apply`] and [`VitImageProcessor::normalise`].
    pub fn apply(
        &self,
        image: &Image,
        (seed, epoch, sample): (u64, u64, u64),
    ) -> Result<Vec<f32>, ImageError> {
        let stream = Stream::new(seed, "augmentation", epoch, sample);
        let mut index = 0;
        let mut draw = || {
            index += 1;
            stream.uniform(index - 1)
        };
        let mut image = random_resized_crop(image, &self.crop, &mut draw)?;
        if self.flip && draw() < 0.5 {
            image = horizontal_flip(&image);
        }
        if self.processor.do_convert_rgb == Some(true) && image.channels != 3 {
            image = image.to_rgb();
        }
        if let Some(policy) = &self.rand_augment {
            // Draws of their own, so that crops stay the same with and without.
            let stream = Stream::new(seed, "rand-augment", epoch, sample);
            let mut index = 0;
            let mut draw = || {
                index += 1;
                stream.uniform(index - 1)
            };
            image = policy.apply(&image, self.fill(), &mut draw)?;
        }
        self.processor.normalise(&image)
    }
}

impl Augmentation {
    /// The colour of what comes from outside of an image: the processor's mean, which normalises to 0.
    fn fill(&self) -> [u8; 3] {
        [0, 1, 2].map(|channel| {
            let mean = match &self.processor.image_mean {
                PerChannel::All(mean) => *mean,
                PerChannel::Each(means) => means.get(channel).copied().unwrap_or(0.5),
            };
            (255.0 * mean).round_ties_even() as u8
        })
    }
}

/// One batch, ready for the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Its number in the run.
    pub number: u64,
    /// Its epoch.
    pub epoch: u64,
    /// The samples whose images it holds, substitutes under their own index.
    pub samples: Vec<u64>,
    /// `[B, C, H, W]`, B = `samples.len()`.
    pub pixels: Vec<f32>,
    /// The share of patches to remove.
    pub mask_ratio: f64,
    /// Masking noise `[B, L]`, as [`MaskStrategy::noise`] gives it.
    pub noise: Vec<f64>,
    /// Images that could not be used.
    pub bad: Vec<BadSample>,
}

/// Makes any batch of a run from its number alone.
pub struct BatchMaker {
    /// The images.
    pub dataset: Arc<dyn Dataset>,
    /// How batches follow one another.
    pub plan: BatchPlan,
    /// From image to pixels.
    pub augmentation: Augmentation,
    /// Channels that the model expects.
    pub channels: usize,
    /// Rows and columns of patches.
    pub grid: (usize, usize),
    /// The share of them that is removed, and how.
    pub masking: (MaskRatio, MaskStrategy),
    /// The run's seed.
    pub seed: u64,
    /// What to do about a bad image.
    pub on_bad: OnBadSample,
}

impl BatchMaker {
    /// Makes batch `number`.
    ///
    /// # Errors
    /// [`TrainerError::BadSample`] for a bad image under [`OnBadSample::Error`],
    /// [`TrainerError::NoSubstitute`] if no usable image is found for it.
    pub fn make(&self, number: u64) -> Result<Batch, TrainerError> {
        let (epoch, first) = self.plan.place(number);
        let order = Permutation::new(self.plan.images, self.seed, epoch);
        let (ratios, strategy) = &self.masking;
        // The same for all batches of an update, so for all processes too.
        let mask_ratio = ratios.at(number / self.plan.batches_per_update().max(1));
        let mut batch = Batch {
            number,
            epoch,
            mask_ratio,
            samples: Vec::new(),
            pixels: Vec::new(),
            noise: Vec::new(),
            bad: Vec::new(),
        };
        for position in first..first + self.plan.batch_size {
            let sample = order.get(position);
            let Some((used, pixels)) = self.sample(epoch, sample, &mut batch.bad)? else {
                continue;
            };
            batch.samples.push(used);
            batch.pixels.extend(pixels);
            // Noise goes by the place's own sample, so that a substitute gets a mask of its own.
            let noise = Stream::new(self.seed, "mask", epoch, sample);
            batch.noise.extend(strategy.noise(self.grid, mask_ratio, &noise));
        }
        if batch.samples.is_empty() {
            let (sample, tried) = (order.get(first), batch.bad.len() as u64);
            return Err(TrainerError::NoSubstitute { path: self.name(sample), tried });
        }
        Ok(batch)
    }

    /// The image to use for `sample` and its pixels; `None` if it is left out.
    fn sample(
        &self,
        epoch: u64,
        sample: u64,
        bad: &mut Vec<BadSample>,
    ) -> Result<Option<(u64, Vec<f32>)>, TrainerError> {
        let others = Stream::new(self.seed, "substitute", epoch, sample);
        let mut candidate = sample;
        for attempt in 0..SUBSTITUTES {
            let error = match self.pixels(epoch, candidate) {
                Ok(pixels) => return Ok(Some((candidate, pixels))),
                Err(error) => error,
            };
            let path = self.name(candidate);
            if self.on_bad == OnBadSample::Error {
                return Err(TrainerError::BadSample { path, source: Box::new(error) });
            }
            bad.push(BadSample::of(candidate, path, &error));
            if self.on_bad == OnBadSample::Skip {
                return Ok(None);
            }
            candidate = others.bits(attempt) % self.plan.images.max(1);
        }
        Err(TrainerError::NoSubstitute { path: self.name(sample), tried: SUBSTITUTES })
    }

    fn pixels(&self, epoch: u64, sample: u64) -> Result<Vec<f32>, ImageError> {
        let image = self.dataset.load(sample as usize)?;
        let pixels = self.augmentation.apply(&image, (self.seed, epoch, sample))?;
        let (height, width) = self.augmentation.crop.size;
        if pixels.len() != self.channels * height * width {
            let found = pixels.len() / (height * width).max(1);
            let expected = format!("{}, as the model", self.channels);
            return Err(ImageError::Channels { what: "training image", found, expected });
        }
        Ok(pixels)
    }

    fn name(&self, sample: u64) -> String {
        self.dataset.name(sample as usize)
    }
}
