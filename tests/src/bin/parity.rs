//! Runs parity cases and prints the table of `cargo xtask parity`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use vitmae_tensor::Device;
use vitmae_testing::cases::{Case, case_folders};
use vitmae_testing::close::Report;
use vitmae_tests::parity;

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs every case on every device; returns the number of failures.
fn run() -> Result<usize> {
    let (cases, devices) = arguments()?;
    let folders = case_folders(&cases)?;
    println!(
        "{:<40} {:<28} {:>10} {:>10}  {:<20} device",
        "case", "tensor", "max abs", "max rel", "tolerance"
    );
    let (mut passed, mut failed) = (0, 0);
    for name in &devices {
        let device = Device::open(name)?;
        for folder in &folders {
            let case_name = folder.file_name().unwrap_or_default().to_string_lossy();
            let case = Case::read(folder).map_err(anyhow::Error::from);
            let ok = match case.and_then(|case| parity::run(&case, &device)) {
                Ok(reports) => print_rows(&case_name, &reports, name),
                Err(error) => {
                    println!("{case_name:<40} FAILED: {error:#}");
                    false
                }
            };
            *if ok { &mut passed } else { &mut failed } += 1;
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed)
}

/// One row a tensor; true if all passed.
fn print_rows(case: &str, reports: &[Report], device: &str) -> bool {
    for report in reports {
        let tolerance = format!("{:e} + {:e}·|e|", report.tolerance.abs, report.tolerance.rel);
        let (abs, rel) = (report.max_abs, report.max_rel);
        let name = &report.name;
        println!("{case:<40} {name:<28} {abs:>10.2e} {rel:>10.2e}  {tolerance:<20} {device}");
        if !report.passed() {
            println!("{case:<40} FAILED: {report}");
        }
    }
    reports.iter().all(Report::passed)
}

/// `--cases DIR` and any number of `--device NAME`.
fn arguments() -> Result<(PathBuf, Vec<String>)> {
    let (mut cases, mut devices) = (None, Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("`{word}` needs a value"))?;
        match word.as_str() {
            "--cases" => cases = Some(PathBuf::from(value)),
            "--device" => devices.push(value),
            _ => bail!("`{word}` is unknown, expected --cases or --device"),
        }
    }
    if devices.is_empty() {
        devices.push("cpu".to_owned());
    }
    Ok((cases.context("`--cases` is missing")?, devices))
}
