//! Where a run begins.

use std::path::PathBuf;

use serde_json::Value;

use super::config::differences;
use super::{Resume, RunConfig};
use crate::checkpoint::{self, Progress, read_progress, text_hash};
use crate::{Event, TrainerError};

/// The checkpoint to go on from, if any, whose settings are those of `identity`, and how far the run is.
pub(super) fn begin(
    config: &RunConfig,
    identity: Value,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<(Option<PathBuf>, Progress), TrainerError> {
    let Some(folder) = config.team.ask_leader(|| find_checkpoint(config, on_event))? else {
        return Ok((None, Progress::new(new_run_name(), identity)));
    };
    let progress = read_progress(&folder)?;
    let differences = differences(&progress.identity, &identity);
    if !differences.is_empty() && !config.override_settings {
        return Err(TrainerError::OtherSettings { folder, differences });
    }
    Ok((Some(folder), Progress { identity, ..progress }))
}

/// A name that no other run has; it decides nothing but which checkpoints rotation may remove.
fn new_run_name() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanoseconds = now.map_or(0, |now| now.as_nanos());
    text_hash(&format!("{nanoseconds} {}", std::process::id()))[..16].to_owned()
}

/// The checkpoint to resume from, if any.
fn find_checkpoint(
    config: &RunConfig,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Option<PathBuf>, TrainerError> {
    let folder = &config.output_dir;
    if let Resume::From(checkpoint) = &config.resume {
        return Ok(Some(checkpoint::open(checkpoint)?.folder));
    }
    let (found, mut skipped) = checkpoint::newest(folder)?;
    if config.resume == Resume::Never {
        if found.is_some() || !skipped.is_empty() {
            return Err(TrainerError::OutputNotEmpty { folder: folder.clone() });
        }
        return Ok(None);
    }
    for skipped in &skipped {
        let (folder, flaw) = (&skipped.folder, &skipped.flaw);
        on_event(Event::CheckpointSkipped { folder, flaw });
    }
    match found {
        Some(found) => Ok(Some(found.folder)),
        // Starting again beside damaged checkpoints would hide that work was lost.
        None if !skipped.is_empty() => {
            let found = skipped.len();
            let source = Box::new(skipped.swap_remove(0).flaw);
            Err(TrainerError::NoUsableCheckpoint { folder: folder.clone(), found, source })
        }
        None => Ok(None),
    }
}
