//! The files that are written are those that ONNX Runtime was seen to run.
//!
//! `tests/fixtures/onnx.json` is written by `tests/generate/check_onnx.py`, which compares ONNX Runtime's outputs with
//! what the reference gave. Files are the same bytes each time, so that equal hashes mean that what was seen still holds.
//! A build that runs graphs first writes what it found into them.
#![cfg(not(feature = "check"))]

use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};
use vitmae_model::Head;
use vitmae_onnx::{ExportOptions, Exported, Model, export};
use vitmae_tensor::Device;
use vitmae_weights::{
    LoadOptions, classifier_from_pretrained, encoder_from_pretrained, from_pretrained,
};

fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a fixture");
    serde_json::from_str(&text).expect("JSON")
}

/// Exports a case as `vitmae export-onnx` does.
fn written(case: &Path, graph: &str, path: &Path) -> Vec<u8> {
    let (device, options) = (Device::cpu(), ExportOptions::default());
    let load = LoadOptions { allow_unexpected: vec!["decoder*".into()], ..LoadOptions::default() };
    let report = match graph {
        "encoder" => {
            let (model, _) = encoder_from_pretrained(case, &device, &load).expect("an encoder");
            export(Model::Encoder(&model), Exported::Encoder, path, &options)
        }
        "reconstruction" => {
            let (model, _) =
                from_pretrained(case, &device, &LoadOptions::default()).expect("a model");
            export(Model::Pretraining(&model), Exported::Reconstruction, path, &options)
        }
        _ => {
            let mean = json(&case.join("case.json"))["head"] == "mean-fc-norm";
            let head = if mean { Head::MeanFcNorm } else { Head::Cls };
            let (model, _) =
                classifier_from_pretrained(case, head, &device, &LoadOptions::default())
                    .expect("a classifier");
            export(Model::Classifier(&model), Exported::Classifier, path, &options)
        }
    };
    report.expect("an export");
    std::fs::read(path).expect("a file")
}

#[test]
fn what_is_written_now_is_what_onnx_runtime_ran() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let result = json(&fixtures.join("onnx.json"));
    let folder = tempfile::tempdir().expect("a folder");
    let cases = result["cases"].as_object().expect("an object");
    assert!(cases.len() >= 50);
    for (name, found) in cases {
        let graph = found["graph"].as_str().expect("a name");
        let path = folder.path().join("model.onnx");
        let bytes = written(&fixtures.join("parity").join(name), graph, &path);
        let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            found["sha256"],
            hash.as_str(),
            "{name}: the bytes changed; run `cargo xtask fixtures` to see what ONNX Runtime makes of them"
        );
        let differences = found["max_abs_error"].as_object().expect("an object");
        assert!(!differences.is_empty(), "{name}");
        for (output, difference) in differences {
            let difference = difference.as_f64().expect("a number");
            assert!(difference < 1e-5, "{name}: {output} differed by {difference:e}");
        }
    }
}
