//! What can be checked of the sources without a driver: SPIR-V by `spirv-val`, WGSL by naga. The sources
//! are written down for whoever wants to read them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use naga::valid::{Capabilities, ValidationFlags};

use crate::paper::Compiled;
use crate::table::short;
use crate::target::Source;

/// The validators of this machine; naga is linked in.
pub(crate) struct Validator {
    pub(crate) has_spirv_val: bool,
}

impl Validator {
    pub(crate) fn find() -> Self {
        Self { has_spirv_val: Command::new("spirv-val").arg("--version").output().is_ok() }
    }

    /// Writes all sources of a target and turns what a validator refuses into an error of its kernel.
    pub(crate) fn check(
        &self,
        mut compiled: Vec<Compiled>,
        out: &Path,
    ) -> anyhow::Result<Vec<Compiled>> {
        for (number, kernel) in compiled.iter_mut().enumerate() {
            let Ok(built) = &kernel.result else { continue };
            let source = &built.source;
            kernel.number = number;
            let path = path(out, kernel);
            let written = match source {
                Source::Text(text) => write(&path, text.as_bytes()),
                Source::Words(words) => {
                    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                    write(&path, &bytes)
                }
            };
            written?;
            let valid = match source {
                Source::Words(_) if self.has_spirv_val => spirv(&path)?,
                Source::Text(text) if kernel.target.starts_with("wgsl") => wgsl(text),
                _ => Ok(()),
            };
            if let Err(error) = valid {
                kernel.result = Err(error);
            }
        }
        Ok(compiled)
    }
}

/// Where the source of a kernel is written.
pub(crate) fn path(out: &Path, kernel: &Compiled) -> PathBuf {
    let extension = match kernel.target.split('-').next() {
        Some("cuda") => "cu",
        Some("hip") => "hip",
        Some("spirv") => "spv",
        Some("wgsl") => "wgsl",
        _ => "metal",
    };
    let name = short(&kernel.kernel).replace("::", ".");
    out.join(kernel.target).join(format!("{name}.{}.{}.{extension}", kernel.dtype, kernel.number))
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
    let mut validator = naga::valid::Validator::new(ValidationFlags::all(), Capabilities::all());
    let valid = validator.validate(&module);
    valid.map(|_| ()).map_err(|error| format!("naga: {}", error.emit_to_string(text)))
}
