//! The chores of the `vitmae` workspace: `cargo xtask VERB`.
//!
//! One file a verb. Only the standard library, `anyhow` and a hash, so that it builds in seconds.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command prints")]

mod bench;
mod ci;
mod command;
mod debian;
mod fixtures;
mod lavapipe;
mod open_mpi;
mod parity;
mod results;
mod targets;
mod test;
mod tidy;
mod usage;
mod workspace;

use std::process::ExitCode;

use usage::Usage;

/// A verb: its name, what it does in one line, its help, and what runs.
struct Verb {
    name: &'static str,
    about: &'static str,
    help: &'static str,
    run: fn(&[String]) -> anyhow::Result<()>,
}

const VERBS: [Verb; 8] = [
    Verb { name: "test", about: "everything a change must pass", help: test::HELP, run: test::run },
    Verb {
        name: "parity",
        about: "compares the models with the reference's outputs",
        help: parity::HELP,
        run: parity::run,
    },
    Verb {
        name: "fixtures",
        about: "regenerates the reference's outputs, or checks their hashes",
        help: fixtures::HELP,
        run: fixtures::run,
    },
    Verb {
        name: "targets",
        about: "compiles the GPU kernels for every GPU API, without the hardware",
        help: targets::HELP,
        run: targets::run,
    },
    Verb { name: "bench", about: "criterion benches", help: bench::HELP, run: bench::run },
    Verb {
        name: "results",
        about: "pre-trains and fine-tunes on real images, and writes docs/results.md",
        help: results::HELP,
        run: results::run,
    },
    Verb {
        name: "tidy",
        about: "what a search of the tree can decide",
        help: tidy::HELP,
        run: tidy::run,
    },
    Verb { name: "ci", about: "exactly what CI runs", help: ci::HELP, run: ci::run },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// Finds the verb and runs it with the rest of the arguments.
fn dispatch(arguments: &[String]) -> anyhow::Result<()> {
    let Some((name, rest)) = arguments.split_first() else {
        return Err(Usage(format!("no verb given\n\n{}", overview())).into());
    };
    if matches!(name.as_str(), "--help" | "-h" | "help") {
        print!("{}", overview());
        return Ok(());
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        return Err(Usage(format!("`{name}` is no verb\n\n{}", overview())).into());
    };
    if rest.iter().any(|argument| argument == "--help" || argument == "-h") {
        print!("{}", verb.help);
        return Ok(());
    }
    (verb.run)(rest)
}

/// The table of verbs.
fn overview() -> String {
    let rows = VERBS.iter().map(|verb| format!("  {:<10}{}\n", verb.name, verb.about));
    let rows: String = rows.collect();
    format!("cargo xtask VERB\n\n{rows}\n`cargo xtask VERB --help` says more.\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn unknown_verbs_and_arguments_are_usage_errors() {
        for line in [
            "",
            "nonsense",
            "tidy extra",
            "ci extra",
            "test --fast",
            "fixtures --chek",
            "targets --nvrct",
        ] {
            let error = dispatch(&words(line)).expect_err(line);
            assert!(error.is::<Usage>(), "{line}: {error:#}");
        }
    }

    #[test]
    fn every_verb_is_in_the_overview_and_has_help() {
        let overview = overview();
        for verb in VERBS {
            assert!(overview.contains(verb.name));
            assert!(verb.help.starts_with(&format!("cargo xtask {}", verb.name)), "{}", verb.name);
            dispatch(&words(&format!("{} --help", verb.name))).unwrap();
        }
    }
}
