//! `cargo xtask bench`: the criterion benches, and the comparison with peers.

mod peers;

use crate::command::Line;
use crate::usage::Usage;

pub(crate) const HELP: &str = "cargo xtask bench [NAME]
cargo xtask bench peers [--pairs N] [--steps N] [--only TEXT] [--python PYTHON]

Runs the criterion benches of `benches/`; with NAME only those whose name contains it.

`peers` runs `vitmae bench` and each peer (transformers' ViTMAE in PyTorch, eager and compiled) in turn, so many pairs
(5), each the median of so many steps (3), and prints milliseconds an image and the ratios' median, smallest
and largest. PYTHON has the packages of benches/peer/requirements.txt; without it a virtual environment is
made in target/peers. --only keeps the rows whose name holds TEXT. Nothing else may run meanwhile.
";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let line = Line::cargo("bench --package vitmae-benches");
    match arguments {
        [peers, rest @ ..] if peers == "peers" => peers::run(rest),
        [] => line.run(),
        [name] if !name.starts_with('-') => line.argument("--").argument(name).run(),
        _ => Err(Usage("one name at most\nhelp: see `cargo xtask bench --help`".to_owned()).into()),
    }
}
