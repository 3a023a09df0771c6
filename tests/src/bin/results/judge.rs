//! What an encoder is worth: neighbours, a linear probe, fine-tuning.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use vitmae_image::VitImageProcessor;
use vitmae_model::VitMaeModel;
use vitmae_tensor::Device;
use vitmae_trainer::features::{Pool, features};
use vitmae_trainer::knn::{KnnOptions, knn};
use vitmae_trainer::linear_probe::{Labelled, linear_probe};
use vitmae_trainer::{
    Classes, Confusion, Datasets, Event, FinetuneConfig, RunConfig, StopFlag, Team, classify,
    finetune,
};

use crate::digits::Digits;

/// Shares of test images whose digit was found.
pub struct Judged {
    pub knn: f64,
    pub probe: f64,
    pub tuned: f64,
}

/// The labelled digits.
pub struct Judge<'a> {
    pub work: &'a Path,
    pub processor: VitImageProcessor,
    pub train: Digits,
    pub test: Digits,
}

impl Judge<'_> {
    /// Judges the encoder of a folder.
    pub fn encoder(&self, name: &str, folder: &Path, epochs: u64) -> Result<Judged> {
        let encoder = crate::encoder(folder)?;
        self.judged(name, &encoder, Some(folder.to_path_buf()), epochs)
    }

    /// Judges a new encoder.
    pub fn scratch(&self, name: &str, epochs: u64) -> Result<Judged> {
        let encoder = VitMaeModel::new(model(), &Device::cpu(), 1)?;
        self.judged(name, &encoder, None, epochs)
    }

    /// Trains a new classifier by a recipe that suits one: no layer decay, and more epochs.
    pub fn scratch_at_its_best(&self, name: &str, epochs: u64) -> Result<f64> {
        let mut config = self.config(name, None, epochs);
        config.layer_decay = 1.0;
        config.run.blr = 4e-3;
        self.tuned(name, &config)
    }

    fn judged(
        &self,
        name: &str,
        encoder: &VitMaeModel,
        from: Option<PathBuf>,
        epochs: u64,
    ) -> Result<Judged> {
        let (train, test) = (&self.train, &self.test);
        let team = Team::default();
        let of = |digits: &Digits| {
            features(encoder, digits, &self.processor, Pool::Mean, 64, &team, &mut |_| {})
        };
        let (train_features, test_features) = (of(train)?, of(test)?);
        let labelled = || Labelled { features: &train_features, labels: &train.labels };
        let options = KnnOptions { k: 20, temperature: 0.07 };
        let found = knn(labelled(), &test_features, 10, options)?;
        let knn = Confusion::new(10, &test.labels, &found).accuracy();
        let tests = Labelled { features: &test_features, labels: &test.labels };
        let probe = linear_probe(labelled(), tests, 10)?.accuracy;
        let tuned = self.tuned(name, &self.config(name, from, epochs))?;
        eprintln!("{name}: neighbours {knn:.4}, probe {probe:.4}, fine-tuned {tuned:.4}");
        Ok(Judged { knn, probe, tuned })
    }

    /// The recipe `finetune-small`.
    fn config(&self, name: &str, from: Option<PathBuf>, epochs: u64) -> FinetuneConfig {
        let folder = format!("tuned {name}").replace([' ', ','], "-").to_lowercase();
        let run = RunConfig::new(model(), self.work.join(folder));
        let names = (0..10).map(|digit: usize| digit.to_string()).collect();
        let classes = Classes { names, labels: self.train.labels.clone() };
        let mut config = FinetuneConfig::new(run, classes, self.test.labels.clone());
        (config.mix.mixup, config.erase) = (0.2, 0.0);
        let run = &mut config.run;
        (run.start_from, run.epochs, run.warmup_epochs) = (from, epochs, epochs as f64 / 10.0);
        (run.blr, run.crop_scale, run.flip) = (2e-3, (0.6, 1.0), false);
        (run.evaluate_every_epochs, run.save_every_epochs) = (epochs, epochs);
        config
    }

    fn tuned(&self, name: &str, config: &FinetuneConfig) -> Result<f64> {
        let (train, test) = (Arc::new(self.train.clone()), Arc::new(self.test.clone()));
        let data = Datasets { train, evaluation: Some(test) };
        let summary = finetune(config, &data, &Device::cpu(), &StopFlag::new(), &mut |event| {
            if let Event::EpochEnd { epoch, train_loss, .. } = event {
                eprintln!("{name}: fine-tuning epoch {epoch}, loss {train_loss:.4}");
            }
        })?;
        let (model, processor) = (&summary.model, &config.run.processor);
        let found = classify(model, &self.test, None, processor, 64, &Team::default())?.1;
        Ok(Confusion::new(10, &self.test.labels, &found).accuracy())
    }
}

fn model() -> vitmae_model::VitMaeConfig {
    crate::model((32, 32), (4, 4))
}
