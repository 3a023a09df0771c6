//! Which kernels there are, read from the sources of `vitmae-kernels`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::paper::Compiled;

/// Kernels that no call has launched on any target.
pub(crate) fn missing(compiled: &[Compiled]) -> anyhow::Result<Vec<String>> {
    let reached: BTreeSet<&str> =
        compiled.iter().filter_map(|c| c.kernel.rsplit_once("::")).map(|(path, _)| path).collect();
    let written = written(Path::new("crates/vitmae-kernels/src"))?;
    let missing = written.iter().filter(|path| !reached.contains(path.as_str()));
    Ok(missing
        .map(|path| format!("{path}: no call in tests/src/bin/targets/calls.rs launches it"))
        .collect())
}

/// The paths of all functions under `#[cube(launch…)]`.
fn written(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for file in sources(root)? {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let module = module(root, &file);
        found.extend(kernels(&text).into_iter().map(|name| format!("{module}::{name}")));
    }
    Ok(found)
}

fn sources(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// `src/gemm/tiled.rs` is `vitmae_kernels::gemm::tiled`.
fn module(root: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(root).unwrap_or(file).with_extension("");
    let parts = inside.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let parts = parts.filter(|part| part != "lib");
    ["vitmae_kernels".to_owned()].into_iter().chain(parts).collect::<Vec<_>>().join("::")
}

/// The names of the functions that follow `#[cube(launch…)]`.
fn kernels(text: &str) -> Vec<&str> {
    let behind = text.split("#[cube(launch").skip(1);
    behind
        .filter_map(|text| {
            let name = text.split("fn ").nth(1)?;
            name.split(['<', '(']).next()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_in_sources() {
        let text = "#[cube]\nfn a() {}\n#[cube(launch_unchecked)]\nfn b<F: Float>(x: &[F]) {}\n\
                    #[cube(launch)]\n#[allow(x)]\npub fn c(x: u32) {}\n";
        assert_eq!(kernels(text), ["b", "c"]);
    }

    #[test]
    fn files_are_modules() {
        let root = Path::new("src");
        assert_eq!(module(root, Path::new("src/lib.rs")), "vitmae_kernels");
        assert_eq!(module(root, Path::new("src/gemm/tiled.rs")), "vitmae_kernels::gemm::tiled");
    }
}
