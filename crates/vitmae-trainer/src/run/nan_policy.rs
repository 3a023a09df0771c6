//! What becomes of a run whose loss or gradient is not finite.

use std::path::PathBuf;

use serde_json::json;

use super::{Run, Task, equip};
use crate::checkpoint::restore;
use crate::{Event, TrainerError};

/// Updates without effect, one behind the other, after which skipping more would train nothing.
pub(super) const SKIPS_IN_A_ROW: u32 = 10;
/// Times that a run goes back to one checkpoint.
const ROLLBACKS: u32 = 3;

/// What to do about an update whose loss or gradient is not finite. It never changes the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NanPolicy {
    /// End the run with a dump that repeats it.
    #[default]
    Stop,
    /// Go on with the next one; ten in a row end the run. A skipped update counts as made.
    Skip,
    /// Go back to the last checkpoint and on from there with the images behind those of the failed update; the fourth time
    /// from one checkpoint ends the run.
    Rollback,
}

/// A way back.
pub(super) struct Rollback {
    /// The update that was not finite.
    failed: u64,
    /// The checkpoint to take up again.
    folder: PathBuf,
}

/// The checkpoint that a run went back to last.
pub(super) struct RolledBack {
    folder: PathBuf,
    times: u32,
}

impl<T: Task> Run<'_, T> {
    /// How to go back from the update `failed`, if there is a checkpoint that may still help; the same answer at every
    /// process.
    ///
    /// Checkpoints that a stop left between two regular ones count only where there is no regular one: so a run that was
    /// stopped goes back to the same place as one that was not.
    pub(super) fn way_back(
        &mut self,
        failed: u64,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Rollback>, TrainerError> {
        self.saver.finish(on_event)?;
        let times = self.rolled_back.as_ref().map(|last| (&last.folder, last.times));
        let interval = self.course.save_interval();
        let found = self.course.config.team.ask_leader(|| {
            let own = self.saver.store().verified_below(failed)?;
            let regular = own.iter().find(|found| found.manifest.step.is_multiple_of(interval));
            let found = regular.or(own.first()).map(|found| &found.folder);
            Ok(found.filter(|folder| times != Some((folder, ROLLBACKS))).cloned())
        })?;
        Ok(found.map(|folder| Rollback { failed, folder }))
    }

    /// Takes up a checkpoint again. The images between it and the update that failed are passed over, and the checkpoints
    /// that follow know that: a resumed run makes the same updates.
    pub(super) fn roll_back(
        &mut self,
        Rollback { failed, folder }: Rollback,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        let load = |folder: &std::path::Path| self.task.load(folder, &self.device);
        let (mut state, mut progress) =
            restore(&folder, &self.device, self.course.config.adamw, load)?;
        equip(&mut state, self.task, self.course.config)?;
        let step = state.step();
        progress.passed_over = self.course.progress.passed_over + failed - step;
        progress.identity = self.course.progress.identity.clone();
        (self.state, self.course.progress, self.ready) = (state, progress, None);
        let before = self.rolled_back.take().filter(|last| last.folder == folder);
        let times = before.map_or(1, |last| last.times + 1);
        self.course.write_log(&json!({"kind": "rollback", "failed": failed, "step": step}))?;
        on_event(Event::RolledBack { failed, step, folder: &folder });
        self.rolled_back = Some(RolledBack { folder, times });
        Ok(())
    }
}
