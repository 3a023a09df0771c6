//! SIGINT and SIGTERM: finish the step, save, then exit with 128 plus the signal's number.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use vitmae_trainer::StopFlag;

/// A flag that the first signal sets to its exit code, 130 or 143; the second ends the process.
pub fn watch() -> Result<StopFlag> {
    let stop = StopFlag::new();
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let code = 128 + signal;
        let failed = "cannot watch for signals";
        // Order matters: this one must see what the next ones set only at the second signal.
        flag::register_conditional_shutdown(signal, code, Arc::clone(&asked)).context(failed)?;
        flag::register(signal, Arc::clone(&asked)).context(failed)?;
        flag::register_usize(signal, stop.shared(), code as usize).context(failed)?;
    }
    Ok(stop)
}
