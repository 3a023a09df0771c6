//! `cargo xtask bench`: the criterion benches.

use crate::command::Line;
use crate::usage::Usage;

pub(crate) const HELP: &str = "cargo xtask bench [NAME]

Runs the criterion benches of `benches/`; with NAME only those whose name contains it.
";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let line = Line::cargo("bench --package vitmae-benches");
    match arguments {
        [] => line.run(),
        [name] if !name.starts_with('-') => line.argument("--").argument(name).run(),
        _ => Err(Usage("one name at most\nhelp: see `cargo xtask bench --help`".to_owned()).into()),
    }
}
