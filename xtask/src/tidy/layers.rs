//! Dependencies between our crates only point from a higher layer to a lower one.

use super::package;
use crate::workspace::File;

/// Each crate with its layer; the table is that of docs/architecture.md.
const LAYERS: [(&str, u8); 10] = [
    ("vitmae-kernels", 0),
    ("vitmae-cpu", 0),
    ("vitmae-tensor", 1),
    ("vitmae-layers", 2),
    ("vitmae-model", 3),
    ("vitmae-image", 3),
    ("vitmae-weights", 4),
    ("vitmae-onnx", 5),
    ("vitmae-trainer", 5),
    ("vitmae-cli", 6),
];
/// A leaf: it depends on none of ours, and only tests and benches depend on it.
const LEAF: &str = "vitmae-testing";

pub(super) fn check(files: &[File]) -> Vec<String> {
    let manifests =
        files.iter().filter(|file| file.path == format!("{}/Cargo.toml", package(&file.path)));
    manifests.flat_map(check_manifest).collect()
}

fn check_manifest(manifest: &File) -> Vec<String> {
    let folder = package(&manifest.path);
    let name = folder.strip_prefix("crates/").unwrap_or(folder);
    let own = layer(name);
    let mut findings = Vec::new();
    if folder != name && own.is_none() && name != LEAF {
        findings.push(format!(
            "`{name}` has no layer; add it to the table in xtask/src/tidy/layers.rs"
        ));
    }
    for (kind, dependency) in our_dependencies(manifest.text()) {
        let allowed = match (name, own, layer(dependency)) {
            ("tests" | "benches" | "targets" | "fuzz", ..) => true,
            ("xtask", ..) | (LEAF, ..) => false,
            // Tests of a crate may use the leaf.
            (_, Some(_), None) => dependency == LEAF && kind == "dev-dependencies",
            (_, Some(own), Some(other)) => other < own,
            _ => false,
        };
        if !allowed {
            findings.push(format!("`{name}` must not depend on `{dependency}` ({kind})"));
        }
    }
    findings
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|&(_, layer)| layer)
}

/// Section and name of every dependency called `vitmae-…` in a manifest.
fn our_dependencies(manifest: &str) -> Vec<(&str, &str)> {
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']);
            // `[dependencies.vitmae-cpu]`
            if let Some((kind, name)) = section.rsplit_once('.')
                && name.starts_with("vitmae-")
            {
                found.push((kind, name));
            }
        } else if section.ends_with("dependencies") {
            let name = line.split(['.', '=', ' ']).next().unwrap_or("").trim_matches('"');
            if name.starts_with("vitmae-") {
                found.push((section, name));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&[file(path, text)])
    }

    #[test]
    fn upward_and_sideways_dependencies_are_found_in_every_spelling() {
        for line in [
            "[dependencies]\nvitmae-weights.workspace = true",
            "[dependencies]\nvitmae-image = { path = \"../vitmae-image\" }",
            "[dependencies.vitmae-trainer]\npath = \"..\"",
            "[target.'cfg(unix)'.dependencies]\nvitmae-cli = \"1\"",
            "[dependencies]\nvitmae-testing.workspace = true",
            "[build-dependencies]\nvitmae-model.workspace = true",
        ] {
            assert_eq!(findings("crates/vitmae-model/Cargo.toml", line).len(), 1, "{line}");
        }
        let text = "[dependencies]\nvitmae-cpu.workspace = true";
        assert_eq!(findings("xtask/Cargo.toml", text).len(), 1);
        assert_eq!(findings("crates/vitmae-testing/Cargo.toml", text).len(), 1);
        assert_eq!(findings("crates/vitmae-kernels/Cargo.toml", text).len(), 1);
        assert_eq!(findings("crates/vitmae-new/Cargo.toml", "[package]").len(), 1);
    }

    #[test]
    fn downward_dependencies_and_the_leaf_in_tests_are_fine() {
        let text = "[package]\nname = \"vitmae-model\"\n[dependencies]\nvitmae-cpu.workspace = true\n\
                    vitmae-layers.workspace = true\n[dev-dependencies]\nvitmae-testing.workspace = true";
        assert_eq!(findings("crates/vitmae-model/Cargo.toml", text), Vec::<String>::new());
        let text = "[dependencies]\nvitmae-testing.workspace = true";
        assert_eq!(findings("tests/Cargo.toml", text), Vec::<String>::new());
    }
}
