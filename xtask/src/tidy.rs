//! `cargo xtask tidy`: what a search of the tree can decide of the invariants in docs/architecture.md.
//!
//! One file a check. A check is a function of the files that returns findings; each has a test that shows
//! it failing.

mod boundaries;
mod layers;
mod length;
mod machine;
mod names;
mod paths;
mod printing;
mod twins;
mod unsafe_code;

use anyhow::bail;

use crate::usage::no_arguments;
use crate::workspace::{self, File};

pub(crate) const HELP: &str = "cargo xtask tidy

Searches the tree for: dependencies between crates that point down, crates without
#![forbid(unsafe_code)], `unsafe` without a SAFETY comment or outside its crates, printing libraries, I/O in
the model, foreign tensor names outside vitmae-weights, files with names that say nothing, files above 500
lines, a README above 150, paths that do not exist, operations without their twins, and machine paths.
";

/// A check's name and its function.
type Check = (&'static str, fn(&[File]) -> Vec<String>);

const CHECKS: [Check; 9] = [
    ("layers", layers::check),
    ("unsafe", unsafe_code::check),
    ("printing", printing::check),
    ("boundaries", boundaries::check),
    ("names", names::check),
    ("length", length::check),
    ("paths", paths::check),
    ("twins", twins::check),
    ("machine", machine::check),
];

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    no_arguments("tidy", arguments)?;
    let files = workspace::files(workspace::root())?;
    let mut findings = 0;
    for (name, check) in CHECKS {
        for finding in check(&files) {
            println!("{name}: {finding}");
            findings += 1;
        }
    }
    if findings > 0 {
        bail!("{findings} findings");
    }
    println!("tidy: {} checks of {} files, nothing found", CHECKS.len(), files.len());
    Ok(())
}

/// The folder of the package a file belongs to: that of a crate, or `tests`, `benches`, `xtask`.
fn package(path: &str) -> &str {
    let depth = if path.starts_with("crates/") { 2 } else { 1 };
    let end = path.match_indices('/').nth(depth - 1).map_or(path.len(), |(at, _)| at);
    &path[..end]
}

/// The source lines of a file without its unit tests and without comments, with their numbers from 1.
///
/// Unit tests come last in a file, so everything after the first `#[cfg(test)]` is left out.
fn product_lines(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let lines = file.text().lines().take_while(|line| line.trim() != "#[cfg(test)]");
    let numbered = lines.enumerate().map(|(index, line)| (index + 1, line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// True for a file that is only compiled for tests or benches.
fn is_test(path: &str) -> bool {
    path.starts_with("tests/")
        || path.starts_with("benches/")
        || path.starts_with("crates/vitmae-testing/")
        || path.contains("/tests/")
        || path.ends_with("/tests.rs")
}

#[cfg(test)]
fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: Some(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_belong_to_packages() {
        assert_eq!(package("crates/vitmae-cpu/src/gemm/pack.rs"), "crates/vitmae-cpu");
        assert_eq!(package("xtask/src/main.rs"), "xtask");
        assert_eq!(package("README.md"), "README.md");
    }

    #[test]
    fn comments_and_unit_tests_are_no_product_lines() {
        let source = file("a.rs", "let a = 1;\n/// doc\nlet b = 2;\n#[cfg(test)]\nmod tests {}\n");
        let lines: Vec<_> = product_lines(&source).collect();
        assert_eq!(lines, [(1, "let a = 1;"), (3, "let b = 2;")]);
    }
}
