//! Checkpoints: a Hugging Face model folder plus what training needs to go on bit for bit.
//!
//! | file | content |
//! |---|---|
//! | `config.json`, `model.safetensors` | the model |
//! | `preprocessor_config.json` | how images become pixels |
//! | `optimizer.safetensors` | AdamW's moments, `exp_avg.NAME` and `exp_avg_sq.NAME` |
//! | `ema/` | a model folder with the average of the weights, where one is kept |
//! | `online_probe.safetensors` | the classifier that learns beside a pre-training, and its moments |
//! | `state.json` | step, running loss of the epoch, run, settings |
//! | `MANIFEST.json` | written last: size and SHA-256 of every other file |
//!
//! A folder without a manifest that verifies is no checkpoint. Random numbers need no state: they
//! are functions of the step.

mod flaw;
mod manifest;
mod state;
mod store;

pub use flaw::Flaw;
pub use manifest::{FORMAT_VERSION, FileEntry, MANIFEST_FILE, Manifest};
pub(crate) use manifest::{hex, text_hash};
pub use state::{
    EMA_FOLDER, ONLINE_PROBE_FILE, OPTIMIZER_FILE, Probed, Progress, STATE_FILE, Snapshot, restore,
};
pub(crate) use state::{read_progress, write_progress};
pub(crate) use store::folder_name;
pub use store::{CheckpointStore, Found, Skipped, newest, open};
