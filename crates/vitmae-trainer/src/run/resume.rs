//! Which checkpoint a run goes on from.

use std::path::PathBuf;

use super::{Resume, RunConfig};
use crate::{Event, TrainerError, checkpoint};

/// The checkpoint to resume from, if any.
pub(super) fn find_checkpoint(
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
