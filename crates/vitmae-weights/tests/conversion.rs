//! The files that `convert` writes are those that the libraries were seen to load.
//!
//! `tests/fixtures/conversions.json` is written by `tests/generate/check_conversions.py`, which loads each in the
//! library it is for. Files are the same bytes each time, so that equal hashes mean that what was seen still holds.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use vitmae_weights::{ConvertOptions, Target, convert};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

#[test]
fn what_is_written_now_is_what_the_libraries_loaded() {
    let text = std::fs::read_to_string(fixtures().join("conversions.json")).expect("the fixture");
    let result: Value = serde_json::from_str(&text).expect("JSON");
    let folder = tempfile::tempdir().expect("a folder");
    let original = fixtures().join("parity/pretraining-batch-of-five");
    for target in Target::ALL {
        let name = if target == Target::Original { "fb.pth".into() } else { target.to_string() };
        let report =
            convert(&original, target, &folder.path().join(name), &ConvertOptions::default());
        let written = std::fs::read(report.expect("it is converted").output).expect("a file");
        let hash: String = Sha256::digest(&written).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            result["sha256"][target.name()],
            hash.as_str(),
            "{target}: the bytes changed; run `cargo xtask fixtures` to see that the libraries still load them"
        );
        let loaded = result["loaded"].as_object().expect("an object");
        let seen: Vec<&Value> =
            loaded.values().filter_map(|found| found.get(target.name())).collect();
        assert!(!seen.is_empty(), "{target} was loaded by no library");
        let by_timm = loaded.keys().any(|library| library.starts_with("timm "));
        assert!(by_timm, "timm itself loaded nothing");
        for found in seen {
            assert_eq!(found["missing"], serde_json::json!([]), "{target}");
            assert_eq!(found["unexpected"], serde_json::json!([]), "{target}");
            assert_eq!(found["equal"], true, "{target}");
        }
    }
}
