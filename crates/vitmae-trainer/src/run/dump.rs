//! What is written when the loss or the gradient is not a number: a report, and a checkpoint from which the run makes
//! the same update again.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use vitmae_tensor::Tensor;
use vitmae_weights::Pretrained;

use super::updates::Launched;
use super::{Run, Task};
use crate::checkpoint::{CheckpointStore, Progress, Snapshot};
use crate::{Trainable, TrainerError};

/// Writes `nan_dump/` and gives the error that ends the run.
pub(super) fn write<T: Task>(
    run: &mut Run<'_, T>,
    update: &Launched,
    loss: f64,
    gradient_norm: f64,
) -> TrainerError {
    let Launched { step, ref samples, .. } = *update;
    // A gradient is gone with its update, but the parameters are still those before it.
    let replayed = replay(run, update);
    let dump = run.config.output_dir.join("nan_dump");
    let checkpoint = save_before(run, step, &dump);
    // What a failing device does not give back counts as not finite.
    let finite = |tensor: &Tensor| {
        tensor.to_vec().is_ok_and(|values| values.iter().all(|value| value.is_finite()))
    };
    let parameters = run.state.model.parameters();
    let bad_value = parameters.iter().find(|p| !finite(&p.value));
    let bad_gradient = parameters.iter().find(|p| p.grad.as_ref().is_some_and(|g| !finite(g)));
    let bad_gradient = bad_gradient.filter(|_| replayed.is_ok());
    let (what, value) = if loss.is_finite() {
        ("the gradient's norm".to_owned(), gradient_norm)
    } else {
        ("the loss".to_owned(), loss)
    };
    let names: Vec<_> =
        samples.iter().map(|&sample| run.data.train.name(sample as usize)).collect();
    let report = json!({
        "step": step,
        "epoch": update.epoch,
        "seed": run.config.seed,
        "samples": samples,
        "images": names,
        // JSON has no NaN, so these two are texts.
        "loss": loss.to_string(),
        "gradient_norm": gradient_norm.to_string(),
        "first_bad_parameter": bad_value.map(|parameter| parameter.name.clone()),
        "first_bad_gradient": bad_gradient.map(|parameter| parameter.name.clone()),
        "checkpoint": checkpoint.as_ref().ok(),
        "settings": run.progress.identity,
    });
    let team = &run.config.team;
    let whose = if team.size() > 1 { format!("-process-{}", team.rank()) } else { String::new() };
    let path = dump.join(format!("step-{step:08}{whose}.json"));
    let written =
        fs::create_dir_all(&dump).and_then(|()| fs::write(&path, format!("{report:#}\n")));
    // All see the same number and each writes its own images; the first to leave may end the others.
    let _ = team.agree(None);
    match (written, checkpoint) {
        (Ok(()), Ok(checkpoint)) => {
            TrainerError::NonFinite { step, what, value, dump: path, checkpoint }
        }
        (Err(source), _) => TrainerError::Io { action: "write", path, source },
        (_, Err(error)) => error,
    }
}

/// Writes the checkpoint that the update `step` starts from; gives its folder.
fn save_before<T: Task>(run: &Run<'_, T>, step: u64, dump: &Path) -> Result<PathBuf, TrainerError> {
    let progress = Progress { step: step - 1, ..run.progress.clone() };
    if !run.config.team.leads() {
        return Ok(dump.join(crate::checkpoint::folder_name(step - 1)));
    }
    let snapshot = Snapshot::of(&run.state, &run.config.processor, progress);
    let made = |source| TrainerError::Io { action: "create", path: dump.to_path_buf(), source };
    fs::create_dir_all(dump).map_err(made)?;
    let store = CheckpointStore::new(dump, &run.progress.run);
    store.save(step - 1, run.saver.config_hash(), |folder| snapshot.write(folder))
}

/// Computes the gradient of an update again.
fn replay<T: Task>(run: &mut Run<'_, T>, update: &Launched) -> Result<(), TrainerError> {
    run.state.model.zero_grad();
    let maker = run.batch_maker();
    for &number in &update.batches {
        let batch = run.ready(maker.make(number)?, 0.0)?;
        run.accumulate(&batch)?;
    }
    Ok(())
}
