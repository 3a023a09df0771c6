//! What commands that train have in common around it: progress, reports, signals, and what is printed at the end.

use anyhow::Result;
use serde_json::{Value, json};
use vitmae_trainer::{Event, RunConfig, StopFlag, Summary, TrainerError};

use crate::progress::Progress;
use crate::report::Reporter;
use crate::{Global, signals};

/// Trains by `train`, and prints where the leader's last checkpoint is; as JSON with what `found` has beside.
pub fn run<M>(
    config: &RunConfig,
    global: &Global,
    mut progress: Progress,
    train: impl FnOnce(&StopFlag, &mut dyn FnMut(Event<'_>)) -> Result<Summary<M>, TrainerError>,
    found: impl FnOnce(&Summary<M>) -> Value,
) -> Result<u8> {
    let stop = signals::watch()?;
    let mut reporter = Reporter::new(&config.output_dir);
    let summary = train(&stop, &mut |event| {
        progress.show(&event);
        reporter.see(&event, &progress);
    })?;
    let code = summary.stopped.and_then(|code| u8::try_from(code).ok()).unwrap_or(0);
    if !config.team.leads() {
        return Ok(code);
    }
    reporter.write(&progress);
    drop(progress);
    if global.json {
        let (checkpoint, step, loss) = (&summary.checkpoint, summary.step, summary.last_loss);
        let mut result = json!({"checkpoint": checkpoint, "step": step, "loss": loss});
        for (key, value) in found(&summary).as_object().into_iter().flatten() {
            result[key] = value.clone();
        }
        result["stopped"] = json!(summary.stopped);
        outln!("{result}");
    } else {
        if let Some(accuracy) = summary.evaluation.and_then(|found| found.accuracy) {
            outln!("accuracy {:.2} %", 100.0 * accuracy);
        }
        outln!("{}", summary.checkpoint.display());
    }
    Ok(code)
}
