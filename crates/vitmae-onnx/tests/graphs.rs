//! Every graph of small models, run by tract beside the model.

use vitmae_model::{Head, VitForImageClassification, VitMaeConfig, VitMaeForPreTraining};
use vitmae_onnx::{ExportOptions, Exported, Model, OnnxError, export};
use vitmae_tensor::Device;

fn tiny() -> VitMaeConfig {
    VitMaeConfig {
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 32,
        decoder_hidden_size: 8,
        decoder_num_hidden_layers: 1,
        decoder_num_attention_heads: 2,
        decoder_intermediate_size: 16,
        image_size: (8, 16),
        patch_size: (4, 2),
        num_channels: 3,
        // Wide enough that every activation leaves its linear part.
        initializer_range: 1.0,
        ..VitMaeConfig::default()
    }
}

/// Random values for every parameter, so that no bias is 0 and no norm is 1.
fn filled(config: &VitMaeConfig) -> VitMaeForPreTraining {
    let mut model =
        VitMaeForPreTraining::new(config.clone(), &Device::cpu(), 3).expect("a parameter");
    let mut next = 0u64;
    for param in model.parameters_mut() {
        let values: Vec<f32> = param.value.to_vec().expect("a parameter");
        let values: Vec<f32> = values
            .iter()
            .map(|value| {
                next += 1;
                value + 0.3 * (next as f32 * 12.9898).sin()
            })
            .collect();
        param.set(&values).expect("a parameter");
    }
    model
}

fn check(model: &VitMaeForPreTraining, what: Exported, options: &ExportOptions) -> f64 {
    let folder = tempfile::tempdir().expect("an export");
    let path = folder.path().join("model.onnx");
    let report = export(Model::Pretraining(model), what, &path, options).expect("an export");
    assert!(path.metadata().expect("an export").len() > report.weight_bytes && !report.external);
    report.checked.expect("an export").max_abs_error
}

#[test]
fn every_graph_gives_the_numbers_of_its_model() {
    let fixed = ExportOptions { batch: Some(3), ..ExportOptions::default() };
    for config in [
        tiny(),
        VitMaeConfig { norm_pix_loss: true, qkv_bias: false, ..tiny() },
        VitMaeConfig { num_channels: 1, image_size: (8, 8), patch_size: (4, 4), ..tiny() },
    ] {
        let model = filled(&config);
        for what in [Exported::Encoder, Exported::Features, Exported::Reconstruction] {
            for options in [&ExportOptions::default(), &fixed] {
                let error = check(&model, what, options);
                assert!(error > 0.0 && error < 3e-5, "{what:?} {config:?}: {error:e}");
            }
        }
    }
}

#[test]
fn every_activation_gives_the_numbers_of_its_model() {
    for name in vitmae_tensor::ops::Activation::names() {
        let model = filled(&VitMaeConfig { hidden_act: name.to_owned(), ..tiny() });
        let error = check(&model, Exported::Reconstruction, &ExportOptions::default());
        assert!(error < 1e-4, "{name}: {error:e}");
    }
}

#[test]
fn a_target_of_tensorflow_is_one() {
    let mut config = VitMaeConfig { norm_pix_loss: true, ..tiny() };
    config.extra.insert("vitmae_numerics".to_owned(), "tf".into());
    check(&filled(&config), Exported::Reconstruction, &ExportOptions::default());
}

#[test]
fn classifiers_of_both_heads_are_exported() {
    let labels = ["cat", "dog", "owl"].iter().enumerate();
    let labels: serde_json::Map<_, _> =
        labels.map(|(i, name)| (i.to_string(), (*name).into())).collect();
    let mut config = tiny();
    config.extra.insert("id2label".to_owned(), labels.into());
    for head in [Head::Cls, Head::MeanFcNorm] {
        let model =
            VitForImageClassification::new(config.clone(), head, &Device::cpu(), 1).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("classifier.onnx");
        let of = Model::Classifier(&model);
        let report = export(of, Exported::Classifier, &path, &ExportOptions::default()).unwrap();
        assert!(report.checked.unwrap().max_abs_error < 1e-5);
        let refused = export(of, Exported::Features, &path, &ExportOptions::default());
        assert!(matches!(refused, Err(OnnxError::Model { .. })));
    }
}

#[test]
fn what_cannot_be_exported_leaves_no_file() {
    let model = filled(&tiny());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let message = |model: Model<'_>, what, options: &ExportOptions| {
        let message = export(model, what, &path, options).unwrap_err().to_string();
        assert!(!path.exists());
        message
    };
    let whole = Model::Pretraining(&model);
    let ratio = |mask_ratio| ExportOptions { mask_ratio: Some(mask_ratio), ..Default::default() };
    assert_eq!(
        message(whole, Exported::Reconstruction, &ratio(0.0)),
        "the mask ratio 0 keeps 16 of 16 patches, this graph needs 1 to 15"
    );
    assert_eq!(
        message(whole, Exported::Encoder, &ratio(1.0)),
        "the mask ratio 1 keeps 0 of 16 patches, this graph needs 1 to 16"
    );
    assert_eq!(
        message(Model::Encoder(&model.vit), Exported::Reconstruction, &ratio(0.5)),
        "reconstruction needs a decoder, and this model is an encoder without a decoder\n\
         help: name the checkpoint of a pre-training"
    );
    // A bound that no two programs meet: the graph is run before it is written.
    let exact = ExportOptions { bound: 0.0, ..Default::default() };
    assert!(message(whole, Exported::Features, &exact).contains("differs from the model by"));
    let mut nan = filled(&tiny());
    nan.vit.cls_token.set(&[f32::NAN; 16]).unwrap();
    let refused = message(Model::Pretraining(&nan), Exported::Features, &Default::default());
    assert!(refused.contains("differs from the model by NaN"), "{refused}");
}
