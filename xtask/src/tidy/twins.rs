//! One operation, one name: each has its CPU kernel and its f64 reference under the same file name.

use crate::workspace::File;

const OPERATIONS: &str = "crates/vitmae-tensor/src/ops/";
const TWINS: [&str; 2] = ["crates/vitmae-cpu/src/", "crates/vitmae-testing/src/reference/"];

pub(super) fn check(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for name in files.iter().filter_map(|file| file.path.strip_prefix(OPERATIONS)) {
        // `ops/gemm/pack.rs` belongs to `gemm`.
        if name.contains('/') || !name.ends_with(".rs") {
            continue;
        }
        for folder in TWINS {
            let twin = format!("{folder}{name}");
            if !files.iter().any(|file| file.path == twin) {
                findings.push(format!("`{OPERATIONS}{name}` has no twin `{twin}`"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn an_operation_without_a_twin_is_found() {
        let operation = || file("crates/vitmae-tensor/src/ops/attention.rs", "");
        let kernel = || file("crates/vitmae-cpu/src/attention.rs", "");
        let reference = || file("crates/vitmae-testing/src/reference/attention.rs", "");
        assert_eq!(check(&[operation()]).len(), 2);
        assert_eq!(check(&[operation(), kernel()]).len(), 1);
        assert!(check(&[operation(), kernel(), reference()]).is_empty());
    }
}
