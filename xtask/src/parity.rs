//! `cargo xtask parity`: the models against the reference's outputs.

use std::path::Path;

use crate::command::Line;
use crate::lavapipe;
use crate::usage::Usage;

pub(crate) const HELP: &str = "cargo xtask parity [--cases DIR] [--device DEVICE]...

Runs every case of DIR (tests/fixtures/parity) on every device (cpu) and prints a table: case, tensor,
largest absolute and relative difference, tolerance, device. The last line is `N passed, M failed`.
Exits with 1 if any failed. A device other than cpu builds the GPU kernels; lavapipe is Mesa's software
Vulkan.
";

/// The cases that belong to the repository.
const CASES: &str = "tests/fixtures/parity";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    if arguments.iter().any(|argument| argument.ends_with("lavapipe")) {
        lavapipe::ensure()?;
    }
    line(arguments)?.run()
}

/// The command that runs the cases.
pub(crate) fn line(arguments: &[String]) -> anyhow::Result<Line> {
    let (mut cases, mut devices) = (None, Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), rest.next().cloned()),
        };
        let value = value.ok_or_else(|| Usage(format!("`{name}` needs a value")));
        match name {
            "--device" => devices.push(value?),
            // The cases run from the root, the path was given from here.
            "--cases" => cases = Some(std::path::absolute(Path::new(&value?))?),
            _ => return Err(Usage(format!("`{name}` is unknown\n\n{HELP}")).into()),
        }
    }
    let cases = cases.map_or(CASES.to_owned(), |path| path.display().to_string());
    let is_cpu = devices.iter().all(|device| device == "cpu");
    let features = if is_cpu { "" } else { "--features gpu " };
    let run = format!("run --quiet --release --package vitmae-tests {features}--bin parity --");
    let mut line = Line::cargo(&run);
    if devices.iter().any(|device| device == "lavapipe") {
        line = lavapipe::environment(line)?;
    }
    for device in devices {
        line = line.argument("--device").argument(device);
    }
    Ok(line.argument("--cases").argument(cases))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        line(&words).map_or_else(|error| error.to_string(), |line| line.shown())
    }

    #[test]
    fn arguments_are_passed_on_and_the_path_is_made_absolute() {
        assert!(shown(&[]).ends_with("--bin parity -- --cases tests/fixtures/parity"));
        let here = std::path::absolute("mine").unwrap().display().to_string();
        let both = shown(&["--cases", "mine", "--device", "cpu", "--device=gpu"]);
        assert!(both.ends_with(&format!("-- --device cpu --device gpu --cases {here}")), "{both}");
    }

    #[test]
    fn unknown_arguments_and_missing_values_are_named() {
        assert!(shown(&["--case", "x"]).starts_with("`--case` is unknown"));
        assert_eq!(shown(&["--cases"]), "`--cases` needs a value");
    }
}
