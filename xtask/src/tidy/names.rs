//! File names say what is inside.

use crate::workspace::File;

const EMPTY: [&str; 8] = ["base", "util", "utils", "common", "helper", "helpers", "misc", "mod"];

pub(super) fn check(files: &[File]) -> Vec<String> {
    let sources = files.iter().filter(|file| file.is("rs") || file.is("py"));
    let empty = sources.filter(|file| {
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        EMPTY.contains(&name.split('.').next().unwrap_or(name))
    });
    empty.map(|file| format!("`{}`: name it after what it does", file.path)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn names_that_say_nothing_are_found() {
        for path in [
            "crates/vitmae-cpu/src/utils.rs",
            "crates/a/src/gemm/mod.rs",
            "tests/generate/common.py",
        ] {
            assert_eq!(check(&[file(path, "")]).len(), 1, "{path}");
        }
        assert!(check(&[file("crates/vitmae-model/src/model.rs", "")]).is_empty());
    }
}
