//! Paths of the repository that documents and comments name exist.

use std::collections::BTreeSet;

use super::package;
use crate::workspace::File;

/// What a path of ours begins with.
const TOPS: [&str; 7] = ["crates/", "tests/", "benches/", "xtask/", "docs/", ".ci/", ".cargo/"];

pub(super) fn check(files: &[File]) -> Vec<String> {
    let known = known(files);
    let mut findings = Vec::new();
    for file in files {
        for (index, line) in file.text().lines().enumerate() {
            let missing = named(file, line).into_iter().filter(|name| !exists(&known, file, name));
            findings.extend(missing.map(|name| {
                format!("`{}:{}` names `{name}`, which does not exist", file.path, index + 1)
            }));
        }
    }
    findings
}

/// Every file and every folder that holds one.
fn known(files: &[File]) -> BTreeSet<&str> {
    let mut known = BTreeSet::new();
    for file in files {
        known.insert(file.path.as_str());
        known.extend(file.path.match_indices('/').map(|(at, _)| &file.path[..at]));
    }
    known
}

/// The paths that a line names: in prose of documents, Rust comments and Python scripts, and as link targets.
fn named<'a>(file: &File, line: &'a str) -> BTreeSet<&'a str> {
    let text = line.trim_start();
    let is_prose = file.is("md") || file.is("py") || (file.is("rs") && text.starts_with("//"));
    if !is_prose {
        return BTreeSet::new();
    }
    let words = text.split(|c: char| !(c.is_alphanumeric() || "/._-*{}<>…$".contains(c)));
    // A full stop ends a sentence, not a path; patterns and placeholders name no file.
    let words = words.map(|word| word.trim_end_matches(['.', '/']));
    let ours = words.filter(|word| TOPS.iter().any(|top| word.starts_with(top)) && is_plain(word));
    let mut found: BTreeSet<&str> = ours.collect();
    if file.is("md") {
        found.extend(links(text));
    }
    found
}

fn is_plain(path: &str) -> bool {
    !path.contains(['*', '{', '}', '<', '>', '…', '$'])
}

/// Targets of Markdown links inside the repository.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.map(|target| target.split('#').next().unwrap_or(target));
    targets.filter(|target| !target.is_empty() && !target.contains(':') && is_plain(target))
}

/// True if the path is one from the root, from the file's package, or from the file's folder.
fn exists(known: &BTreeSet<&str>, file: &File, name: &str) -> bool {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let starts = ["", package(&file.path), folder];
    starts.iter().any(|start| known.contains(joined(start, name).as_str()))
}

/// `start/name` with `..` resolved.
fn joined(start: &str, name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in start.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn names_of_missing_files_are_found() {
        let missing = [
            ("README.md", "See `docs/nothing.md`."),
            ("README.md", "[shapes](docs/shapes.md#letters)"),
            ("docs/a.md", "[up](../xtask/none.rs)"),
            ("crates/vitmae-cpu/src/a.rs", "//! As in `crates/vitmae-cpu/src/b.rs`."),
            ("tests/generate/a.py", "# read by tests/none.rs"),
        ];
        for (path, text) in missing {
            assert_eq!(check(&[file(path, text)]).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn existing_files_folders_patterns_and_code_are_fine() {
        let fine = [
            (
                "README.md",
                "See `docs/a.md`, docs/ and tests/generate/*.py, [a](docs/a.md#x), [b](https://x.y/z).",
            ),
            (
                "docs/a.md",
                "[itself](a.md), [up](../README.md), crates/vitmae-NAME/src is `crates/<name>/src`",
            ),
            ("crates/c/src/a.rs", "let p = \"tests/none.rs\"; // fixtures/none"),
            ("crates/c/src/a.rs", "// of this package: tests/laws.rs"),
            ("crates/c/tests/laws.rs", ""),
            ("tests/generate/x.py", ""),
        ];
        let mut files: Vec<File> = fine.iter().map(|(path, text)| file(path, text)).collect();
        files.push(file("crates/vitmae-NAME/src/lib.rs", ""));
        assert_eq!(check(&files), Vec::<String>::new());
    }
}
