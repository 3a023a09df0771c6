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

/// Of each kind of line, the keys that are curves of event files, and what the curves are called.
const CURVES: [(&str, &[(&str, &str)]); 3] = [
    ("step", &[("loss", "train_loss"), ("lr", "lr"), ("gradient_norm", "gradient_norm")]),
    ("epoch", &[("probe_accuracy", "probe_accuracy")]),
    (
        "evaluation",
        &[
            ("val_loss", "val_loss"),
            ("val_accuracy", "val_accuracy"),
            ("val_loss_ema", "val_loss_ema"),
            ("val_accuracy_ema", "val_accuracy_ema"),
        ],
    ),
];

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
        let kind = CURVES.iter().find(|(kind, _)| line["kind"] == *kind);
        let Some((_, curves)) = kind else { return Ok(()) };
        let values: Vec<(&str, f64)> =
            curves.iter().filter_map(|&(key, tag)| Some((tag, line[key].as_f64()?))).collect();
        // As in the original's log, the line of an epoch counts from 0.
        let first = if line["kind"] == "epoch" { 1.0 } else { 0.0 };
        let thousandths = 1000.0 * (first + line["epoch"].as_f64().unwrap_or(0.0));
        events.scalars(thousandths as i64, &values)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tensorboard_has_read_every_curve() {
        // Written by `tests/generate/check_event_files.py`, which compares each point with the log.
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/event-files.json");
        let fixture: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let runs = fixture["points"].as_object().unwrap().values();
        let read: BTreeSet<&str> =
            runs.flat_map(|run| run.as_object().unwrap().keys().map(String::as_str)).collect();
        let written = CURVES.iter().flat_map(|(_, curves)| curves.iter().map(|(_, tag)| *tag));
        assert_eq!(read, written.collect());
    }
}
