//! Mesa's software Vulkan, lavapipe: the device that the GPU tests have on every machine.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::command::Line;
use crate::{debian, workspace};

/// Debian's packages with the driver and the loader, and with the validator that `cargo xtask targets` uses.
const PACKAGES: &str = "mesa-vulkan-drivers libvulkan1 spirv-tools";
/// Folders of driver descriptions.
const DRIVERS: [&str; 3] =
    ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];
/// Folders of libraries, and of folders of libraries.
const LIBRARIES: [&str; 3] = ["/usr/lib", "/usr/lib64", "/usr/local/lib"];

/// Installs the packages if they are missing and this is Debian or Ubuntu as root.
pub(crate) fn ensure() -> anyhow::Result<()> {
    debian::ensure("Mesa's software Vulkan", "the GPU tests", PACKAGES, is_installed)
}

/// `line` with what its programs need: the one driver, a folder for its sockets, and the stack that the
/// shader compiler walks.
pub(crate) fn environment(line: Line) -> anyhow::Result<Line> {
    let sockets = workspace::root().join("target/xdg");
    std::fs::create_dir_all(&sockets)
        .with_context(|| format!("cannot create `{}`", sockets.display()))?;
    let mut line = line
        .environment("XDG_RUNTIME_DIR", sockets.display().to_string())
        .environment("RUST_MIN_STACK", "16777216");
    if let Some(driver) = driver() {
        line = line.environment("VK_DRIVER_FILES", driver.display().to_string());
    }
    Ok(line)
}

fn is_installed() -> bool {
    driver().is_some() && LIBRARIES.iter().any(|folder| has_loader(Path::new(folder), 1))
}

/// The description of the driver.
fn driver() -> Option<PathBuf> {
    let names = |name: &str| name.starts_with("lvp_icd") && name.ends_with(".json");
    DRIVERS.iter().find_map(|folder| {
        entries(Path::new(folder)).into_iter().find(|path| file_name(path).is_some_and(names))
    })
}

/// Whether `folder`, or one of its folders, holds Vulkan's loader.
fn has_loader(folder: &Path, depth: usize) -> bool {
    entries(folder).into_iter().any(|path| {
        file_name(&path).is_some_and(|name| name.starts_with("libvulkan.so.1"))
            || (depth > 0 && path.is_dir() && has_loader(&path, depth - 1))
    })
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}
