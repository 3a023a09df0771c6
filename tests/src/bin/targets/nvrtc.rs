//! CUDA's own compilers over the CUDA sources: NVRTC to PTX, then `ptxas` for registers and spills. The work
//! is done by a script, because the compilers come as Python packages.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::paper::Compiled;
use crate::validate::path;

/// Compiles every CUDA source, prints registers, shared memory and spills, and returns what failed; a spill
/// is a failure.
pub(crate) fn check(
    python: &str,
    compiled: &[Compiled],
    out: &Path,
) -> anyhow::Result<Vec<String>> {
    let mut failures = Vec::new();
    for target in ["cuda-sm80", "cuda-sm90"] {
        let arch = target.trim_start_matches("cuda-");
        let mut command = Command::new(python);
        command.arg("tests/src/bin/targets/nvrtc.py").arg(arch.replace("sm", "sm_"));
        for kernel in compiled {
            // A kernel may use as many registers as its units leave it.
            if let (true, Ok(built)) = (kernel.target == target, &kernel.result) {
                let (path, shared) = (path(out, kernel), built.shared.unwrap_or(0));
                command.arg(format!("{}={}={shared}", path.display(), built.units));
            }
        }
        let output = command.output().with_context(|| format!("`{python}` does not start"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        print!("{text}");
        let lines = text.lines().filter_map(|line| line.strip_prefix("FAILED "));
        failures.extend(lines.map(|line| format!("{arch}: {line}")));
        if !output.status.success() && !text.contains("FAILED ") {
            bail!("nvrtc.py: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(failures)
}
