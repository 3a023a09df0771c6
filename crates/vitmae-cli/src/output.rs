//! Files that commands write, whole or not at all.

use std::path::Path;

use anyhow::{Context, Result};
use vitmae_weights::{WeightsError, write_atomically};

/// Replaces `path` by `bytes`; an older file stays as it was if that fails.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(path, |out| {
        out.write_all(bytes).map_err(|source| WeightsError::Io {
            action: "write",
            path: path.to_path_buf(),
            source,
        })
    })
    .with_context(|| format!("`{}` was not written", path.display()))
}
