//! Fine-tuning: a classifier on a pre-trained encoder, or on a new one.

use std::path::Path;

use serde_json::{Value, json};
use vitmae_cpu::random::Stream;
use vitmae_model::{ForwardOptions, Head, Labels, ModelError, VitForImageClassification};
use vitmae_tensor::{Device, Tensor};
use vitmae_weights::{LoadOptions, classifier_from_pretrained, encoder_from_pretrained};

use crate::data::{Batch, Dataset};
use crate::evaluation::pixels_of;
use crate::mix::{Mix, Pixels};
use crate::run::{Evaluation, Task, run};
use crate::{
    Classes, Confusion, Datasets, Event, Groups, RunConfig, StopFlag, Summary, Team, TrainState,
    TrainerError,
};

/// Standard deviation of a new classifier behind a mean of tokens.
const HEAD_DEVIATION: f64 = 2e-5;

/// The settings of fine-tuning.
#[derive(Clone, Debug, PartialEq)]
pub struct FinetuneConfig {
    /// Those that every run has. `model` describes the encoder, `start_from` has its weights; images may be of another
    /// size than the encoder's, whose positions are then resampled.
    pub run: RunConfig,
    /// Classes of the training images.
    pub classes: Classes,
    /// Labels of the evaluation images, by the same names.
    pub evaluation_labels: Vec<usize>,
    /// How the classifier reads the encoder's tokens.
    pub head: Head,
    /// As in [`Groups::FineTuning`].
    pub layer_decay: f64,
    /// As [`TrainOptions::drop_path`](vitmae_model::TrainOptions::drop_path).
    pub drop_path: f64,
    /// Mixed images and smoothed labels.
    pub mix: Mix,
    /// Share of images in which a rectangle is erased.
    pub erase: f64,
    /// Train the last so many blocks and what is behind them; everything if none.
    pub last_blocks: Option<usize>,
}

impl FinetuneConfig {
    /// The original's defaults for a base model: β₂ 0.999, 50 epochs with 5 of warm-up, layer decay 0.75, drop path
    /// 0.1, crops from 0.08 of an image on (timm's `create_transform`), erasing 0.25, smoothing 0.1, the mean of the tokens.
    ///
    /// Source: `main_finetune.py` of facebookresearch/mae, by name and value only. RandAugment, which it has by default, is
    /// for [`RunConfig::rand_augment`] to choose.
    pub fn new(run: RunConfig, classes: Classes, evaluation_labels: Vec<usize>) -> Self {
        let mut run = RunConfig {
            epochs: 50,
            warmup_epochs: 5.0,
            blr: 1e-3,
            min_lr: 1e-6,
            crop_scale: (0.08, 1.0),
            save_every_epochs: 1,
            ..run
        };
        run.adamw.betas = [0.9, 0.999];
        let head = Head::MeanFcNorm;
        Self {
            run,
            classes,
            evaluation_labels,
            head,
            layer_decay: 0.75,
            drop_path: 0.1,
            mix: Mix::default(),
            erase: 0.25,
            last_blocks: None,
        }
    }

    fn validate(&self) -> Result<(), TrainerError> {
        if self.run.online_probe.is_some() {
            let (key, found) = ("online_probe", "on".to_owned());
            let expected = "off in fine-tuning, which trains a classifier itself";
            return Err(TrainerError::Setting { key, found, expected });
        }
        let share = |key, value: f64| {
            if (0.0..1.0).contains(&value) {
                return Ok(());
            }
            let expected = "from 0 to below 1";
            Err(TrainerError::Setting { key, found: value.to_string(), expected })
        };
        share("drop_path", self.drop_path)?;
        share("smoothing", self.mix.smoothing)?;
        let within = |key, value: f64, good: bool, expected| {
            if good {
                Ok(())
            } else {
                Err(TrainerError::Setting { key, found: value.to_string(), expected })
            }
        };
        let one = |key, value: f64| within(key, value, (0.0..=1.0).contains(&value), "from 0 to 1");
        one("reprob", self.erase)?;
        one("mixup_prob", self.mix.probability)?;
        one("mixup_switch_prob", self.mix.switch)?;
        let alpha = |key, value: f64| {
            within(key, value, value >= 0.0 && value.is_finite(), "a number from 0 up")
        };
        alpha("mixup", self.mix.mixup)?;
        alpha("cutmix", self.mix.cutmix)?;
        let decay = self.layer_decay;
        within("layer_decay", decay, decay > 0.0 && decay <= 1.0, "above 0 and at most 1")?;
        let (blocks, all) = (self.last_blocks.unwrap_or(0), self.run.model.num_hidden_layers);
        within("last_blocks", blocks as f64, blocks <= all, "at most the encoder's blocks")
    }
}

/// Trains a classifier until the last epoch is done or `stop` is set; saves in either case. Resumes as
/// [`pretrain`](crate::pretrain()) does.
///
/// # Errors
/// [`TrainerError`]; what was saved before stays as it is.
pub fn finetune(
    config: &FinetuneConfig,
    data: &Datasets,
    device: &Device,
    stop: &StopFlag,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Summary<VitForImageClassification>, TrainerError> {
    config.validate()?;
    let mut config = config.clone();
    config.name_classes();
    let mut settings = config.run.clone();
    let (layer_decay, blocks) = (config.layer_decay, settings.model.num_hidden_layers);
    settings.adamw.groups = Groups::FineTuning { layer_decay, blocks };
    run(&config, &settings, data, device, stop, on_event)
}

impl Task for FinetuneConfig {
    type Model = VitForImageClassification;
    type Input = Vec<f32>;

    fn first_model(
        &self,
        run: &RunConfig,
        device: &Device,
    ) -> Result<VitForImageClassification, TrainerError> {
        let mut model =
            VitForImageClassification::new(run.model.clone(), self.head, device, run.seed)?;
        if let Some(folder) = &run.start_from {
            let all = |patterns: &[&str]| patterns.iter().map(|p| (*p).to_owned()).collect();
            let options = LoadOptions {
                allow_missing: all(&["vit.norm.*"]),
                allow_unexpected: all(&["decoder.*", "classifier.*", "fc_norm.*"]),
                ..LoadOptions::default()
            };
            let (encoder, _) = encoder_from_pretrained(folder, device, &options)?;
            let positions = encoder.positions_for(run.model.image_size)?;
            let loaded = encoder.parameters();
            for parameter in model.vit.parameters_mut() {
                // With a mean head the encoder has no norm.
                if let Some(from) = loaded.iter().find(|p| p.name == parameter.name) {
                    parameter.value = from.value.clone();
                }
            }
            model.vit.position_embeddings.value = positions;
        }
        if self.head == Head::MeanFcNorm {
            let weight = &mut model.classifier.weight;
            let stream = Stream::new(run.seed, "classifier", 0, 0);
            let count: usize = weight.value.shape().iter().product();
            let normal = |i| (HEAD_DEVIATION * stream.normal(i).clamp(-2.0, 2.0)) as f32;
            let values: Vec<f32> = (0..count as u64).map(normal).collect();
            weight.set(&values).map_err(ModelError::from)?;
        }
        self.freeze(&mut model);
        Ok(model)
    }

    fn load(
        &self,
        folder: &Path,
        device: &Device,
    ) -> Result<VitForImageClassification, TrainerError> {
        let options = LoadOptions::default();
        let mut model = classifier_from_pretrained(folder, self.head, device, &options)?.0;
        self.freeze(&mut model);
        Ok(model)
    }

    fn prepare(&self, run: &RunConfig, batch: &mut Batch) -> Result<Vec<f32>, TrainerError> {
        let (height, width) = run.model.image_size;
        let channels = run.model.num_channels;
        let mut pixels = Pixels { values: &mut batch.pixels, channels, height, width };
        pixels.erase(self.erase, run.seed, batch.epoch, &batch.samples);
        let labels: Vec<usize> =
            batch.samples.iter().map(|&sample| self.classes.labels[sample as usize]).collect();
        let draws = (run.seed, batch.number);
        Ok(self.mix.apply(&mut pixels, &labels, self.classes.names.len(), draws))
    }

    fn accumulate(
        &self,
        state: &mut TrainState<VitForImageClassification>,
        pixels: &Tensor,
        shares: &Vec<f32>,
        weight: f64,
        draws: (u64, u64),
    ) -> Result<Tensor, TrainerError> {
        state.accumulate(pixels, Labels::Shares(shares), weight, draws)
    }

    fn evaluate(
        &self,
        run: &RunConfig,
        model: &VitForImageClassification,
        dataset: &dyn Dataset,
    ) -> Result<Evaluation, TrainerError> {
        let labels = Some(self.evaluation_labels.as_slice());
        let RunConfig { processor, batch_size, team, .. } = run;
        let (loss, predictions) = classify(model, dataset, labels, processor, *batch_size, team)?;
        let count = self.classes.names.len();
        let confusion = Confusion::new(count, &self.evaluation_labels, &predictions);
        Ok(Evaluation { loss, accuracy: Some(confusion.accuracy()) })
    }

    fn identity(&self) -> Option<Value> {
        let Mix { mixup, cutmix, probability, switch, smoothing } = self.mix;
        Some(json!({
            "finetune": format!("{:?}", self.head),
            "classes": self.classes.names,
            "layer_decay": self.layer_decay,
            "drop_path": self.drop_path,
            "mixup": mixup,
            "cutmix": cutmix,
            "mixup_prob": probability,
            "mixup_switch_prob": switch,
            "smoothing": smoothing,
            "reprob": self.erase,
            "last_blocks": self.last_blocks,
        }))
    }

    fn drop_path(&self) -> f64 {
        self.drop_path
    }
}

impl FinetuneConfig {
    /// Writes the classes into the model's configuration.
    pub(crate) fn name_classes(&mut self) {
        let names = self.classes.names.iter().enumerate();
        let id2label: Value = names.clone().map(|(i, name)| (i.to_string(), json!(name))).collect();
        let label2id: Value = names.map(|(i, name)| (name.clone(), json!(i))).collect();
        let extra = &mut self.run.model.extra;
        extra.insert("id2label".into(), id2label);
        extra.insert("label2id".into(), label2id);
        extra.insert("problem_type".into(), "single_label_classification".into());
    }

    /// Leaves untrained what lies before the last blocks.
    fn freeze(&self, model: &mut VitForImageClassification) {
        let Some(count) = self.last_blocks else { return };
        let first = self.run.model.num_hidden_layers - count;
        let trained: Vec<String> =
            (first..first + count).map(|block| format!("vit.blocks.{block}.")).collect();
        for parameter in model.parameters_mut() {
            let name = &parameter.name;
            let behind = !name.starts_with("vit.") || name.starts_with("vit.norm.");
            parameter.trainable = behind || trained.iter().any(|block| name.starts_with(block));
        }
    }
}

/// The class that a classifier finds for every image, prepared as for evaluation, and the mean cross entropy of `labels`
/// if they are known, else NaN. The processes of `team` take batches in turn; all get the result, the same bits as of one.
///
/// # Errors
/// [`TrainerError::EvaluationImage`] for an image that cannot be used, [`TrainerError::Model`], [`TrainerError::TeamLost`].
pub fn classify(
    model: &VitForImageClassification,
    dataset: &dyn Dataset,
    labels: Option<&[usize]>,
    processor: &vitmae_image::VitImageProcessor,
    batch_size: usize,
    team: &Team,
) -> Result<(f64, Vec<usize>), TrainerError> {
    let config = &model.config;
    let (height, width) = config.image_size;
    let batch_size = batch_size.max(1);
    let batches = team.spread(dataset.len().div_ceil(batch_size), |index| {
        let (mut losses, mut predictions) = (Vec::new(), Vec::new());
        let samples = index * batch_size..((index + 1) * batch_size).min(dataset.len());
        let shape = [samples.len(), config.num_channels, height, width];
        let mut pixels = Vec::new();
        for sample in samples.clone() {
            pixels.extend(pixels_of(dataset, sample, config, processor)?);
        }
        let pixels = Tensor::from_vec(model.vit.device(), &shape, pixels)?;
        let output = model.forward(&pixels, None, &ForwardOptions::default())?;
        let scores = output.logits.to_vec()?;
        for (row, sample) in scores.chunks(config.num_labels()).zip(samples) {
            let best = |best: usize, at: usize| if row[at] > row[best] { at } else { best };
            predictions.push((0..row.len()).fold(0, best));
            let loss = labels.map_or(f64::NAN, |labels| {
                let largest = row.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
                let exp = row.iter().map(|&x| f64::from(x - largest).exp()).sum::<f64>();
                exp.ln() + f64::from(largest) - f64::from(row[labels[sample]])
            });
            losses.push(loss.to_bits());
        }
        Ok((losses, predictions))
    })?;
    let (losses, predictions): (Vec<_>, Vec<_>) = batches.into_iter().unzip();
    let sum: f64 = losses.concat().into_iter().map(f64::from_bits).sum();
    Ok((sum / dataset.len() as f64, predictions.concat()))
}
