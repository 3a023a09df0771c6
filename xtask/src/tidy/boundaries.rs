//! What a crate must not know, as far as words give it away.

use super::{is_test, package, product_lines};
use crate::workspace::File;

/// A word that stands only in some packages, and why.
struct Boundary {
    word: &'static str,
    /// Packages that must not contain it.
    forbidden: &'static [&'static str],
    why: &'static str,
}

const PURE: [&str; 5] = [
    "crates/vitmae-kernels",
    "crates/vitmae-cpu",
    "crates/vitmae-tensor",
    "crates/vitmae-layers",
    "crates/vitmae-model",
];
const NOT_WEIGHTS: [&str; 8] = [
    "crates/vitmae-kernels",
    "crates/vitmae-cpu",
    "crates/vitmae-tensor",
    "crates/vitmae-layers",
    "crates/vitmae-model",
    "crates/vitmae-image",
    "crates/vitmae-trainer",
    "crates/vitmae-cli",
];

const BOUNDARIES: [Boundary; 6] = [
    Boundary { word: "std::fs", forbidden: &PURE, why: "does no I/O" },
    Boundary { word: "std::net", forbidden: &PURE, why: "does no I/O" },
    Boundary { word: "SystemTime", forbidden: &PURE, why: "does not depend on the time" },
    Boundary {
        word: "embeddings.cls_token",
        forbidden: &NOT_WEIGHTS,
        why: "leaves foreign tensor names to vitmae-weights",
    },
    Boundary {
        word: "encoder.layer.",
        forbidden: &NOT_WEIGHTS,
        why: "leaves foreign tensor names to vitmae-weights",
    },
    Boundary {
        word: "decoder_layers",
        forbidden: &NOT_WEIGHTS,
        why: "leaves foreign tensor names to vitmae-weights",
    },
];

pub(super) fn check(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is("rs") && !is_test(&file.path)) {
        let package = package(&file.path);
        let boundaries = BOUNDARIES.iter().filter(|boundary| boundary.forbidden.contains(&package));
        for boundary in boundaries {
            let hits = product_lines(file).filter(|(_, line)| line.contains(boundary.word));
            findings.extend(hits.map(|(number, _)| {
                let name = package.trim_start_matches("crates/");
                format!("`{}:{number}` has `{}`: {name} {}", file.path, boundary.word, boundary.why)
            }));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn files_in_the_model_and_foreign_names_outside_weights_are_found() {
        let text = "let f = std::fs::read(path);\nlet n = \"vit.encoder.layer.0\";\n";
        assert_eq!(check(&[file("crates/vitmae-model/src/a.rs", text)]).len(), 2);
        assert_eq!(check(&[file("crates/vitmae-trainer/src/a.rs", text)]).len(), 1);
        assert!(check(&[file("crates/vitmae-weights/src/a.rs", text)]).is_empty());
    }
}
