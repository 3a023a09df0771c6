//! Images that cannot be used: recorded once each, and a stop when there are too many.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use vitmae_image::ImageError;

use crate::TrainerError;

/// Bad images that are always tolerated, however small the set.
const ALWAYS_TOLERATED: usize = 10;

/// What to do about an image that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBadSample {
    /// Stop the run.
    Error,
    /// Leave it out: the batch is one image smaller.
    Skip,
    /// Take another image, chosen by seed, epoch and sample: batch size and step count hold.
    #[default]
    Replace,
}

/// An image that could not be used, a line of `bad_samples.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadSample {
    /// Its index in the data set.
    pub sample: u64,
    /// Its path or name.
    pub path: String,
    /// Why it could not be used.
    pub reason: String,
}

impl BadSample {
    /// The image number `sample`, called `path`, and all that its error says.
    pub fn of(sample: u64, path: String, error: &ImageError) -> BadSample {
        BadSample { sample, path, reason: reason(error) }
    }
}

/// `bad_samples.jsonl`: one line for each bad image, also over several runs in one folder.
#[derive(Debug)]
pub struct BadSampleLog {
    path: PathBuf,
    seen: HashSet<u64>,
    limit: usize,
    total: usize,
}

impl BadSampleLog {
    /// Opens the log of a set of `total` images of which `fraction` may be bad, and at least 10.
    ///
    /// # Errors
    /// [`TrainerError::Io`] if an existing log cannot be read.
    pub fn open(path: &Path, total: usize, fraction: f64) -> Result<BadSampleLog, TrainerError> {
        let mut seen = HashSet::new();
        match std::fs::read_to_string(path) {
            Ok(text) => {
                // A line cut by a killed run is not an entry.
                let entries =
                    text.lines().filter_map(|l| serde_json::from_str::<BadSample>(l).ok());
                seen.extend(entries.map(|entry| entry.sample));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(TrainerError::Io { action: "read", path: path.into(), source });
            }
        }
        let limit = ((total as f64 * fraction) as usize).max(ALWAYS_TOLERATED);
        Ok(BadSampleLog { path: path.into(), seen, limit, total })
    }

    /// Writes `bad` down unless it is known; true if it is new.
    ///
    /// # Errors
    /// [`TrainerError::TooManyBadSamples`] above the limit, [`TrainerError::Io`].
    pub fn record(&mut self, bad: &BadSample) -> Result<bool, TrainerError> {
        if !self.seen.insert(bad.sample) {
            return Ok(false);
        }
        self.append(bad).map_err(|source| TrainerError::Io {
            action: "write",
            path: self.path.clone(),
            source,
        })?;
        if self.seen.len() > self.limit {
            return Err(TrainerError::TooManyBadSamples {
                found: self.seen.len(),
                total: self.total,
                limit: self.limit,
                log: self.path.clone(),
            });
        }
        Ok(true)
    }

    fn append(&self, bad: &BadSample) -> std::io::Result<()> {
        let mut file: File = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let mut line = serde_json::to_string(bad)?;
        line.push('\n');
        file.write_all(line.as_bytes())
    }
}

/// An error with its causes on one line.
fn reason(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    let all = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
    all.replace('\n', "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(sample: u64) -> BadSample {
        BadSample { sample, path: format!("{sample}.jpg"), reason: "truncated".into() }
    }

    #[test]
    fn each_image_is_written_once_even_over_two_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad_samples.jsonl");
        let mut log = BadSampleLog::open(&path, 100, 0.001).unwrap();
        assert!(log.record(&bad(3)).unwrap());
        assert!(!log.record(&bad(3)).unwrap());
        let mut log = BadSampleLog::open(&path, 100, 0.001).unwrap();
        assert!(!log.record(&bad(3)).unwrap());
        assert!(log.record(&bad(4)).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\"sample\":3,\"path\":\"3.jpg\",\"reason\":\"truncated\"}\n\
             {\"sample\":4,\"path\":\"4.jpg\",\"reason\":\"truncated\"}\n"
        );
    }

    #[test]
    fn more_than_the_limit_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad_samples.jsonl");
        let mut log = BadSampleLog::open(&path, 2000, 0.01).unwrap();
        for sample in 0..20 {
            log.record(&bad(sample)).unwrap();
        }
        let message = log.record(&bad(20)).unwrap_err().to_string();
        assert!(
            message.starts_with("21 of 2000 images cannot be used, at most 20 may"),
            "{message}"
        );
    }
}
