//! `cargo xtask test`: everything a change must pass.

mod count;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::command::Line;
use crate::usage::no_arguments;
use crate::{fixtures, lavapipe, open_mpi, parity, targets, tidy};
use count::Count;

pub(crate) const HELP: &str = "cargo xtask test

Runs, in this order: cargo fmt --check, tidy, fixtures --check, clippy without warnings, every test
in release, hub, onnx, parquet, several processes over Open MPI, the documentation without warnings, parity, clippy with every GPU backend,
the GPU kernels on Mesa's software Vulkan, targets, parity there. It installs Open MPI and Mesa on Debian and Ubuntu as root.
Stops at the first that fails and names the command to run it again. The last line is `N passed, M failed`: tests as cargo counts them and parity's
cases; a test that printed a line beginning with SKIPPED is not among the passed.
";

/// A step: its name, the command that runs it alone, and what it counts.
struct Step {
    name: &'static str,
    again: String,
    run: Box<dyn FnOnce() -> anyhow::Result<Count>>,
}

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    no_arguments("test", arguments)?;
    let start = Instant::now();
    let mut total = Count::default();
    for step in steps()? {
        let (name, again) = (step.name, step.again);
        println!("== {name}: {again}");
        let (begin, result) = (Instant::now(), (step.run)());
        let count = result.as_ref().copied().unwrap_or_else(|error| {
            error.downcast_ref::<Failed>().map_or(Count::default(), |failed| failed.0)
        });
        total = total + count;
        if let Err(error) = result {
            println!("== {name}: FAILED after {:.1} s", begin.elapsed().as_secs_f64());
            if count.total() > 0 {
                println!("{} passed, {} failed", total.passed, total.failed);
            }
            bail!("step `{name}`: {error:#}\nhelp: run it again with `{again}`");
        }
        println!("== {name}: ok, {:.1} s", begin.elapsed().as_secs_f64());
    }
    println!("== all steps: ok, {:.1} s", start.elapsed().as_secs_f64());
    println!("{} skipped, {} ignored", total.skipped, total.ignored);
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(())
}

/// The steps in order: what is quick and often red comes first.
fn steps() -> anyhow::Result<Vec<Step>> {
    let tests = Line::cargo("test --workspace --release --no-fail-fast")
        .environment("VITMAE_HOSTILE_SECONDS", "20");
    let documentation = Line::cargo("doc --workspace --no-deps --release")
        .environment("RUSTDOCFLAGS", "-D warnings");
    let clippy = Line::cargo("clippy --workspace --all-targets --release -- -D warnings");
    let hub = Line::cargo("test --release --package vitmae-weights --features hub --test hub");
    let onnx = Line::cargo("test --release --package vitmae-onnx --features check");
    let gpu = Line::cargo("test --release --package vitmae-tests --features gpu --test gpu");
    let mpi =
        Line::cargo("test --release --package vitmae-cli --features mpi --test command mpi::");
    let parquet = Line::cargo(
        "test --release --package vitmae-trainer --features parquet --test runs sets::",
    );
    let mpi_clippy = Line::cargo(
        "clippy --package vitmae-trainer --package vitmae-cli --all-targets --release \
         --features vitmae-cli/mpi,vitmae-cli/parquet -- -D warnings",
    );
    // Every backend; CubeCL's build scripts then want no LLVM, which checking does not need.
    let gpu_clippy = Line::cargo(
        "clippy --package vitmae-tests --package vitmae-benches --package vitmae-cli --all-targets \
         --release --features vitmae-tests/gpu,vitmae-benches/wgpu,vitmae-cli/wgpu,vitmae-cli/vulkan,\
         vitmae-cli/metal,vitmae-cli/cuda,vitmae-cli/hip,vitmae-cli/hub -- -D warnings",
    )
    .environment("DOCS_RS", "1");
    Ok(vec![
        uncounted("format", Line::cargo("fmt --all -- --check")),
        Step {
            name: "tidy",
            again: "cargo xtask tidy".to_owned(),
            run: in_process(tidy::run, &[]),
        },
        Step {
            name: "fixtures",
            again: "cargo xtask fixtures --check".to_owned(),
            run: in_process(fixtures::run, &["--check"]),
        },
        uncounted("clippy", clippy),
        // `--show-output` is what brings SKIPPED lines here.
        counted("tests", tests.shown(), tests.argument("--").argument("--show-output")),
        counted("hub", hub.shown(), hub.argument("--").argument("--show-output")),
        counted("onnx", onnx.shown(), onnx.argument("--").argument("--show-output")),
        counted("parquet", parquet.shown(), parquet.argument("--").argument("--show-output")),
        Step {
            name: "mpi",
            again: mpi.shown(),
            run: Box::new(move || mpi_tests(&mpi_clippy, mpi)),
        },
        uncounted("documentation", documentation),
        counted("parity", "cargo xtask parity".to_owned(), parity::line(&[])?),
        uncounted("gpu clippy", gpu_clippy),
        Step { name: "gpu", again: gpu.shown(), run: Box::new(move || gpu_tests(gpu)) },
        Step {
            name: "targets",
            again: "cargo xtask targets".to_owned(),
            run: in_process(targets::run, &[]),
        },
        counted(
            "gpu parity",
            "cargo xtask parity --device lavapipe".to_owned(),
            parity::line(&["--device".to_owned(), "lavapipe".to_owned()])?,
        ),
    ])
}

/// Trainings by several processes, over an Open MPI that is installed if it is missing.
fn mpi_tests(clippy: &Line, line: Line) -> anyhow::Result<Count> {
    open_mpi::ensure()?;
    clippy.run()?;
    run_and_count(&line.argument("--").argument("--show-output"))
}

/// Every kernel, and the model, on a software Vulkan that is installed if it is missing.
fn gpu_tests(line: Line) -> anyhow::Result<Count> {
    lavapipe::ensure()?;
    run_and_count(&lavapipe::environment(line)?.argument("--").argument("--show-output"))
}

fn uncounted(name: &'static str, line: Line) -> Step {
    let again = line.shown();
    Step { name, again, run: Box::new(move || line.run().map(|()| Count::default())) }
}

fn in_process(
    verb: fn(&[String]) -> anyhow::Result<()>,
    arguments: &[&str],
) -> Box<dyn FnOnce() -> anyhow::Result<Count>> {
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    Box::new(move || verb(&arguments).map(|()| Count::default()))
}

/// A step whose output says how many passed and failed; silence about that is a failure.
fn counted(name: &'static str, again: String, line: Line) -> Step {
    Step { name, again, run: Box::new(move || run_and_count(&line)) }
}

fn run_and_count(line: &Line) -> anyhow::Result<Count> {
    let child = line.command().stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("`{}` does not start", line.shown()))?;
    let mut counter = count::Counter::default();
    for text in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let text = text?;
        if counter.read(&text) {
            println!("{text}");
        }
    }
    let status = child.wait()?;
    let count = counter.count();
    if !status.success() || count.failed > 0 {
        return Err(anyhow::Error::new(Failed(count)).context(format!("it ended with {status}")));
    }
    if count.passed == 0 {
        bail!("no test ran");
    }
    Ok(count)
}

/// A step that failed after it had counted.
#[derive(Debug)]
struct Failed(Count);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.0.passed, self.0.failed)
    }
}

impl std::error::Error for Failed {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cargo line that prints `text` and exits with `code`, through the shell.
    fn printing(text: &str, code: u8) -> Line {
        Line::new("sh", "-c").argument(format!("printf '{text}'; exit {code}"))
    }

    const GOOD: &str =
        "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\\n";
    const BAD: &str =
        "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\\n";

    #[test]
    fn a_green_run_is_counted() {
        let count = run_and_count(&printing(GOOD, 0)).unwrap();
        assert_eq!((count.passed, count.failed, count.ignored), (3, 0, 1));
    }

    #[test]
    fn red_results_bad_exits_and_silence_fail() {
        let failed = run_and_count(&printing(BAD, 101)).unwrap_err();
        assert_eq!(failed.downcast_ref::<Failed>().unwrap().0.failed, 2);
        assert!(run_and_count(&printing(BAD, 0)).is_err(), "a count of failures is a failure");
        assert!(run_and_count(&printing(GOOD, 101)).is_err(), "so is an exit code");
        assert!(run_and_count(&printing("nothing\\n", 0)).is_err(), "and so is no test at all");
    }

    #[test]
    fn the_steps_are_those_of_the_help() {
        let names: Vec<_> = steps().unwrap().iter().map(|step| step.name).collect();
        let expected = [
            "format",
            "tidy",
            "fixtures",
            "clippy",
            "tests",
            "hub",
            "onnx",
            "parquet",
            "mpi",
            "documentation",
            "parity",
            "gpu clippy",
            "gpu",
            "targets",
            "gpu parity",
        ];
        assert_eq!(names, expected);
    }
}
