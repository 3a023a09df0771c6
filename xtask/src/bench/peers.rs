//! `cargo xtask bench peers`: `vitmae bench` and PyTorch, ONNX Runtime or OpenVINO in turn, on the same task.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::command::Line;
use crate::usage::Usage;
use crate::workspace;

/// A task, its numerics and batch.
struct Row {
    task: &'static str,
    precision: &'static str,
    batch: usize,
    peers: &'static [Peer],
}

/// Who runs it too, and how.
struct Peer {
    program: Program,
    precision: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    PyTorch,
    /// `torch.compile`.
    Compiled,
    OnnxRuntime,
    OpenVino,
}

const F32: Peer = Peer { program: Program::PyTorch, precision: "f32" };
const F32_COMPILED: Peer = Peer { program: Program::Compiled, precision: "f32" };
const BF16: Peer = Peer { program: Program::PyTorch, precision: "bf16" };
const BF16_COMPILED: Peer = Peer { program: Program::Compiled, precision: "bf16" };
const F32_ONNX: Peer = Peer { program: Program::OnnxRuntime, precision: "f32" };
const F32_OPENVINO: Peer = Peer { program: Program::OpenVino, precision: "f32" };
const BF16_OPENVINO: Peer = Peer { program: Program::OpenVino, precision: "bf16" };

const ROWS: [Row; 9] = [
    Row { task: "pretrain", precision: "f32", batch: 32, peers: &[F32, F32_COMPILED] },
    Row { task: "pretrain", precision: "f32", batch: 1, peers: &[F32] },
    Row { task: "pretrain", precision: "bf16", batch: 32, peers: &[BF16, BF16_COMPILED, F32] },
    Row { task: "pretrain", precision: "bf16", batch: 1, peers: &[BF16] },
    Row { task: "forward", precision: "f32", batch: 8, peers: &[F32, F32_COMPILED] },
    Row { task: "forward", precision: "bf16", batch: 8, peers: &[BF16, BF16_COMPILED] },
    Row { task: "features", precision: "f32", batch: 8, peers: &[F32, F32_ONNX, F32_OPENVINO] },
    Row { task: "features", precision: "bf16", batch: 8, peers: &[BF16, BF16_OPENVINO] },
    Row { task: "features", precision: "int8", batch: 8, peers: &[F32, BF16] },
];

/// What the command line asks for.
struct Options {
    pairs: usize,
    steps: usize,
    only: String,
    /// For the loaders.
    images: String,
    python: Option<PathBuf>,
}

/// One run of one side.
struct Run {
    ms: f64,
    bytes: f64,
    share: Option<f64>,
}

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let options = options(arguments)?;
    let python = match &options.python {
        Some(python) => python.clone(),
        None => environment()?,
    };
    Line::cargo("build --release --package vitmae-cli").run()?;
    for row in ROWS.iter().filter(|row| row.name().contains(&options.only)) {
        row.compare(&options, &python)?;
    }
    if "loader".contains(&options.only) {
        compare_loaders(&options, &python)?;
    }
    Ok(())
}

/// Images a second of one thread, here and in torchvision.
fn compare_loaders(options: &Options, python: &Path) -> anyhow::Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let python = python.display().to_string();
    for _ in 0..options.pairs {
        let line = Line::new("target/release/vitmae", "data bench --workers 1 --json");
        ours.push(number(&line.argument(options.images.clone()), "images_per_second")?);
        let line = Line::new(&python, "benches/peer/loader.py").argument(options.images.clone());
        theirs.push(number(&line, "images_per_second")?);
    }
    let ratio = spread(ours.iter().zip(&theirs).map(|(our, their)| our / their));
    println!("loader: {} images a second of one thread", shown(spread(ours.into_iter())));
    println!("  torchvision: {}, ratio {}", shown(spread(theirs.into_iter())), shown(ratio));
    Ok(())
}

impl Row {
    fn name(&self) -> String {
        format!("{} {} batch {}", self.task, self.precision, self.batch)
    }

    /// Runs all pairs and prints a line for each peer.
    fn compare(&self, options: &Options, python: &Path) -> anyhow::Result<()> {
        let mut ours = Vec::new();
        let mut theirs: Vec<Vec<Run>> = self.peers.iter().map(|_| Vec::new()).collect();
        for _ in 0..options.pairs {
            ours.push(self.product(options)?);
            for (peer, runs) in self.peers.iter().zip(&mut theirs) {
                runs.push(self.peer(peer, options, python)?);
            }
        }
        let ms = |runs: &[Run]| spread(runs.iter().map(|run| run.ms));
        let share = ours.iter().filter_map(|run| run.share);
        let share = if share.clone().count() > 0 { spread(share)[0] } else { f64::NAN };
        println!(
            "{}: {} ms an image, {:.0} % of peak",
            self.name(),
            shown(ms(&ours)),
            100.0 * share
        );
        for (peer, runs) in self.peers.iter().zip(&theirs) {
            let pairs = || ours.iter().zip(runs);
            let ratio = spread(pairs().map(|(our, their)| their.ms / our.ms));
            let memory = spread(pairs().map(|(our, their)| our.bytes / their.bytes))[0];
            println!(
                "  {} {}: {} ms, ratio {}, memory {memory:.2}",
                peer.program.name(),
                peer.precision,
                shown(ms(runs)),
                shown(ratio)
            );
        }
        Ok(())
    }

    fn product(&self, options: &Options) -> anyhow::Result<Run> {
        let steps = if self.batch == 1 { 4 * options.steps } else { options.steps };
        let line = Line::new("target/release/vitmae", "bench --json --device cpu --task")
            .argument(self.task)
            .argument(format!("--precision={}", self.precision))
            .argument(format!("--batch-size={}", self.batch))
            .argument(format!("--steps={steps}"));
        result(&line)
    }

    fn peer(&self, peer: &Peer, options: &Options, python: &Path) -> anyhow::Result<Run> {
        let steps = if self.batch == 1 { 4 * options.steps } else { options.steps };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let python = python.display().to_string();
        let pytorch = || {
            let line = Line::new(&python, "benches/peer/pytorch.py --optimizer=fused --task");
            line.argument(self.task)
        };
        let line = match peer.program {
            Program::PyTorch => pytorch(),
            Program::Compiled => pytorch().argument("--compile").argument("--attention=sdpa"),
            Program::OnnxRuntime => Line::new(&python, "benches/peer/onnx.py"),
            Program::OpenVino => Line::new(&python, "benches/peer/onnx.py --runtime=openvino"),
        };
        let line = line
            .argument(format!("--precision={}", peer.precision))
            .argument(format!("--batch-size={}", self.batch))
            .argument(format!("--steps={steps}"))
            .argument(format!("--threads={threads}"));
        result(&line)
    }
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::PyTorch => "PyTorch",
            Self::Compiled => "PyTorch compiled",
            Self::OnnxRuntime => "ONNX Runtime",
            Self::OpenVino => "OpenVINO",
        }
    }
}

/// Runs a side and reads one number of what it prints.
fn number(line: &Line, key: &str) -> anyhow::Result<f64> {
    let value = printed(line)?;
    value[key].as_f64().with_context(|| format!("`{}` printed no `{key}`", line.shown()))
}

/// Runs a side and reads what it measured.
fn result(line: &Line) -> anyhow::Result<Run> {
    let value = printed(line)?;
    let number = |key: &str| value[key].as_f64();
    let share = number("gflops").zip(number("peak_gflops")).map(|(rate, peak)| rate / peak);
    match number("ms_per_image").zip(number("peak_memory_bytes")) {
        Some((ms, bytes)) => Ok(Run { ms, bytes, share }),
        None => bail!("`{}` printed no `ms_per_image`", line.shown()),
    }
}

/// Runs a side; the JSON object that it prints last.
fn printed(line: &Line) -> anyhow::Result<Value> {
    let failed = || format!("`{}` failed", line.shown());
    let output = line.command().output().with_context(failed)?;
    if !output.status.success() {
        bail!("{}\n{}", failed(), String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default())
        .with_context(|| format!("`{}` printed no JSON object", line.shown()))
}

/// Median, smallest and largest.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    [at(values.len() / 2), at(0), at(values.len().saturating_sub(1))]
}

fn shown([median, least, most]: [f64; 3]) -> String {
    format!("{median:.2} ({least:.2} to {most:.2})")
}

/// The Python of a virtual environment with the packages, made if there is none.
pub(crate) fn environment() -> anyhow::Result<PathBuf> {
    let folder = workspace::root().join("target/peers");
    let python = folder.join("bin/python");
    if !python.exists() {
        Line::new("python3", "-m venv").argument(folder.display().to_string()).run()?;
    }
    Line::new(
        python.display().to_string(),
        "-m pip install --quiet -r benches/peer/requirements.txt",
    )
    .run()?;
    Ok(python)
}

fn options(arguments: &[String]) -> anyhow::Result<Options> {
    let mut options = Options {
        pairs: 5,
        steps: 3,
        only: String::new(),
        images: "crates/vitmae-cli/assets/train".to_owned(),
        python: None,
    };
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().ok_or_else(|| Usage(format!("`{name}` needs a value")))?;
        let number = || {
            let number = value.parse::<usize>().ok().filter(|&number| number > 0);
            number
                .ok_or_else(|| Usage(format!("`{name}` is `{value}`, expected a number from 1 up")))
        };
        match name.as_str() {
            "--pairs" => options.pairs = number()?,
            "--steps" => options.steps = number()?,
            "--only" => options.only = value.clone(),
            "--images" => options.images = value.clone(),
            "--python" => options.python = Some(std::path::absolute(value)?),
            _ => return Err(Usage(format!("`{name}` is unknown\n\n{}", super::HELP)).into()),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_median_least_and_most() {
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter()), [2.0, 1.0, 3.0]);
        assert!(spread(std::iter::empty())[0].is_nan());
    }

    #[test]
    fn a_result_is_the_last_line() {
        let print = |text: &str| result(&Line::new("printf", "%s").argument(text));
        let run = print("note\n{\"ms_per_image\": 2.5, \"peak_memory_bytes\": 8}").unwrap();
        assert_eq!((run.ms, run.bytes, run.share), (2.5, 8.0, None));
        assert!(print("{}").is_err() && print("note").is_err());
        assert!(result(&Line::new("false", "")).is_err());
    }

    #[test]
    fn options_are_checked() {
        let parse = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            options(&words).map(|options| (options.pairs, options.steps, options.only))
        };
        assert_eq!(parse("--pairs 7 --only bf16").unwrap(), (7, 3, "bf16".to_owned()));
        assert!(
            parse("--pairs 0").is_err() && parse("--pairs").is_err() && parse("--x 1").is_err()
        );
    }
}
