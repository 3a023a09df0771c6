//! Only commands print: the binary, the chores, examples, and the programs among the tests and benches.

use super::{is_test, package, product_lines};
use crate::workspace::File;

const PRINTING: [&str; 3] = ["crates/vitmae-cli", "xtask", "targets"];
const MACROS: [&str; 4] = ["println!", "eprintln!", "print!", "eprint!"];

pub(super) fn check(files: &[File]) -> Vec<String> {
    let libraries = files.iter().filter(|file| {
        let shows = is_test(&file.path) || file.path.contains("/examples/");
        file.is("rs") && !shows && !PRINTING.contains(&package(&file.path))
    });
    let lines = libraries.flat_map(|file| product_lines(file).map(move |line| (file, line)));
    let printing = lines.filter(|(_, (_, line))| MACROS.iter().any(|name| line.contains(name)));
    printing.map(|(file, (number, _))| format!("`{}:{number}` prints", file.path)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn a_printing_library_is_found_and_its_tests_are_not() {
        let text = "fn f() {\n    eprintln!(\"x\");\n}\n#[cfg(test)]\nmod tests { fn g() { println!() } }\n";
        let findings = check(&[file("crates/vitmae-image/src/a.rs", text)]);
        assert_eq!(findings, ["`crates/vitmae-image/src/a.rs:2` prints"]);
        for path in [
            "crates/vitmae-cli/src/a.rs",
            "crates/vitmae-image/tests/a.rs",
            "crates/vitmae-image/examples/a.rs",
            "tests/src/bin/p.rs",
        ] {
            assert!(check(&[file(path, text)]).is_empty(), "{path}");
        }
    }
}
