//! A model in training: accumulate gradients of batches, then update once.
//!
//! This is the level for a training loop of one's own; it takes pixels and masks as they are and
//! draws nothing but the seed of dropout, a function of the update's number. Nothing here waits for the
//! device: losses and norms stay tensors until they are read.

use vitmae_cpu::random::Stream;
use vitmae_layers::GradientsDone;
use vitmae_model::{
    ForwardOptions, Labels, LatentSeen, Masking, TrainOptions, VitForImageClassification,
    VitMaeForPreTraining,
};
use vitmae_tensor::Tensor;
use vitmae_tensor::ops::{self, Distance};

use crate::gradient_sums::GradientSums;
use crate::online_probe::OnlineProbe;
use crate::team::Pending;
use crate::{AdamW, AdamWOptions, Ema, Trainable, TrainerError};

/// Model, optimizer and the number of updates made.
#[derive(Clone)]
pub struct TrainState<M = VitMaeForPreTraining> {
    /// The model; between [`accumulate`](Self::accumulate) and [`update`](Self::update) its
    /// parameters carry gradients.
    pub model: M,
    /// The optimizer.
    pub optimizer: AdamW,
    /// The average of its weights, if one is kept.
    pub ema: Option<Ema<M>>,
    /// As [`TrainOptions::recompute`].
    pub recompute: bool,
    /// As [`TrainOptions::drop_path`].
    pub drop_path: f64,
    /// How predictions are compared with their targets; for classifiers it has no meaning.
    pub distance: Distance,
    /// The classifier that learns beside a pre-training, if one does.
    pub(crate) probe: Option<OnlineProbe>,
    /// How gradients become those of all processes.
    pub(crate) sums: GradientSums,
    /// Whether what was not finite spoils its own update alone.
    pub(crate) forgets: bool,
    step: u64,
    /// Factor of the next update's gradient; 0 once a loss or a norm was not finite.
    scale: Tensor,
}

/// What one update did.
#[derive(Clone, Debug)]
pub struct Update {
    /// Updates made, this one included.
    pub step: u64,
    /// Global norm of the gradient before clipping, one value.
    pub gradient_norm: Tensor,
}

impl<M: Trainable> TrainState<M> {
    /// Starts at update 0.
    ///
    /// # Errors
    /// Those of [`AdamW::new`].
    pub fn new(model: M, options: AdamWOptions) -> Result<TrainState<M>, TrainerError> {
        let optimizer = AdamW::new(&model.parameters(), options)?;
        Self::resumed(model, optimizer, 0)
    }

    /// As after `step` updates.
    pub(crate) fn resumed(
        model: M,
        optimizer: AdamW,
        step: u64,
    ) -> Result<TrainState<M>, TrainerError> {
        let scale = Tensor::from_slice(model.device(), &[], &[1.0])?;
        Ok(TrainState {
            model,
            optimizer,
            ema: None,
            probe: None,
            recompute: false,
            drop_path: 0.0,
            distance: Distance::Squared,
            sums: GradientSums::default(),
            forgets: false,
            step,
            scale,
        })
    }

    /// Updates made.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Global norm of the accumulated gradient: the root of the sum of all squares, one value.
    ///
    /// # Errors
    /// [`TrainerError::Tensor`].
    pub fn gradient_norm(&self) -> Result<Tensor, TrainerError> {
        let parameters = self.model.parameters();
        let trainable = parameters.iter().filter(|parameter| parameter.trainable);
        let gradients: Vec<&Tensor> =
            trainable.filter_map(|parameter| parameter.grad.as_ref()).collect();
        Ok(ops::global_norm(self.model.device(), &gradients)?)
    }

    /// Updates the parameters from the accumulated gradient, scaled down to norm `clip` if longer,
    /// and clears it. If the norm or a loss is not finite, this update and all after it change neither
    /// parameters nor moments: whoever reads the loss later finds them as they were before it.
    ///
    /// # Errors
    /// [`TrainerError::Tensor`].
    pub fn update(&mut self, lr: f64, clip: Option<f64>) -> Result<Update, TrainerError> {
        self.sums.finish(self.model.parameters_mut())?;
        let gradient_norm = self.gradient_norm()?;
        ops::clip_scale(&gradient_norm, clip, &mut self.scale)?;
        if let Some(probe) = &mut self.probe {
            probe.watch(&gradient_norm)?;
            probe.update(self.step + 1, &self.sums.team)?;
            if self.forgets {
                probe.forget()?;
            }
        }
        self.optimizer.step(self.model.parameters_mut(), lr, &self.scale)?;
        self.model.zero_grad();
        if let Some(ema) = &mut self.ema {
            ema.update(&self.model, &self.scale)?;
        }
        if self.forgets {
            self.scale = Tensor::from_slice(self.model.device(), &[], &[1.0])?;
        }
        self.step += 1;
        Ok(Update { step: self.step, gradient_norm })
    }

    fn options(&self, weight: f64, (seed, batch): (u64, u64)) -> TrainOptions {
        TrainOptions {
            loss_scale: weight as f32,
            dropout_seed: Stream::new(seed, "dropout", batch, 0).bits(0),
            drop_path: self.drop_path,
            recompute: self.recompute,
            forward: ForwardOptions { distance: self.distance, ..ForwardOptions::default() },
            ..TrainOptions::default()
        }
    }

    /// Checks that all processes hold the same model, to the bit.
    pub(crate) fn compare(&self) -> Result<(), TrainerError> {
        let averages = self.ema.iter().flat_map(|ema| ema.model.parameters());
        self.sums.team.same_weights(self.model.parameters().into_iter().chain(averages))
    }

    /// Means over all processes of the losses of an update's batches, and the images of all; the same bits everywhere.
    pub(crate) fn shared(
        &mut self,
        losses: Vec<Tensor>,
        images: u64,
    ) -> Result<(Vec<Tensor>, u64), TrainerError> {
        let team = &self.sums.team;
        let Some(others) = team.others() else { return Ok((losses, images)) };
        let values = losses.iter().map(Tensor::item).chain([Ok(images as f32)]);
        let pending = Pending::start(others, values.collect::<Result<_, _>>()?);
        let mut sums = pending.wait(losses.len() + 1)?;
        let images = sums.pop().unwrap_or_default() as u64;
        let (device, count) = (self.model.device().clone(), team.size() as f32);
        let mean = |sum: f32| self.watch(Tensor::from_slice(&device, &[], &[sum / count])?);
        Ok((sums.into_iter().map(mean).collect::<Result<_, _>>()?, images))
    }

    /// Remembers whether a loss was finite.
    fn watch(&mut self, loss: Tensor) -> Result<Tensor, TrainerError> {
        ops::clip_scale(&loss, None, &mut self.scale)?;
        self.probe.as_mut().map_or(Ok(()), |probe| probe.watch(&loss))?;
        Ok(loss)
    }
}

impl TrainState {
    /// Adds the gradient of `weight` times the loss of one batch; returns the loss itself, one value.
    ///
    /// For n batches an update, `weight` is 1 / n. `draws`, a seed and a batch number, decide dropout alone.
    ///
    /// # Shapes
    /// `pixels: [B, C, H, W]`, masking of the same B.
    ///
    /// # Errors
    /// [`TrainerError::Model`] if shapes do not fit.
    pub fn accumulate(
        &mut self,
        pixels: &Tensor,
        masking: &Masking,
        weight: f64,
        draws: (u64, u64),
    ) -> Result<Tensor, TrainerError> {
        let options = self.options(weight, draws);
        let done: &mut GradientsDone<'_> = &mut |parameters| self.sums.start(parameters);
        let seen: &mut LatentSeen<'_> =
            &mut |tokens| self.probe.as_mut().map_or(Ok(()), |probe| probe.see(tokens));
        let loss = self.model.forward_backward_seen(pixels, masking, &options, done, seen)?;
        self.watch(loss)
    }

    /// One batch, one update; returns the loss before it, one value.
    ///
    /// # Errors
    /// As [`accumulate`](Self::accumulate) and [`update`](Self::update).
    pub fn train_step(
        &mut self,
        pixels: &Tensor,
        masking: &Masking,
        lr: f64,
    ) -> Result<Tensor, TrainerError> {
        let loss = self.accumulate(pixels, masking, 1.0, (0, self.step))?;
        self.update(lr, None)?;
        Ok(loss)
    }
}

impl TrainState<VitForImageClassification> {
    /// As for pre-training: adds the gradient of `weight` times the loss of one batch; returns the loss itself.
    ///
    /// # Shapes
    /// `pixels: [B, C, H, W]`, labels of the same B.
    ///
    /// # Errors
    /// [`TrainerError::Model`] if shapes or labels do not fit.
    pub fn accumulate(
        &mut self,
        pixels: &Tensor,
        labels: Labels<'_>,
        weight: f64,
        draws: (u64, u64),
    ) -> Result<Tensor, TrainerError> {
        let options = self.options(weight, draws);
        let done: &mut GradientsDone<'_> = &mut |parameters| self.sums.start(parameters);
        let loss = self.model.forward_backward_in_parts(pixels, labels, &options, done)?;
        self.watch(loss)
    }
}
