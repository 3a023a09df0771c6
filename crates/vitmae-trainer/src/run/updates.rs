//! One update after another: batches in, gradients, the optimizer, and what became of it.

use std::time::Instant;

use serde_json::json;
use vitmae_tensor::Tensor;

use super::nan_policy::{NanPolicy, Rollback, SKIPS_IN_A_ROW};
use super::{Run, Task, dump};
use crate::data::{BadSample, Batch, Prefetch};
use crate::online_probe::Scored;
use crate::spikes::Spike;
use crate::{Event, Step, TrainerError, Update};

/// A batch on the device.
pub(super) struct Ready<I> {
    pub(super) number: u64,
    pub(super) pixels: Tensor,
    pub(super) input: I,
    pub(super) samples: Vec<u64>,
    pub(super) bad: Vec<BadSample>,
    /// Seconds spent waiting for it.
    pub(super) waited: f64,
}

/// An update whose losses and norm have not been read yet.
pub(super) struct Launched {
    pub(super) step: u64,
    pub(super) epoch: f64,
    pub(super) lr: f64,
    pub(super) losses: Vec<Tensor>,
    pub(super) gradient_norm: Tensor,
    /// What a classifier beside the model said of this process's images.
    pub(super) scored: Vec<Scored>,
    /// Of this process.
    pub(super) samples: Vec<u64>,
    /// Of all.
    pub(super) images: u64,
    pub(super) batches: Vec<u64>,
    pub(super) start: Instant,
    pub(super) data_seconds: f64,
}

impl<T: Task> Run<'_, T> {
    /// One update: `accumulation` batches and the optimizer. Waits for nothing but data.
    pub(super) fn update(
        &mut self,
        prefetch: &mut Prefetch,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        let start = Instant::now();
        let (mut losses, mut samples, mut batches) = (Vec::new(), Vec::new(), Vec::new());
        let mut scored = Vec::new();
        let mut data_seconds = 0.0;
        let accumulation = self.course.plan.accumulation;
        for batch in 0..accumulation {
            let ready = match self.ready.take() {
                Some(ready) => ready,
                None => self.next_batch(prefetch),
            }?;
            self.course.record_bad(&ready.bad, on_event)?;
            self.state.sums.last_batch = batch + 1 == accumulation;
            losses.push(self.accumulate(&ready)?);
            scored.extend(self.probe(&ready.samples)?);
            data_seconds += ready.waited;
            samples.extend(ready.samples);
            batches.push(ready.number);
            // The next batch crosses over while a GPU computes this one.
            if !self.device.is_cpu() && !prefetch.is_done() {
                self.ready = Some(self.next_batch(prefetch));
            }
        }
        let epoch = self.course.plan.fractional_epoch(self.state.step());
        let lr = self.course.config.schedule().at(epoch);
        let (losses, images) = self.state.shared(losses, samples.len() as u64)?;
        let Update { step, gradient_norm } = self.state.update(lr, self.course.config.clip_grad)?;
        self.launched.push(Launched {
            step,
            epoch,
            lr,
            losses,
            gradient_norm,
            scored,
            samples,
            images,
            batches,
            start,
            data_seconds,
        });
        Ok(())
    }

    /// Reads losses and norms of the updates since the last time, checks and reports them. If one was not finite and the
    /// policy is to go back, gives the way; it and all behind it have changed nothing.
    pub(super) fn settle(
        &mut self,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Rollback>, TrainerError> {
        let launched = std::mem::take(&mut self.launched);
        let Some(first) = launched.first() else { return Ok(None) };
        let (start, count) = (first.start, launched.len() as f64);
        let weight = self.weight();
        let mut results = Vec::with_capacity(launched.len());
        for update in launched {
            let losses = update.losses.iter().map(|loss| Ok(f64::from(loss.item()?) * weight));
            let loss = losses.sum::<Result<f64, TrainerError>>()?;
            let gradient_norm = f64::from(update.gradient_norm.item()?);
            results.push((update, loss, gradient_norm));
        }
        // What a GPU does has no times of its own.
        let seconds = start.elapsed().as_secs_f64() / count;
        for (update, loss, gradient_norm) in results {
            if loss.is_finite() && gradient_norm.is_finite() {
                self.skipped_in_a_row = 0;
                self.report(&update, loss, gradient_norm, seconds, on_event)?;
                continue;
            }
            let policy = self.course.config.nan_policy;
            if policy == NanPolicy::Skip && self.skipped_in_a_row < SKIPS_IN_A_ROW {
                self.skipped_in_a_row += 1;
                self.report_skip(&update, loss, gradient_norm, on_event)?;
                continue;
            }
            if policy == NanPolicy::Rollback
                && let Some(back) = self.way_back(update.step, on_event)?
            {
                return Ok(Some(back));
            }
            return Err(dump::of_run(self, &update, loss, gradient_norm));
        }
        Ok(None)
    }

    fn report(
        &mut self,
        update: &Launched,
        loss: f64,
        gradient_norm: f64,
        seconds: f64,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        let Launched { step, epoch, lr, data_seconds, images, .. } = *update;
        let (config, plan) = (self.course.config, self.course.plan);
        if self.state.probe.is_some() {
            // All report the same updates, so all are here.
            let own = update.scored.iter().map(|scored| Ok((scored.hits()?, scored.images())));
            let own = own.collect::<Result<Vec<_>, TrainerError>>()?;
            for (hits, images) in config.team.gather(own)?.into_iter().flatten() {
                self.course.progress.probed.hits += hits;
                self.course.progress.probed.images += images;
            }
        }
        let number = update.batches.first().map(|batch| batch / plan.batches_per_update().max(1));
        let number = number.filter(|_| config.mask_ratio_end.is_some());
        let mask_ratio = number.map(|number| config.mask_ratio(plan).at(number));
        let total_steps = self.course.total_steps();
        let told = Step {
            step,
            total_steps,
            epoch,
            loss,
            lr,
            gradient_norm,
            images,
            seconds,
            data_seconds,
        };
        self.course.report(told, mask_ratio, on_event)?;
        for spike in self.spikes.look(loss, gradient_norm) {
            let Spike { what, value, usual } = spike;
            self.course.write_log(&json!({
                "kind": "spike", "step": step, "what": what, "value": value, "usual": usual,
            }))?;
            on_event(Event::Spike { step, spike });
        }
        Ok(())
    }

    fn report_skip(
        &mut self,
        update: &Launched,
        loss: f64,
        gradient_norm: f64,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        let step = update.step;
        // All see the same loss, so all are here.
        let samples = self.course.config.team.gather(update.samples.clone())?.concat();
        let images = self.course.names(&samples);
        // JSON has no NaN, so these two are texts.
        self.course.write_log(&json!({
            "kind": "skipped", "step": step, "loss": loss.to_string(),
            "gradient_norm": gradient_norm.to_string(), "images": images,
        }))?;
        on_event(Event::Skipped { step, loss, gradient_norm });
        Ok(())
    }

    /// Waits for the next batch and brings it to the device.
    fn next_batch(&self, prefetch: &mut Prefetch) -> Result<Ready<T::Input>, TrainerError> {
        let waiting = Instant::now();
        let batch = prefetch.next_batch().unwrap_or(Err(TrainerError::WorkerLost))?;
        self.ready(batch, waiting.elapsed().as_secs_f64())
    }

    pub(super) fn ready(
        &self,
        mut batch: Batch,
        waited: f64,
    ) -> Result<Ready<T::Input>, TrainerError> {
        let input = self.task.prepare(self.course.config, &mut batch)?;
        let model = &self.course.config.model;
        let (height, width) = model.image_size;
        let shape = [batch.samples.len(), model.num_channels, height, width];
        let pixels = Tensor::from_vec(&self.device, &shape, batch.pixels)?;
        let Batch { number, samples, bad, .. } = batch;
        Ok(Ready { number, pixels, input, samples, bad, waited })
    }

    pub(super) fn accumulate(&mut self, batch: &Ready<T::Input>) -> Result<Tensor, TrainerError> {
        let weight = self.weight() / self.course.plan.processes as f64;
        let draws = (self.course.config.seed, batch.number);
        self.task.accumulate(&mut self.state, &batch.pixels, &batch.input, weight, draws)
    }

    /// Lets the classifier beside the model learn from the batch that was accumulated last, if there is one.
    fn probe(&mut self, samples: &[u64]) -> Result<Option<Scored>, TrainerError> {
        let share = self.weight() / self.course.plan.processes as f64;
        let (Some(classes), Some(probe)) =
            (&self.course.config.online_probe, &mut self.state.probe)
        else {
            return Ok(None);
        };
        let labels = samples.iter().map(|&sample| classes.labels[sample as usize]).collect();
        probe.accumulate(labels, share)
    }

    /// The share of one batch in the loss of its update in this process.
    fn weight(&self) -> f64 {
        1.0 / self.course.plan.accumulation as f64
    }

    /// Updates between two looks at their losses; the CPU has computed them by then anyway.
    pub(super) fn updates_at_once(&self) -> usize {
        if self.device.is_cpu() { 1 } else { self.course.config.sync_every }
    }
}
