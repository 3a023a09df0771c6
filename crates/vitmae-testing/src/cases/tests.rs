use super::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// A folder that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vitmae-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn with(name: &str, json: &str) -> Self {
        let folder = Self::new(name);
        std::fs::write(folder.0.join("case.json"), json).unwrap();
        let noise: Vec<u8> = [0.5f32, 0.25].iter().flat_map(|v| v.to_le_bytes()).collect();
        let ids: Vec<u8> = [1i64, 0].iter().flat_map(|v| v.to_le_bytes()).collect();
        folder.tensors(&[
            ("input.noise", Dtype::F32, &[1, 2], &noise),
            ("expected.ids_restore", Dtype::I64, &[1, 2], &ids),
        ]);
        folder
    }

    fn tensors(&self, tensors: &[(&str, Dtype, &[usize], &[u8])]) {
        let views = tensors.iter().map(|&(name, dtype, shape, data)| {
            (name, TensorView::new(dtype, shape.to_vec(), data).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        std::fs::write(self.0.join("tensors.safetensors"), bytes).unwrap();
    }

    fn error(&self) -> String {
        Case::read(&self.0).unwrap_err().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const PRETRAINING: &str = r#"{"kind": "pretraining", "numerics": "torch", "layout": "hf",
    "weights": "model.safetensors", "interpolate_pos_encoding": false, "interpolation": "hf1d",
    "tolerance": {"atol": 1e-5, "rtol": 1e-4},
    "generator": {"transformers": "4.57.6", "torch": "2.15.0"}}"#;

#[test]
fn the_example_of_the_format_reads() {
    let folder = Folder::with("example", PRETRAINING);
    let case = Case::read(&folder.0).unwrap();
    assert_eq!(case.kind, Kind::Pretraining);
    assert_eq!((case.numerics, case.layout), (Numerics::Torch, Some(Layout::Hf)));
    assert_eq!(case.interpolation, None);
    assert_eq!(case.tolerance, Tolerance::new(1e-5, 1e-4));
    assert_eq!(case.weights_path(), Some(folder.0.join("model.safetensors")));
    assert_eq!(case.preprocessor_path(), None);
    let (shape, noise) = case.tensors.f32s("input.noise").unwrap();
    assert_eq!((shape, noise.as_slice()), (&[1, 2][..], &[0.5, 0.25][..]));
    let (_, ids) = case.tensors.integers("expected.ids_restore").unwrap();
    assert_eq!(ids, [1, 0]);
    assert_eq!(case.expected().map(|(name, _)| name).collect::<Vec<_>>(), ["ids_restore"]);
    assert!(
        case.tensors.integers("input.noise").unwrap_err().to_string().contains("expected integers")
    );
    assert!(case.tensors.f64s("input.labels").unwrap_err().to_string().contains("not found"));
}

#[test]
fn every_kind_and_every_layout_reads() {
    let weights = r#""weights": "w", "tolerance": {"atol": 1e-5, "rtol": 0}, "layout""#;
    let training = r#""optimizer": {"name": "adamw", "betas": [0.9, 0.95], "eps": 1e-8,
        "weight_decay": 0.05, "decay_rule": "1d-and-bias-exempt"},
        "schedule": {"kind": "warmup-cosine", "lr": 1e-3, "min_lr": 0, "warmup_steps": 2,
        "total_steps": 10}"#;
    let kinds = [
        format!(r#"{{"kind": "gradients", {weights}: "hf-bare"}}"#),
        format!(r#"{{"kind": "training", {weights}: "hf5", {training}}}"#),
        format!(r#"{{"kind": "encoder", {weights}: "hf5-memory"}}"#),
        format!(r#"{{"kind": "classification", {weights}: "bin", "head": "mean-fc-norm"}}"#),
        format!(r#"{{"kind": "classification", {weights}: "fb", "head": "cls"}}"#),
        format!(r#"{{"kind": "pretraining", {weights}: "tf-h5", "numerics": "tf"}}"#),
        format!(
            r#"{{"kind": "pretraining", {weights}: "tf-safetensors",
            "interpolate_pos_encoding": true, "interpolation": "grid2d"}}"#
        ),
        r#"{"kind": "processor", "image": "a.png", "tolerance": {"atol": 1e-6, "rtol": 0}}"#.into(),
        r#"{"kind": "masking", "mask_ratio": 0.9}"#.into(),
        r#"{"kind": "pretraining-hash", "batch": 2, "tolerance": {"atol": 1e-5, "rtol": 0}}"#
            .into(),
    ];
    let mut layouts = Vec::new();
    for (i, json) in kinds.iter().enumerate() {
        let folder = Folder::with(&format!("kind-{i}"), json);
        let case = Case::read(&folder.0).unwrap_or_else(|error| panic!("{json}: {error}"));
        layouts.extend(case.layout);
        match case.kind {
            Kind::Training { schedule, .. } => {
                assert_eq!(schedule.learning_rate(1), 5e-4);
                assert_eq!(schedule.learning_rate(2), 1e-3);
                assert!((schedule.learning_rate(6) - 5e-4).abs() < 1e-18);
            }
            Kind::Masking { mask_ratio } => {
                assert_eq!((mask_ratio, case.tolerance), (0.9, Tolerance::EXACT));
            }
            _ => {}
        }
        if i == 6 {
            assert_eq!(case.interpolation, Some(Interpolation::Grid2d));
        }
    }
    use Layout::*;
    assert_eq!(layouts, [HfBare, Hf5, Hf5Memory, Bin, Fb, TfH5, TfSafetensors]);
}

#[test]
fn faults_of_case_json_are_named() {
    let cases = [
        (PRETRAINING.replace("numerics", "numeric"), "unknown field `numeric`"),
        (PRETRAINING.replace("atol", "absolute"), "unknown field `absolute`"),
        (PRETRAINING.replace("\"pretraining\"", "\"pretrain\""), "unknown variant `pretrain`"),
        (PRETRAINING.replace("\"hf\"", "\"hf4\""), "unknown variant `hf4`"),
        (PRETRAINING.replace("\"hf1d\"", "\"hf2d\""), "unknown variant `hf2d`"),
        (PRETRAINING.replace("\"torch\",", "\"jax\","), "unknown variant `jax`"),
        (PRETRAINING.replace("1e-5", "-1"), "`tolerance.atol` is -1, expected a finite number"),
        (
            PRETRAINING.replace("model.safetensors", "../up"),
            "`weights` is `../up`, expected the name",
        ),
        (
            PRETRAINING.replace("model.safetensors", "/etc/x"),
            "`weights` is `/etc/x`, expected the name",
        ),
        (
            PRETRAINING.replace("\"layout\": \"hf\",", ""),
            "kind `pretraining` needs the field `layout`",
        ),
        (
            PRETRAINING.replace("pretraining", "training"),
            "kind `training` needs the field `optimizer`",
        ),
        (r#"{"kind": "masking"}"#.into(), "kind `masking` needs the field `mask_ratio`"),
        (r#"{"kind": "masking", "mask_ratio": 1.5}"#.into(), "`mask_ratio` is 1.5, expected"),
        (r#"{"kind": "pretraining-hash", "batch": 1}"#.into(), "needs the field `tolerance`"),
        ("{}".into(), "missing field `kind`"),
        ("".into(), "not a parity case"),
    ];
    for (i, (json, expected)) in cases.iter().enumerate() {
        let message = Folder::with(&format!("fault-{i}"), json).error();
        assert!(message.contains(expected), "{message}\nexpected: {expected}");
        assert!(message.contains("case.json"), "{message}");
    }
}

#[test]
fn faults_of_the_tensors_are_named() {
    let folder = Folder::with("tensors", PRETRAINING);
    folder.tensors(&[("input.pixels", Dtype::F32, &[1], &[0; 4])]);
    assert!(folder.error().contains("tensor `input.pixels` is unknown"));
    folder.tensors(&[("expected.", Dtype::F32, &[1], &[0; 4])]);
    assert!(folder.error().contains("tensor `expected.` is unknown"));
    folder.tensors(&[("expected.mask", Dtype::F16, &[1], &[0; 2])]);
    assert!(folder.error().contains("tensor `expected.mask` has dtype F16, expected F32"));
    std::fs::write(folder.0.join("tensors.safetensors"), b"no").unwrap();
    assert!(folder.error().contains("not a safetensors file"));
    std::fs::remove_file(folder.0.join("tensors.safetensors")).unwrap();
    assert!(folder.error().contains("tensors.safetensors` cannot be read"));
}

#[test]
fn folders_are_listed_by_name_and_an_empty_one_is_an_error() {
    let folder = Folder::new("list");
    assert!(matches!(case_folders(&folder.0), Err(CaseError::NoCases { .. })));
    for name in ["b", "a", "not-a-case"] {
        std::fs::create_dir_all(folder.0.join(name)).unwrap();
    }
    for name in ["a", "b"] {
        std::fs::write(folder.0.join(name).join("case.json"), "{}").unwrap();
    }
    let expected = vec![folder.0.join("a"), folder.0.join("b")];
    assert_eq!(case_folders(&folder.0).unwrap(), expected);
    assert_eq!(case_folders(&folder.0.join("a")).unwrap(), [folder.0.join("a")]);
    assert!(matches!(case_folders(&folder.0.join("c")), Err(CaseError::Io { .. })));
}
