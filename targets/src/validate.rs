//! What can be checked of the sources without a driver: SPIR-V by `spirv-val`, WGSL by naga. The sources
//! are written down for whoever wants to read them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use naga::valid::{Capabilities, ValidationFlags, Validator};

use crate::paper::Compiled;
use crate::table::short;
use crate::target::Source;

/// Turns what a validator refuses into an error of its kernel; returns why `spirv-val` was left out, if it
/// was.
pub(crate) fn check(compiled: &mut [Compiled], out: &Path) -> anyhow::Result<Option<String>> {
    let mut skipped = None;
    let has_validator = Command::new("spirv-val").arg("--version").output().is_ok();
    if !has_validator {
        skipped = Some("it is not installed (Debian: spirv-tools)".to_owned());
    }
    for (number, kernel) in compiled.iter_mut().enumerate() {
        let Ok(built) = &kernel.result else { continue };
        let source = &built.source;
        let path = path(out, kernel, number);
        let written = match source {
            Source::Text(text) => write(&path, text.as_bytes()),
            Source::Words(words) => {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                write(&path, &bytes)
            }
        };
        written?;
        let valid = match source {
            Source::Words(_) if has_validator => spirv(&path)?,
            Source::Text(text) if kernel.target.starts_with("wgsl") => wgsl(text),
            _ => Ok(()),
        };
        if let Err(error) = valid {
            kernel.result = Err(error);
        }
    }
    Ok(skipped)
}

/// Where the source of a kernel is written.
pub(crate) fn path(out: &Path, kernel: &Compiled, number: usize) -> PathBuf {
    let extension = match kernel.target.split('-').next() {
        Some("cuda") => "cu",
        Some("hip") => "hip",
        Some("spirv") => "spv",
        Some("wgsl") => "wgsl",
        _ => "metal",
    };
    let name = short(&kernel.kernel).replace("::", ".");
    out.join(kernel.target).join(format!("{name}.{}.{number}.{extension}", kernel.dtype))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    std::fs::write(path, bytes).with_context(|| path.display().to_string())
}

fn spirv(path: &Path) -> anyhow::Result<Result<(), String>> {
    let mut command = Command::new("spirv-val");
    let output = command.args(["--target-env", "vulkan1.3"]).arg(path).output()?;
    let shown = || format!("spirv-val: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(if output.status.success() { Ok(()) } else { Err(shown()) })
}

fn wgsl(text: &str) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(text)
        .map_err(|error| format!("naga: {}", error.emit_to_string(text)))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let valid = validator.validate(&module);
    valid.map(|_| ()).map_err(|error| format!("naga: {}", error.emit_to_string(text)))
}
