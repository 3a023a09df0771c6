//! Compiles every GPU kernel for every GPU API, without the hardware: `cargo xtask targets`.
//!
//! Each operation is called on devices that exist on paper only, one for each API and kind of hardware. A
//! launch there hands its kernel to the compiler of that API instead of a GPU, so that what is compiled is
//! what the launcher would run on such a device. Then SPIR-V goes through `spirv-val`, WGSL through naga
//! and, if asked, CUDA through NVRTC and `ptxas`. The sources of `vitmae-kernels` say which kernels there
//! are; one that no call reaches is an error.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

mod calls;
mod coverage;
mod nvrtc;
mod paper;
mod table;
mod target;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, anyhow, bail};

use paper::Compiled;
use target::Target;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (python, only) = match arguments[..] {
        [] => (None, None),
        ["--nvrtc", python] => (Some(python), None),
        ["--only", only] => (None, Some(only)),
        ["--nvrtc", python, "--only", only] => (Some(python), Some(only)),
        _ => bail!("usage: targets [--nvrtc PYTHON] [--only CALL]"),
    };

    let out = PathBuf::from("target/targets");
    let mut failures = Vec::new();
    let mut compiled: Vec<Compiled> = Vec::new();
    let validator = validate::Validator::find();
    // Each target compiles on a thread of its own.
    let results: Vec<_> = thread::scope(|scope| {
        let (validator, out) = (&validator, &out);
        let compile =
            |target| scope.spawn(move || validator.check(calls::compile(target, only), out));
        let running = Target::all().map(compile);
        running.map(|thread| thread.join()).into_iter().collect()
    });
    for result in results {
        let result = result.map_err(|panic| anyhow!(paper::message(panic.as_ref())))?;
        compiled.extend(result.context("validation")?);
    }
    table::print(&compiled);
    for kernel in &compiled {
        if let Err(error) = &kernel.result {
            let Compiled { kernel, call, dtype, target, .. } = kernel;
            failures.push(format!("{kernel} ({call}, {dtype}) for {target}: {error}"));
        }
    }
    if only.is_none() {
        failures.extend(coverage::missing(&compiled)?);
    }
    if !validator.has_spirv_val {
        println!("SKIPPED spirv-val: it is not installed (Debian: spirv-tools)");
    }
    if let Some(python) = python {
        failures.extend(nvrtc::check(python, &compiled, &out)?);
    }
    for failure in &failures {
        println!("FAILED {failure}");
    }
    println!("{} sources, {} failures", compiled.len(), failures.len());
    if !failures.is_empty() {
        bail!("{} failures", failures.len());
    }
    Ok(())
}
