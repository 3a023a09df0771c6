//! The same pre-training in PyTorch: same first weights, and each batch with its masks and its learning rate in our order.

use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use vitmae_model::VitMaeForPreTraining;
use vitmae_tensor::Device;
use vitmae_trainer::RunConfig;
use vitmae_trainer::data::{BatchMaker, Dataset};
use vitmae_weights::save_pretrained;

/// The loss of each of the first `updates`; `folder` is for files between the two sides. What a run before has found is taken.
pub fn losses(
    config: &RunConfig,
    train: Arc<dyn Dataset>,
    python: &str,
    folder: &Path,
    updates: u64,
) -> Result<Vec<f64>> {
    let plan = config.plan(train.len());
    ensure!(config.accumulation == 1, "one batch an update is what the other side knows");
    let known = folder.join("losses.json");
    if let Ok(text) = fs::read_to_string(&known) {
        let losses: Vec<f64> = serde_json::from_str(&text)?;
        if losses.len() as u64 == updates {
            return Ok(losses);
        }
    }
    let first = folder.join("first");
    fs::create_dir_all(&first)?;
    let model = VitMaeForPreTraining::new(config.model.clone(), &Device::cpu(), config.seed)?;
    save_pretrained(&model, &first)?;
    let maker = BatchMaker {
        dataset: train,
        plan,
        augmentation: config.augmentation(),
        channels: config.model.num_channels,
        grid: config.model.grid(),
        masking: (config.mask_ratio(plan), config.mask_strategy.clone()),
        seed: config.seed,
        on_bad: config.on_bad_sample,
    };
    let mut child = Command::new(python)
        .arg("tests/src/bin/results/peer.py")
        .arg(&first)
        .args([config.batch_size.to_string(), config.adamw.weight_decay.to_string()])
        .args(config.adamw.betas.map(|beta| beta.to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{python}` does not start"))?;
    let mut to = BufWriter::new(child.stdin.take().context("no pipe")?);
    let mut from = BufReader::new(child.stdout.take().context("no pipe")?).lines();
    let mut losses = Vec::new();
    for update in 0..updates {
        let batch = maker.make(update)?;
        let lr = config.schedule().at(plan.fractional_epoch(update));
        to.write_all(&lr.to_le_bytes())?;
        for value in &batch.pixels {
            to.write_all(&value.to_le_bytes())?;
        }
        for value in &batch.noise {
            to.write_all(&value.to_le_bytes())?;
        }
        to.flush()?;
        let line = from.next().context("PyTorch's side ended")??;
        losses.push(line.parse().with_context(|| format!("`{line}` is no loss"))?);
        if update % 100 == 0 {
            eprintln!("PyTorch: update {update}, loss {line}");
        }
    }
    drop(to);
    ensure!(child.wait()?.success(), "PyTorch's side failed");
    fs::write(known, serde_json::to_string(&losses)?)?;
    Ok(losses)
}
