//! `log.txt`: one JSON object a line, `kind` first.
//!
//! `epoch` lines have the keys of the original's log (`train_loss`, `train_lr`, `epoch`); `step`,
//! `evaluation` and `resume` lines add what it lacks. A resumed run appends: after a `resume` line,
//! the last line of a step counts.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::TrainerError;

/// An open log.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens `path` for appending, and makes it if needed.
    ///
    /// # Errors
    /// [`TrainerError::Io`].
    pub fn open(path: &Path) -> Result<MetricsLog, TrainerError> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|source| TrainerError::Io {
            action: "open",
            path: path.to_path_buf(),
            source,
        })?;
        Ok(MetricsLog { path: path.to_path_buf(), file })
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
        })
    }
}
