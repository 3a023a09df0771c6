//! The tree of the workspace and the files in it.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The folder that holds this workspace.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// A file of a tree: its path from the root, with `/` on every system, and its text if it is UTF-8.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: Option<String>,
}

impl File {
    /// The text of a source file of ours; empty for anything that is not text.
    pub(crate) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or("")
    }

    /// True if the path ends in `.extension`.
    pub(crate) fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }
}

/// Every file below `root` by path, build outputs and version control aside.
pub(crate) fn files(root: &Path) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    for path in paths(root)? {
        let bytes = std::fs::read(root.join(&path)).with_context(|| format!("`{path}`"))?;
        files.push(File { path, text: String::from_utf8(bytes).ok() });
    }
    Ok(files)
}

/// The paths of [`files`], sorted.
pub(crate) fn paths(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(root.join(&folder));
        for entry in entries.with_context(|| format!("`{}`", folder.display()))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if !entry.file_type()?.is_dir() {
                found.push(slashed(&path));
            } else if !is_skipped(&path) {
                folders.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_skipped(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // What `cargo fuzz` builds and finds, when it is used.
    let outputs = ["target", "fuzz/target", "fuzz/corpus", "fuzz/artifacts"];
    outputs.iter().any(|output| path == Path::new(output))
        || name == ".git"
        || name == "__pycache__"
}

fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_this_file_and_no_build_output_is_listed() {
        let paths = paths(root()).unwrap();
        assert!(paths.iter().any(|path| path == "xtask/src/workspace.rs"));
        assert!(
            paths.iter().all(|path| !path.starts_with("target/") && !path.starts_with(".git/"))
        );
    }
}
