//! Pre-training: images under random masks.

use std::path::Path;

use vitmae_image::Image;
use vitmae_model::{Masking, VitMaeForPreTraining};
use vitmae_tensor::{Device, Tensor};
use vitmae_weights::{LoadOptions, from_pretrained};

use crate::data::{Batch, Dataset};
use crate::evaluation::evaluate_together;
use crate::reconstruction::sheets;
use crate::run::{Evaluation, Task, run};
use crate::{Datasets, Event, RunConfig, StopFlag, Summary, TrainState, TrainerError};

/// Trains until the last epoch is done or `stop` is set; saves in either case.
///
/// # Errors
/// [`TrainerError`]; what was saved before stays as it is.
pub fn pretrain(
    config: &RunConfig,
    data: &Datasets,
    device: &Device,
    stop: &StopFlag,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Summary, TrainerError> {
    run(&Pretraining, config, data, device, stop, on_event)
}

struct Pretraining;

impl Task for Pretraining {
    type Model = VitMaeForPreTraining;
    type Input = Masking;

    fn first_model(
        &self,
        run: &RunConfig,
        device: &Device,
    ) -> Result<VitMaeForPreTraining, TrainerError> {
        match &run.start_from {
            Some(folder) => self.load(folder, device),
            None => Ok(VitMaeForPreTraining::new(run.model.clone(), device, run.seed)?),
        }
    }

    fn load(&self, folder: &Path, device: &Device) -> Result<VitMaeForPreTraining, TrainerError> {
        Ok(from_pretrained(folder, device, &LoadOptions::default())?.0)
    }

    fn prepare(&self, run: &RunConfig, batch: &mut Batch) -> Result<Masking, TrainerError> {
        let (count, patches) = (batch.samples.len(), run.model.num_patches());
        Ok(Masking::from_noise(&batch.noise, count, patches, batch.mask_ratio)?)
    }

    fn accumulate(
        &self,
        state: &mut TrainState,
        pixels: &Tensor,
        masking: &Masking,
        weight: f64,
        draws: (u64, u64),
    ) -> Result<Tensor, TrainerError> {
        state.accumulate(pixels, masking, weight, draws)
    }

    fn evaluate(
        &self,
        run: &RunConfig,
        model: &VitMaeForPreTraining,
        dataset: &dyn Dataset,
    ) -> Result<Evaluation, TrainerError> {
        let RunConfig { processor, seed, batch_size, team, distance, .. } = run;
        let how = (*seed, *distance);
        let loss = evaluate_together(model, dataset, processor, how, *batch_size, team)?;
        Ok(Evaluation { loss, accuracy: None })
    }

    fn sheet(
        &self,
        run: &RunConfig,
        model: &VitMaeForPreTraining,
        images: &dyn Dataset,
    ) -> Result<Option<Image>, TrainerError> {
        sheets::draw(model, images, &run.processor, run.seed).map(Some)
    }
}
