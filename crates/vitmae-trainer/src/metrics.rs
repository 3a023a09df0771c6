//! What a run writes of its progress: `log.txt`, and TensorBoard's event files if asked for.
//!
//! `log.txt` has one JSON object a line, `kind` first. `epoch` lines have the keys of the original's log (`train_loss`,
//! `train_lr`, `epoch`); `step`, `evaluation` and `resume` lines add what it lacks. A resumed run appends: after a `resume`
//! line, the last line of a step counts.
//!
//! Event files have the curves `train_loss`, `lr`, `gradient_norm`, `val_loss` and `val_accuracy`, with `_ema` behind them those of averaged
//! weights, and `probe_accuracy`, over thousandths of epochs, as the original's, so that runs with other batches can be compared.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::TrainerError;
use crate::event_file::EventFile;

/// An open log.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    events: Option<EventFile>,
}

impl MetricsLog {
    /// Opens `path` for appending, and makes it if needed; with `events` a new event file in that folder.
    ///
    /// # Errors
    /// [`TrainerError::Io`].
    pub fn open(path: &Path, events: Option<&Path>) -> Result<MetricsLog, TrainerError> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|source| TrainerError::Io {
            action: "open",
            path: path.to_path_buf(),
            source,
        })?;
        let events = events.map(EventFile::create).transpose()?;
        Ok(MetricsLog { path: path.to_path_buf(), file, events })
    }

    /// Appends one object.
    ///
    /// # Errors
    /// [`TrainerError::Io`].
    pub fn write(&mut self, line: &Value) -> Result<(), TrainerError> {
        // One write a line, so that a killed run cuts at most its last.
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(|source| TrainerError::Io {
            action: "write",
            path: self.path.clone(),
            source,
        })?;
        let Some(events) = &mut self.events else { return Ok(()) };
        let curves: &[(&str, &str)] = match line["kind"].as_str() {
            Some("step") => {
                &[("loss", "train_loss"), ("lr", "lr"), ("gradient_norm", "gradient_norm")]
            }
            Some("epoch") => &[("probe_accuracy", "probe_accuracy")],
            Some("evaluation") => &[
                ("val_loss", "val_loss"),
                ("val_accuracy", "val_accuracy"),
                ("val_loss_ema", "val_loss_ema"),
                ("val_accuracy_ema", "val_accuracy_ema"),
            ],
            _ => return Ok(()),
        };
        let values: Vec<(&str, f64)> =
            curves.iter().filter_map(|&(key, tag)| Some((tag, line[key].as_f64()?))).collect();
        // As in the original's log, the line of an epoch counts from 0.
        let first = if line["kind"] == "epoch" { 1.0 } else { 0.0 };
        let thousandths = 1000.0 * (first + line["epoch"].as_f64().unwrap_or(0.0));
        events.scalars(thousandths as i64, &values)
    }
}
