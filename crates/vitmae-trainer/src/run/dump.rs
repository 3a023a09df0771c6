//! What is written when the loss or the gradient is not a number: a report, and a checkpoint from which the run makes
//! the same update again.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vitmae_tensor::Tensor;
use vitmae_weights::Pretrained;

use super::course::Course;
use super::updates::Launched;
use super::{Run, Task, failed};
use crate::checkpoint::{CheckpointStore, folder_name, text_hash};
use crate::{Trainable, TrainerError};

/// Writes `nan_dump/` and gives the error that ends a run.
pub(super) fn of_run<T: Task>(
    run: &mut Run<'_, T>,
    update: &Launched,
    loss: f64,
    gradient_norm: f64,
) -> TrainerError {
    let Launched { step, ref samples, .. } = *update;
    // A gradient is gone with its update, but the parameters are still those before it.
    let replayed = replay(run, update);
    let snapshot = run.snapshot(step - 1);
    // What a failing device does not give back counts as not finite.
    let finite = |tensor: &Tensor| {
        tensor.to_vec().is_ok_and(|values| values.iter().all(|value| value.is_finite()))
    };
    let parameters = run.state.model.parameters();
    let bad_value = parameters.iter().find(|p| !finite(&p.value));
    let bad_gradient = parameters.iter().find(|p| p.grad.as_ref().is_some_and(|g| !finite(g)));
    let bad_gradient = bad_gradient.filter(|_| replayed.is_ok());
    let found = json!({
        "first_bad_parameter": bad_value.map(|parameter| &parameter.name),
        "first_bad_gradient": bad_gradient.map(|parameter| &parameter.name),
    });
    let numbers = (loss, gradient_norm);
    write(&run.course, (step, samples), numbers, found, |folder| snapshot.write(folder))
}

/// Writes `nan_dump/`, with the checkpoint that the update starts from and what was `found` beside, and gives the error that
/// ends the run.
pub(super) fn write(
    course: &Course<'_>,
    (step, samples): (u64, &[u64]),
    (loss, gradient_norm): (f64, f64),
    found: Value,
    checkpoint: impl FnOnce(&Path) -> Result<(), TrainerError>,
) -> TrainerError {
    let (config, team) = (course.config, &course.config.team);
    let dump = config.output_dir.join("nan_dump");
    let checkpoint = save_before(course, step, &dump, checkpoint);
    let (what, value) =
        if loss.is_finite() { ("the gradient's norm", gradient_norm) } else { ("the loss", loss) };
    let mut report = json!({
        "step": step,
        "epoch": course.plan.fractional_epoch(step - 1),
        "seed": config.seed,
        "samples": samples,
        "images": course.names(samples),
        // JSON has no NaN, so these two are texts.
        "loss": loss.to_string(),
        "gradient_norm": gradient_norm.to_string(),
        "checkpoint": checkpoint.as_ref().ok(),
        "settings": course.progress.identity,
    });
    for (key, value) in found.as_object().into_iter().flatten() {
        report[key] = value.clone();
    }
    let whose = if team.size() > 1 { format!("-process-{}", team.rank()) } else { String::new() };
    let path = dump.join(format!("step-{step:08}{whose}.json"));
    let written =
        fs::create_dir_all(&dump).and_then(|()| fs::write(&path, format!("{report:#}\n")));
    // All see the same number and each writes its own images; the first to leave may end the others.
    let _ = team.agree(None);
    match (written, checkpoint) {
        (Ok(()), Ok(checkpoint)) => {
            TrainerError::NonFinite { step, what: what.to_owned(), value, dump: path, checkpoint }
        }
        (Err(source), _) => TrainerError::Io { action: "write", path, source },
        (_, Err(error)) => error,
    }
}

/// Writes the checkpoint that the update `step` starts from; gives its folder.
fn save_before(
    course: &Course<'_>,
    step: u64,
    dump: &Path,
    write: impl FnOnce(&Path) -> Result<(), TrainerError>,
) -> Result<PathBuf, TrainerError> {
    if !course.config.team.leads() {
        return Ok(dump.join(folder_name(step - 1)));
    }
    fs::create_dir_all(dump).map_err(failed("create", dump))?;
    let store = CheckpointStore::new(dump, &course.progress.run);
    store.save(step - 1, &text_hash(&course.progress.identity.to_string()), write)
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
