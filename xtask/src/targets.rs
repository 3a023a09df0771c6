//! `cargo xtask targets`: the GPU kernels, compiled for every GPU API without the hardware.

use std::path::Path;

use crate::command::Line;
use crate::usage::Usage;

pub(crate) const HELP: &str = "cargo xtask targets [--nvrtc PYTHON] [--only CALL]

Calls every operation of vitmae-kernels on devices that exist on paper and compiles what they would launch:
CUDA C++, HIP C++, Metal, SPIR-V and WGSL, with and without plane operations and matrix units. Prints a
table of kernel, type and target with the bytes of source; a refusal, or a kernel that no call launches,
fails. SPIR-V goes through spirv-val where it is installed, WGSL through naga. The sources stay in
target/targets.

  --nvrtc PYTHON  CUDA goes through NVRTC and ptxas for sm_80 and sm_90, and a spilled register fails.
                  PYTHON has the packages nvidia-cuda-nvrtc, nvidia-cuda-runtime, nvidia-cuda-cccl and
                  nvidia-cuda-nvcc.
  --only CALL     one operation, such as gemm
";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    line(arguments)?.run()
}

fn line(arguments: &[String]) -> anyhow::Result<Line> {
    // The compiler walks deeper than the stack that a thread gets by default.
    let mut line =
        Line::cargo("run --quiet --release --package vitmae-tests --features gpu --bin targets --")
            .environment("RUST_MIN_STACK", "16777216");
    let (mut python, mut only, mut rest) = (None, None, arguments.iter());
    while let Some(argument) = rest.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), rest.next().cloned()),
        };
        let value = value.ok_or_else(|| Usage(format!("`{name}` needs a value")));
        match name {
            "--nvrtc" => python = Some(program(&value?)?),
            "--only" => only = Some(value?),
            _ => return Err(Usage(format!("`{name}` is unknown\n\n{HELP}")).into()),
        }
    }
    for (name, value) in [("--nvrtc", python), ("--only", only)] {
        if let Some(value) = value {
            line = line.argument(name).argument(value);
        }
    }
    Ok(line)
}

/// A path to a program was given from here, and it runs in the root; a bare name is looked up as ever.
fn program(name: &str) -> anyhow::Result<String> {
    let path = Path::new(name);
    let bare = path.components().count() == 1;
    Ok(if bare { name.to_owned() } else { std::path::absolute(path)?.display().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        line(&words).map_or_else(|error| error.to_string(), |line| line.shown())
    }

    #[test]
    fn arguments_are_passed_on_in_one_order() {
        assert!(shown(&[]).ends_with("--bin targets --"));
        let both = shown(&["--only=gemm", "--nvrtc", "python3"]);
        assert!(both.ends_with("-- --nvrtc python3 --only gemm"), "{both}");
        let here = std::path::absolute("venv/bin/python").unwrap().display().to_string();
        assert!(shown(&["--nvrtc", "venv/bin/python"]).ends_with(&format!("--nvrtc {here}")));
    }

    #[test]
    fn unknown_arguments_and_missing_values_are_named() {
        assert!(shown(&["--nvcc", "x"]).starts_with("`--nvcc` is unknown"));
        assert_eq!(shown(&["--nvrtc"]), "`--nvrtc` needs a value");
    }
}
