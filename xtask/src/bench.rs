//! `cargo xtask bench`: the criterion benches, and the comparison with peers.

mod instructions;
pub(crate) mod peers;

use crate::command::Line;
use crate::usage::Usage;

pub(crate) const HELP: &str = "cargo xtask bench [NAME]
cargo xtask bench peers [--pairs N] [--steps N] [--only TEXT] [--images DIR] [--python PYTHON]
cargo xtask bench instructions [--update]

Runs the criterion benches of `benches/`; with NAME only those whose name contains it.

`peers` runs `vitmae bench` and each peer (transformers' ViTMAE in PyTorch, eager and compiled; ONNX Runtime and OpenVINO for features) in turn, so many pairs
(5), each the median of so many steps (3), and prints milliseconds an image and the ratios' median, smallest
and largest; then `vitmae data bench` and torchvision's pipeline on the images of DIR (the demo's photographs). PYTHON has the packages of benches/peer/requirements.txt; without it a virtual environment is
made in target/peers. --only keeps the rows whose name holds TEXT. Nothing else may run meanwhile.

`instructions` counts the instructions of some kernels by Callgrind, which others on the machine do not disturb, and fails
where one takes over 2 % more than benches/instructions.json says; --update writes that file. It needs Valgrind and
gungraun-runner of the version in Cargo.toml.
";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let line = Line::cargo("bench --package vitmae-benches");
    match arguments {
        [peers, rest @ ..] if peers == "peers" => peers::run(rest),
        [counts, rest @ ..] if counts == "instructions" => instructions::run(rest),
        [] => line.run(),
        [name] if !name.starts_with('-') => line.argument("--").argument(name).run(),
        _ => Err(Usage("one name at most\nhelp: see `cargo xtask bench --help`".to_owned()).into()),
    }
}
