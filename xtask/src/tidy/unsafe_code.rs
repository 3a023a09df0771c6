//! `unsafe` stands in few crates, and every use says why it is sound.

use super::{package, product_lines};
use crate::workspace::File;

/// Packages that forbid it in their root file.
const FORBIDDING: [&str; 7] = [
    "crates/vitmae-layers",
    "crates/vitmae-model",
    "crates/vitmae-image",
    "crates/vitmae-weights",
    "crates/vitmae-trainer",
    "crates/vitmae-cli",
    "xtask",
];
/// Packages that may use it: kernel launches, SIMD, memory mapping; the tests, for an allocator that counts.
const ALLOWED: [&str; 4] =
    ["crates/vitmae-kernels", "crates/vitmae-cpu", "crates/vitmae-tensor", "tests"];
/// How far above a use its comment may begin, in lines.
const REACH: usize = 8;

pub(super) fn check(files: &[File]) -> Vec<String> {
    let forbidden = files.iter().filter(|file| is_root(&file.path)).filter_map(|file| {
        let missing = !file.text().lines().any(|line| line.trim() == "#![forbid(unsafe_code)]");
        missing.then(|| format!("`{}` lacks `#![forbid(unsafe_code)]`", file.path))
    });
    let uses = files.iter().filter(|file| file.is("rs")).flat_map(check_uses);
    forbidden.chain(uses).collect()
}

fn is_root(path: &str) -> bool {
    let package = package(path);
    let rest = path.strip_prefix(package).unwrap_or(path);
    FORBIDDING.contains(&package) && (rest == "/src/lib.rs" || rest == "/src/main.rs")
}

fn check_uses(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.text().lines().collect();
    let mut findings = Vec::new();
    for (number, _) in product_lines(file).filter(|(_, line)| uses_unsafe(line)) {
        let path = &file.path;
        if !ALLOWED.contains(&package(path)) {
            findings.push(format!("`{path}:{number}` uses `unsafe`, which this package must not"));
        }
        let above = &lines[number.saturating_sub(REACH + 1)..number];
        if !above.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
            findings.push(format!("`{path}:{number}`: `unsafe` without a SAFETY comment"));
        }
    }
    findings
}

/// True if the line opens an unsafe block or implementation; `unsafe fn` only asks its callers.
fn uses_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or("");
    let quoted = code.split("unsafe").next().unwrap_or("").matches('"').count() % 2 == 1;
    !quoted && (code.contains("unsafe {") || code.contains("unsafe impl"))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn a_crate_that_does_not_forbid_it_is_found() {
        let root = file("crates/vitmae-model/src/lib.rs", "//! Model.\n");
        assert_eq!(check(&[root]).len(), 1);
        let root = file("crates/vitmae-model/src/lib.rs", "#![forbid(unsafe_code)]\n");
        assert!(check(&[root]).is_empty());
    }

    #[test]
    fn uses_without_a_reason_or_in_the_wrong_package_are_found() {
        let bare = "fn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(check(&[file("crates/vitmae-cpu/src/a.rs", bare)]).len(), 1);
        assert_eq!(check(&[file("crates/vitmae-image/src/a.rs", bare)]).len(), 2);
        let reasoned = "fn f() {\n    // SAFETY: g takes nothing.\n    unsafe { g() }\n}\n";
        assert!(check(&[file("crates/vitmae-cpu/src/a.rs", reasoned)]).is_empty());
        let far = format!("// SAFETY: far away\n{}unsafe {{ g() }}\n", "\n".repeat(20));
        assert_eq!(check(&[file("crates/vitmae-cpu/src/a.rs", &far)]).len(), 1);
    }
}
