//! bf16 products: a training run beside the same in f32.

use vitmae_model::{VitMaeConfig, VitMaeForPreTraining, VitMaeModel};
use vitmae_tensor::Device;
use vitmae_tensor::ops::Precision;
use vitmae_testing::draws::Draws;
use vitmae_trainer::{AdamWOptions, TrainState};

use super::tiny;

/// Updates of the run.
const STEPS: usize = 200;

#[test]
fn losses_of_200_updates_in_bf16_stay_within_one_per_cent_of_f32() {
    let config = VitMaeConfig {
        hidden_size: 64,
        intermediate_size: 128,
        decoder_hidden_size: 32,
        decoder_intermediate_size: 64,
        ..tiny::config()
    };
    let mut draws = Draws::new(21);
    // Smooth images, of which there is something to learn, and a mask of its own for each update.
    let wave = |image: usize, at: usize| {
        let (x, y) = (at % config.image_size.1, at / config.image_size.1);
        (0.4 * (x * (image % 3 + 1) + y * (image % 2 + 1)) as f32 + image as f32).sin()
    };
    let batch = 8;
    let count = config.num_channels * config.image_size.0 * config.image_size.1;
    let pixels: Vec<f32> = (0..batch * count).map(|i| wave(i / count, i % count)).collect();
    let pixels = tiny::tensor(&config, batch, &pixels);
    let maskings: Vec<_> = (0..STEPS).map(|_| tiny::masking(&config, batch, &mut draws)).collect();
    let run = |precision: Precision| {
        let mut model = VitMaeForPreTraining::new(config.clone(), &Device::cpu(), 3).unwrap();
        model.set_precision(precision);
        let mut state = TrainState::new(model, AdamWOptions::default()).unwrap();
        let step = |masking| state.train_step(&pixels, masking, 1e-3).unwrap().item().unwrap();
        maskings.iter().map(step).collect::<Vec<f32>>()
    };
    let (f32s, bf16s) = (run(Precision::F32), run(Precision::Bf16));
    assert_ne!(f32s, bf16s);
    assert!(f32s[STEPS - 1] < 0.5 * f32s[0], "{} to {}", f32s[0], f32s[STEPS - 1]);
    for (step, (a, b)) in f32s.iter().zip(&bf16s).enumerate() {
        assert!((a - b).abs() <= 0.01 * a, "update {step}: {a} and {b}");
    }
}

#[test]
fn features_in_8_bits_are_near_those_in_f32_until_a_weight_changes() {
    let config = VitMaeConfig {
        hidden_size: 192,
        num_attention_heads: 3,
        intermediate_size: 768,
        ..tiny::config()
    };
    let mut draws = Draws::new(22);
    let mut model = VitMaeForPreTraining::new(config.clone(), &Device::cpu(), 5).unwrap().vit;
    let pixels = tiny::tensor(&config, 4, &tiny::pixels(&config, 4, &mut draws));
    let features = |model: &VitMaeModel| model.encode(&pixels, false).unwrap().to_vec().unwrap();
    let exact = features(&model);
    model.quantise_weights().unwrap();
    let rounded = features(&model);
    let square = |values: &mut dyn Iterator<Item = f32>| -> f32 { values.map(|v| v * v).sum() };
    let error = square(&mut exact.iter().zip(&rounded).map(|(a, b)| a - b));
    let relative = (error / square(&mut exact.iter().copied())).sqrt();
    assert!(relative > 1e-4 && relative < 0.02, "{relative}");

    // What changed is used as it is: with every weight of the blocks set anew, nothing is in 8 bits.
    for linear in model.transformer.linears_mut() {
        let values = linear.weight.value.to_vec().unwrap();
        linear.weight.set(&values).unwrap();
    }
    assert_eq!(features(&model), exact);
}
