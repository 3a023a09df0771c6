//! `cargo xtask ci`: exactly what CI runs.

use crate::command::Line;
use crate::usage::no_arguments;

pub(crate) const HELP: &str = "cargo xtask ci

Runs `.ci/run`, the script that CI runs: it prints the machine and calls `cargo xtask test`.
";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    no_arguments("ci", arguments)?;
    Line::new("bash", ".ci/run").run()
}
