//! Every parameter's gradient of the whole model, against central differences of the f64 reference.

use vitmae_model::{ForwardOptions, TrainOptions, VitMaeConfig, VitMaeForPreTraining};
use vitmae_tensor::Device;
use vitmae_tensor::ops::Distance;
use vitmae_testing::close::{Tolerance, compare};
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::gradient_check::numeric_gradient_at;
use vitmae_testing::reference::activation::Activation;
use vitmae_testing::reference::loss::{self, Target};
use vitmae_testing::reference::masking;
use vitmae_testing::reference::model::{Config, Parameters, Stack, pretraining};
use vitmae_testing::reference::patches;

use super::tiny;

/// Elements of each parameter that are moved.
const SAMPLES: usize = 12;

/// The reference's view of a configuration.
fn reference(config: &VitMaeConfig, distance: Distance) -> Config {
    Config {
        images: patches::Shape {
            batch: 0,
            channels: config.num_channels,
            height: config.image_size.0,
            width: config.image_size.1,
            patch_height: config.patch_size.0,
            patch_width: config.patch_size.1,
        },
        encoder: Stack {
            width: config.hidden_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            intermediate: config.intermediate_size,
        },
        decoder: Stack {
            width: config.decoder_hidden_size,
            layers: config.decoder_num_hidden_layers,
            heads: config.decoder_num_attention_heads,
            intermediate: config.decoder_intermediate_size,
        },
        activation: Activation::from_name(&config.hidden_act).unwrap(),
        qkv_bias: config.qkv_bias,
        layer_norm_eps: f64::from(config.layer_norm_eps as f32),
        target: if config.norm_pix_loss { Target::Normalised } else { Target::Pixels },
        distance: match distance {
            Distance::Squared => loss::Distance::Squared,
            Distance::Absolute => loss::Distance::Absolute,
        },
    }
}

fn check(config: VitMaeConfig) {
    check_with(config, Distance::Squared);
}

fn check_with(config: VitMaeConfig, distance: Distance) {
    let (batch, mut draws) = (3, Draws::new(11));
    let pixels = tiny::pixels(&config, batch, &mut draws);
    let noise: Vec<f64> = (0..batch * config.num_patches()).map(|_| draws.uniform()).collect();
    let (patches, ratio) = (config.num_patches(), config.mask_ratio);
    let masking_f64 = masking::from_noise(&noise, batch, patches, ratio);
    let masking = vitmae_model::Masking::from_noise(&noise, batch, patches, ratio).unwrap();
    let mut model = VitMaeForPreTraining::new(config.clone(), &Device::cpu(), 5).unwrap();
    // Norms and biases away from ones and zeros, so that none can hide.
    for param in model.parameters_mut() {
        let moved: Vec<f32> =
            param.value.to_vec().unwrap().iter().map(|x| x + 0.1 * draws.vec_f32(1)[0]).collect();
        param.set(&moved).unwrap();
    }
    let forward = ForwardOptions { distance, ..ForwardOptions::default() };
    let options = TrainOptions { forward, ..TrainOptions::default() };
    let tensor = tiny::tensor(&config, batch, &pixels);
    let loss = model.forward_backward(&tensor, &masking, &options).unwrap().item().unwrap();

    let (wide, reference) = (widen(&pixels), reference(&config, distance));
    let values: Parameters = model
        .parameters()
        .iter()
        .map(|p| (p.name.clone(), widen(&p.value.to_vec().unwrap())))
        .collect();
    let loss_at = |values: &Parameters| pretraining(&reference, values, &wide, &masking_f64).loss;
    let expected = loss_at(&values);
    assert!((f64::from(loss) - expected).abs() < 1e-5 * expected, "{loss} {expected}");
    for param in model.parameters() {
        let Some(gradient) = &param.grad else {
            assert!(!param.trainable, "`{}` has no gradient", param.name);
            continue;
        };
        let gradient = gradient.to_vec().unwrap();
        let chosen: Vec<usize> = match gradient.len() {
            few if few <= SAMPLES => (0..few).collect(),
            many => (0..SAMPLES).map(|_| draws.integer(0..=many - 1)).collect(),
        };
        let mut values = values.clone();
        let of = |moved: &[f64]| {
            values.insert(param.name.clone(), moved.to_vec());
            loss_at(&values)
        };
        let numeric = numeric_gradient_at(of, &widen(&param.value.to_vec().unwrap()), &chosen);
        let analytic: Vec<f32> = chosen.iter().map(|&at| gradient[at]).collect();
        compare(&param.name, &analytic, &numeric, Tolerance::new(1e-6, 1e-4)).assert();
    }
}

#[test]
fn every_gradient_is_that_of_the_loss() {
    check(tiny::config());
}

#[test]
fn with_normalised_targets_another_activation_and_no_qkv_bias() {
    check(VitMaeConfig {
        norm_pix_loss: true,
        hidden_act: "silu".into(),
        qkv_bias: false,
        mask_ratio: 0.5,
        ..tiny::config()
    });
}

#[test]
fn with_absolute_errors() {
    for norm_pix_loss in [false, true] {
        check_with(VitMaeConfig { norm_pix_loss, ..tiny::config() }, Distance::Absolute);
    }
}

#[test]
fn with_everything_removed() {
    check(VitMaeConfig { mask_ratio: 0.99, ..tiny::config() });
}
