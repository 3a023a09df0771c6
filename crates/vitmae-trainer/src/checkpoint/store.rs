//! The checkpoints of one output folder: written completely or not at all, found again, rotated.
//!
//! `ckpt-STEP.tmp-PID/` is filled, each file and then the folder flushed, the manifest written last;
//! a rename to `ckpt-STEP/` makes it count, and only then older ones of the same run are removed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{Flaw, Manifest};
use crate::TrainerError;

/// Where a run keeps its checkpoints.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    folder: PathBuf,
    run: String,
}

/// A checkpoint that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its folder.
    pub folder: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
}

/// A folder that looks like a checkpoint and is none.
#[derive(Debug)]
pub struct Skipped {
    /// Its folder.
    pub folder: PathBuf,
    /// What is wrong.
    pub flaw: Flaw,
}

impl CheckpointStore {
    /// The checkpoints of `run` in `folder`, which exists.
    pub fn new(folder: &Path, run: &str) -> CheckpointStore {
        CheckpointStore { folder: folder.to_path_buf(), run: run.to_owned() }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the checkpoint of `step`: `fill` puts the files into the folder it is given.
    ///
    /// A folder that has the name already is kept under `ckpt-STEP.replaced-N`.
    ///
    /// # Errors
    /// The errors of `fill`, and [`TrainerError::Io`]. Nothing that existed has changed then.
    pub fn save(
        &self,
        step: u64,
        config_hash: &str,
        fill: impl FnOnce(&Path) -> Result<(), TrainerError>,
    ) -> Result<PathBuf, TrainerError> {
        let target = self.folder.join(folder_name(step));
        let name = format!("{}.tmp-{}", folder_name(step), std::process::id());
        let temporary = self.folder.join(name);
        let filled = self.fill(&temporary, step, config_hash, fill);
        let placed = filled.and_then(|()| self.place(&temporary, &target));
        if let Err(error) = placed {
            // The error that led here is the one worth reporting.
            let _ = fs::remove_dir_all(&temporary);
            return Err(error);
        }
        Ok(target)
    }

    fn fill(
        &self,
        temporary: &Path,
        step: u64,
        config_hash: &str,
        fill: impl FnOnce(&Path) -> Result<(), TrainerError>,
    ) -> Result<(), TrainerError> {
        // A killed process of the same number may have left one.
        let _ = fs::remove_dir_all(temporary);
        fs::create_dir_all(temporary).map_err(failed("create", temporary))?;
        fill(temporary)?;
        Manifest::seal(temporary, step, &self.run, config_hash)?;
        sync(temporary)
    }

    fn place(&self, temporary: &Path, target: &Path) -> Result<(), TrainerError> {
        if target.exists() {
            let aside = (1u32..)
                .map(|n| target.with_extension(format!("replaced-{n}")))
                .find(|path| !path.exists())
                .unwrap_or_else(|| target.with_extension("replaced"));
            fs::rename(target, aside).map_err(failed("move aside", target))?;
        }
        fs::rename(temporary, target).map_err(failed("create", target))?;
        sync(&self.folder)
    }

    /// Removes all but the newest `keep` (at least one) checkpoints that this run wrote up to
    /// `step`; others' are not touched, nor folders that do not verify by their manifest's name.
    ///
    /// # Errors
    /// [`TrainerError::Io`].
    pub fn rotate(&self, step: u64, keep: usize) -> Result<Vec<PathBuf>, TrainerError> {
        let mut own = Vec::new();
        for (number, folder) in candidates(&self.folder)? {
            let manifest = Manifest::read(&folder);
            let is_own = manifest.is_ok_and(|m| m.run == self.run && m.step == number);
            if is_own && number <= step {
                own.push(folder);
            }
        }
        let old: Vec<_> = own.into_iter().skip(keep.max(1)).collect();
        for folder in &old {
            fs::remove_dir_all(folder).map_err(failed("remove", folder))?;
        }
        Ok(old)
    }

    /// This run's checkpoints of steps before `step` that verify, the newest first.
    ///
    /// # Errors
    /// [`TrainerError::Io`] if the folder cannot be listed.
    pub fn verified_below(&self, step: u64) -> Result<Vec<Found>, TrainerError> {
        let before = candidates(&self.folder)?.into_iter().filter(|(found, _)| *found < step);
        let good = before.filter_map(|(step, folder)| {
            let manifest = verified(&folder, step).ok()?;
            (manifest.run == self.run).then_some(Found { folder, manifest })
        });
        Ok(good.collect())
    }

    /// Removes what killed processes left half-written: of this run, of one with the same settings, which would make the same
    /// again, and what tells no run because it was killed at once. The caller holds the lock.
    ///
    /// # Errors
    /// [`TrainerError::Io`].
    pub fn sweep(&self, identity: &serde_json::Value) -> Result<(), TrainerError> {
        for entry in fs::read_dir(&self.folder).map_err(failed("list", &self.folder))? {
            let path = entry.map_err(failed("list", &self.folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let half_written = name.split_once(".tmp-").is_some_and(|(ckpt, _)| is_name(ckpt));
            let own = || match super::state::progress_of(&path) {
                Some(progress) => progress.run == self.run || progress.identity == *identity,
                None => was_just_begun(&path),
            };
            if half_written && own() {
                fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// The newest checkpoint of `folder` that verifies, and the newer ones that do not.
///
/// # Errors
/// [`TrainerError::Io`] if the folder cannot be listed.
pub fn newest(folder: &Path) -> Result<(Option<Found>, Vec<Skipped>), TrainerError> {
    let mut skipped = Vec::new();
    for (step, folder) in candidates(folder)? {
        match verified(&folder, step) {
            Ok(manifest) => return Ok((Some(Found { folder, manifest }), skipped)),
            Err(flaw) => skipped.push(Skipped { folder, flaw }),
        }
    }
    Ok((None, skipped))
}

/// Verifies one checkpoint.
///
/// # Errors
/// [`TrainerError::Checkpoint`] with what is wrong.
pub fn open(folder: &Path) -> Result<Found, TrainerError> {
    let manifest = Manifest::verify(folder).map_err(|source| {
        let folder = folder.to_path_buf();
        TrainerError::Checkpoint { folder, source: Box::new(source) }
    })?;
    Ok(Found { folder: folder.to_path_buf(), manifest })
}

fn verified(folder: &Path, step: u64) -> Result<Manifest, Flaw> {
    let manifest = Manifest::verify(folder)?;
    if manifest.step != step {
        return Err(Flaw::Step { found: manifest.step, expected: step });
    }
    Ok(manifest)
}

/// Folders named `ckpt-STEP`, the highest step first.
fn candidates(folder: &Path) -> Result<Vec<(u64, PathBuf)>, TrainerError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let path = entry.map_err(failed("list", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(step) = step_of(name) {
            found.push((step, path));
        }
    }
    found.sort_unstable();
    found.reverse();
    Ok(found)
}

pub(crate) fn folder_name(step: u64) -> String {
    format!("ckpt-{step:08}")
}

/// Whether a half-written checkpoint has nothing but its first file, if that.
fn was_just_begun(folder: &Path) -> bool {
    let is_first = |entry: std::io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name() == super::state::STATE_FILE)
    };
    fs::read_dir(folder).is_ok_and(|mut entries| entries.all(is_first))
}

fn is_name(name: &str) -> bool {
    step_of(name).is_some()
}

fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("ckpt-")?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// Makes the entries of a folder survive a power failure; only Unix offers the call.
pub(super) fn sync(folder: &Path) -> Result<(), TrainerError> {
    if cfg!(unix) {
        File::open(folder).and_then(|file| file.sync_all()).map_err(failed("flush", folder))?;
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> TrainerError {
    let path = path.to_path_buf();
    move |source| TrainerError::Io { action, path: path.clone(), source }
}
