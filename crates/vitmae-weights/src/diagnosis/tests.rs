use std::fs;

use vitmae_layers::Param;
use vitmae_model::position::table;
use vitmae_model::{Head, VitForImageClassification, VitMaeForPreTraining};
use vitmae_tensor::Device;

use super::*;
use crate::folder::WEIGHTS_FILE;
use crate::parameters::ParameterShape;
use crate::saving::{SaveOptions, Saved, save};
use crate::{Pretrained, from_pretrained, save_pretrained, write_safetensors};

fn tiny() -> VitMaeConfig {
    VitMaeConfig {
        hidden_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 12,
        decoder_hidden_size: 8,
        decoder_num_hidden_layers: 1,
        decoder_num_attention_heads: 1,
        decoder_intermediate_size: 6,
        image_size: (16, 16),
        patch_size: (4, 4),
        num_channels: 3,
        ..VitMaeConfig::default()
    }
}

/// Saves a new model in `layout`, each parameter's values changed by `change`.
fn store(
    folder: &Path,
    layout: Layout,
    config: &VitMaeConfig,
    change: impl Fn(&str, &mut Vec<f32>),
) {
    let model = VitMaeForPreTraining::new(config.clone(), &Device::cpu(), 1).unwrap();
    let params: Vec<&Param> = model.parameters();
    let shape =
        |p: &&Param| ParameterShape { name: p.name.clone(), shape: p.value.shape().to_vec() };
    let parameters: Vec<ParameterShape> = params.iter().map(shape).collect();
    let class = VitMaeForPreTraining::CLASS;
    let saved = Saved { config, class, layout, parameters: &parameters };
    save(folder, &saved, &SaveOptions::default(), |i| {
        let mut values = params[i].value.to_vec().unwrap();
        change(&params[i].name, &mut values);
        Ok(values)
    })
    .unwrap();
}

fn findings(path: &Path) -> Vec<Finding> {
    diagnose(path, &LoadOptions::default()).unwrap().findings
}

fn kinds(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(Finding::kind).collect()
}

/// A model broken by `change` has exactly `expected` wrong with it, and its mended copy nothing.
fn broken_and_mended(
    layout: Layout,
    config: &VitMaeConfig,
    change: impl Fn(&str, &mut Vec<f32>),
    expected: &[&str],
) {
    let folder = tempfile::tempdir().unwrap();
    let (sick, well) = (folder.path().join("sick"), folder.path().join("well"));
    store(&sick, layout, config, change);
    let before = fs::read(sick.join(WEIGHTS_FILE)).unwrap();
    let diagnosis = diagnose(&sick, &LoadOptions::default()).unwrap();
    assert_eq!(kinds(&diagnosis.findings), expected);
    assert!(diagnosis.findings.iter().all(Finding::can_be_mended));
    let repair = repair(&sick, &diagnosis, &well).unwrap();
    assert_eq!((repair.mended.len(), repair.left.len()), (expected.len(), 0));
    assert_eq!(findings(&well), []);
    assert_eq!(fs::read(sick.join(WEIGHTS_FILE)).unwrap(), before);
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    // What no finding was about is as it was.
    let options = LoadOptions::default();
    let (mended, _) = from_pretrained(&well, &Device::cpu(), &options).unwrap();
    let first = VitMaeForPreTraining::new(mended.config.clone(), &Device::cpu(), 1).unwrap();
    for (found, first) in mended.parameters().iter().zip(first.parameters()) {
        let token = found.name.ends_with("_token") && expected.contains(&"zero-tensor");
        assert!(
            token || found.value.to_vec().unwrap() == first.value.to_vec().unwrap(),
            "{}",
            found.name
        );
    }
}

#[test]
fn a_healthy_model_has_no_finding_in_any_layout() {
    for layout in [Layout::HuggingFace, Layout::TensorFlow] {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), layout, &tiny(), |_, _| {});
        assert_eq!(findings(folder.path()), [], "{layout}");
    }
    for image_size in [(16, 8), (8, 24)] {
        let folder = tempfile::tempdir().unwrap();
        store(
            folder.path(),
            Layout::HuggingFace,
            &VitMaeConfig { image_size, ..tiny() },
            |_, _| {},
        );
        assert_eq!(findings(folder.path()), []);
    }
    let original = VitMaeConfig { layer_norm_eps: 1e-6, ..tiny() };
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), Layout::Original, &original, |_, _| {});
    assert_eq!(findings(folder.path()), []);
    for head in [Head::Cls, Head::MeanFcNorm] {
        let folder = tempfile::tempdir().unwrap();
        let model = VitForImageClassification::new(tiny(), head, &Device::cpu(), 2).unwrap();
        save_pretrained(&model, folder.path()).unwrap();
        assert_eq!(findings(folder.path()), []);
    }
}

#[test]
fn a_table_that_was_trained_or_learned_is_no_finding() {
    let folder = tempfile::tempdir().unwrap();
    for (size, seed) in [(0.05, 1), (1.0, 2)] {
        let change = |name: &str, values: &mut Vec<f32>| {
            if name.ends_with("position_embeddings") {
                let mut state = seed as u32;
                values.iter_mut().for_each(|value| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let random = (state >> 8) as f32 / 8_388_608.0 - 1.0;
                    *value = *value * (1.0 - size) + size * random;
                });
            }
        };
        store(folder.path(), Layout::HuggingFace, &tiny(), change);
        assert_eq!(findings(folder.path()), []);
    }
}

#[test]
fn zero_tables_of_transformers_are_told_and_mended() {
    // transformers 4: the decoder's table and its mask token.
    let zero = |all: &'static [&str]| {
        move |name: &str, values: &mut Vec<f32>| {
            if all.contains(&name) {
                values.fill(0.0);
            }
        }
    };
    let four = ["decoder.mask_token", "decoder.position_embeddings"];
    let config = tiny();
    broken_and_mended(
        Layout::HuggingFace,
        &config,
        zero(&["decoder.position_embeddings"]),
        &["zero-table"],
    );
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), Layout::HuggingFace, &config, |name, values| {
        if four.contains(&name) {
            values.fill(0.0);
        }
    });
    let mut found = kinds(&findings(folder.path()));
    found.sort();
    assert_eq!(found, ["zero-table", "zero-tensor"]);
    // transformers 5, in its own layout: both tables and the class token too.
    let five = [&four[..], &["vit.cls_token", "vit.position_embeddings"]].concat();
    let sick = tempfile::tempdir().unwrap();
    store(sick.path(), Layout::Transformers5Saved, &config, |name, values| {
        if five.contains(&name) {
            values.fill(0.0);
        }
    });
    let diagnosis = diagnose(sick.path(), &LoadOptions::default()).unwrap();
    let mut found = kinds(&diagnosis.findings);
    found.sort();
    assert_eq!(found, ["transformers-5", "zero-table", "zero-table", "zero-tensor", "zero-tensor"]);
    let well = folder.path().join("well");
    repair(sick.path(), &diagnosis, &well).unwrap();
    assert_eq!(findings(&well), []);
}

#[test]
fn swapped_tables_are_told_from_right_ones_and_mended() {
    for image_size in [(16, 16), (8, 16)] {
        let config = VitMaeConfig { image_size, ..tiny() };
        let change = |name: &str, values: &mut Vec<f32>| {
            if name == "vit.position_embeddings" {
                *values = tables::swapped(8, config.grid());
            }
        };
        broken_and_mended(Layout::HuggingFace, &config, change, &["swapped-table"]);
    }
}

#[test]
fn tables_of_another_grid_are_told_and_mended() {
    // The same number of patches in another arrangement.
    let change = |name: &str, values: &mut Vec<f32>| {
        if name == "decoder.position_embeddings" {
            *values = table(8, (2, 8));
        }
    };
    broken_and_mended(Layout::HuggingFace, &tiny(), change, &["wrong-grid"]);
    // Another number of patches: the model was made for other images than the configuration says.
    let folder = tempfile::tempdir().unwrap();
    store(
        folder.path(),
        Layout::HuggingFace,
        &VitMaeConfig { image_size: (24, 16), ..tiny() },
        |_, _| {},
    );
    fs::write(folder.path().join("config.json"), tiny().to_json()).unwrap();
    let diagnosis = diagnose(folder.path(), &LoadOptions::default()).unwrap();
    assert_eq!(kinds(&diagnosis.findings), ["wrong-grid", "wrong-grid"]);
    let text = diagnosis.findings[1].to_string();
    assert!(text.ends_with("is for a grid of 6 x 4, the configuration has 4 x 4"), "{text}");
    let well = folder.path().join("well");
    repair(folder.path(), &diagnosis, &well).unwrap();
    assert_eq!(findings(&well), []);
    // A learned table has no formula.
    let learned = |name: &str, values: &mut Vec<f32>| {
        if name.ends_with("position_embeddings") {
            values.iter_mut().enumerate().for_each(|(i, value)| *value = (i % 7) as f32 - 3.0);
        }
    };
    let config = VitMaeConfig { image_size: (24, 16), ..tiny() };
    store(folder.path(), Layout::HuggingFace, &config, learned);
    fs::write(folder.path().join("config.json"), tiny().to_json()).unwrap();
    let found = findings(folder.path());
    assert_eq!(kinds(&found), ["wrong-grid", "wrong-grid"]);
    assert!(found.iter().all(|finding| !finding.can_be_mended()));
}

#[test]
fn values_that_are_no_numbers_are_counted_and_stay() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), Layout::HuggingFace, &tiny(), |name, values| {
        if name == "vit.blocks.1.mlp.fc1.weight" {
            (values[3], values[4], values[9]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        }
    });
    let tensor = "vit.encoder.layer.1.intermediate.dense.weight".to_string();
    assert_eq!(findings(folder.path()), [Finding::NonFinite { tensor, nan: 1, infinite: 2 }]);
    let diagnosis = diagnose(folder.path(), &LoadOptions::default()).unwrap();
    let well = folder.path().join("well");
    let error = repair(folder.path(), &diagnosis, &well).unwrap_err().to_string();
    assert!(error.ends_with("is not mended: nothing was found that can be mended"), "{error}");
    assert!(!well.exists());
}

#[test]
fn an_eps_of_another_origin_is_told_and_mended() {
    for (layout, eps) in
        [(Layout::HuggingFace, 1e-5), (Layout::TensorFlow, 1e-3), (Layout::Original, 1e-12)]
    {
        let config = VitMaeConfig { layer_norm_eps: eps, ..tiny() };
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), layout, &config, |_, _| {});
        let diagnosis = diagnose(folder.path(), &LoadOptions::default()).unwrap();
        let usual = if layout == Layout::Original { 1e-6 } else { 1e-12 };
        assert_eq!(diagnosis.findings, [Finding::LayerNormEps { found: eps, usual, layout }]);
        let well = folder.path().join("well");
        repair(folder.path(), &diagnosis, &well).unwrap();
        assert_eq!(findings(&well), []);
        let (model, _) = from_pretrained(&well, &Device::cpu(), &LoadOptions::default()).unwrap();
        assert_eq!(model.config.layer_norm_eps, usual);
    }
}

#[test]
fn repeated_and_zero_matrices_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let source = VitMaeForPreTraining::new(tiny(), &Device::cpu(), 1).unwrap();
    let of = |name: &str| {
        let all = source.parameters();
        all.iter().find(|p| p.name == name).unwrap().value.to_vec().unwrap()
    };
    store(folder.path(), Layout::HuggingFace, &tiny(), |name, values| match name {
        "vit.blocks.1.mlp.fc1.weight" => *values = of("vit.blocks.0.mlp.fc1.weight"),
        "vit.blocks.1.mlp.fc2.weight" => values.fill(0.0),
        _ => {}
    });
    let weight =
        |block: usize, part: &str| format!("vit.encoder.layer.{block}.{part}.dense.weight");
    assert_eq!(
        findings(folder.path()),
        [
            Finding::ZeroTensor { tensor: weight(1, "output"), token: false },
            Finding::Repeated {
                tensors: vec![weight(0, "intermediate"), weight(1, "intermediate")]
            },
        ]
    );
}

#[test]
fn files_of_transformers_5_are_told_and_written_for_both() {
    // One decoder block: 16 tensors. In memory the encoder's names differ too.
    for (layout, tensors) in [(Layout::Transformers5Saved, 16), (Layout::Transformers5State, 44)] {
        let folder = tempfile::tempdir().unwrap();
        store(folder.path(), layout, &tiny(), |_, _| {});
        let found = findings(folder.path());
        let Finding::Transformers5 { tensors: count, .. } = found[0] else { panic!("{found:?}") };
        assert_eq!((found.len(), count), (1, tensors), "{layout}");
        broken_and_mended(layout, &tiny(), |_, _| {}, &["transformers-5"]);
    }
}

#[test]
fn what_does_not_belong_together_is_told_and_not_mended() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    store(folder.path(), Layout::HuggingFace, &tiny(), |_, _| {});
    fs::write(&config, VitMaeConfig { num_channels: 1, ..tiny() }.to_json()).unwrap();
    assert_eq!(kinds(&findings(folder.path())), ["contradiction"]);
    fs::write(&config, "{\"hidden_size\": 0}").unwrap();
    assert_eq!(kinds(&findings(folder.path())), ["config"]);
    fs::remove_file(&config).unwrap();
    assert_eq!(kinds(&findings(folder.path())), ["config"]);
    let options = LoadOptions { heads: Some(2), decoder_heads: Some(1), ..LoadOptions::default() };
    assert_eq!(diagnose(folder.path(), &options).unwrap().findings, []);

    // A tensor less, and a stranger.
    fs::write(&config, tiny().to_json()).unwrap();
    let path = folder.path().join(WEIGHTS_FILE);
    let mut file = WeightsFile::open(&path).unwrap();
    let tensors: Vec<_> = file.tensors().to_vec();
    let kept = tensors.iter().filter(|t| t.name != "vit.layernorm.bias");
    let mut tensors: Vec<_> = kept
        .map(|t| crate::TensorToWrite {
            name: t.name.clone(),
            dtype: t.dtype,
            shape: t.shape.clone(),
        })
        .collect();
    let stranger = crate::TensorToWrite { name: "pooler.bias".into(), ..tensors[0].clone() };
    tensors.push(stranger);
    let first = tensors[0].name.clone();
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(&config, copy.join("config.json")).unwrap();
    write_safetensors(&copy.join(WEIGHTS_FILE), &Default::default(), &tensors, |t| {
        file.read_f32(if t.name == "pooler.bias" { &first } else { &t.name })
    })
    .unwrap();
    let expected = Finding::Tensors {
        missing: vec!["vit.layernorm.bias".into()],
        unexpected: vec!["pooler.bias".into()],
        misshapen: vec![],
    };
    assert_eq!(findings(&copy), [expected]);
}

#[test]
fn a_copy_is_never_written_over_anything() {
    let folder = tempfile::tempdir().unwrap();
    let sick = folder.path().join("sick");
    store(&sick, Layout::Transformers5Saved, &tiny(), |_, _| {});
    let diagnosis = diagnose(&sick, &LoadOptions::default()).unwrap();
    let error = repair(&sick, &diagnosis, &sick).unwrap_err();
    assert!(matches!(error, WeightsError::Exists { .. }), "{error}");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    repair(&sick, &diagnosis, &empty).unwrap();
    assert_eq!(findings(&empty), []);
}

#[test]
fn every_finding_says_what_it_means() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path(), Layout::Transformers5Saved, &tiny(), |_, _| {});
    let found = findings(folder.path());
    let json = found[0].to_json();
    assert_eq!((&json["kind"], &json["can_be_mended"]), (&"transformers-5".into(), &true.into()));
    assert!(json["meaning"].as_str().unwrap().contains("at random"));
}
