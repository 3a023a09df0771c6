//! A new model tells removed patches apart, at once and after 50 updates. transformers' own models made
//! from scratch do not: their decoder's position table is zero and frozen, so every removed patch of an
//! image gets the same prediction for ever.

use vitmae_model::{ForwardOptions, VitMaeForPreTraining};
use vitmae_tensor::Device;
use vitmae_testing::draws::Draws;
use vitmae_trainer::{AdamWOptions, TrainState};

use super::tiny;

/// The largest standard deviation of one predicted value between the removed patches of an image.
fn spread(model: &VitMaeForPreTraining, draws: &mut Draws) -> f64 {
    let config = &model.config;
    let pixels = tiny::tensor(config, 1, &tiny::pixels(config, 1, draws));
    let masking = tiny::masking(config, 1, draws);
    let output = model.forward(&pixels, &masking, &ForwardOptions::default()).unwrap();
    let (logits, width) = (output.logits.to_vec().unwrap(), config.patch_dim());
    let removed: Vec<&[f32]> = logits
        .chunks_exact(width)
        .zip(&output.mask)
        .filter(|(_, mask)| **mask == 1.0)
        .map(|(patch, _)| patch)
        .collect();
    let deviation = |at: usize| {
        let values = || removed.iter().map(|patch| f64::from(patch[at]));
        let mean = values().sum::<f64>() / removed.len() as f64;
        (values().map(|x| (x - mean).powi(2)).sum::<f64>() / removed.len() as f64).sqrt()
    };
    (0..width).map(deviation).fold(0.0, f64::max)
}

#[test]
fn removed_patches_are_told_apart_at_the_start_and_after_50_updates() {
    let (config, mut draws) = (tiny::config(), Draws::new(3));
    let model = VitMaeForPreTraining::new(config.clone(), &Device::cpu(), 1).unwrap();
    assert!(spread(&model, &mut draws) > 0.05);
    let mut state = TrainState::new(model, AdamWOptions::default()).unwrap();
    for _ in 0..50 {
        let pixels = tiny::tensor(&config, 4, &tiny::pixels(&config, 4, &mut draws));
        let masking = tiny::masking(&config, 4, &mut draws);
        state.train_step(&pixels, &masking, 1e-3).unwrap();
    }
    assert!(spread(&state.model, &mut draws) > 0.01);
}

#[test]
fn a_zero_position_table_makes_removed_patches_alike() {
    // The fault itself, so that the measure above is known to see it.
    let (config, mut draws) = (tiny::config(), Draws::new(3));
    let mut model = VitMaeForPreTraining::new(config, &Device::cpu(), 1).unwrap();
    let table = &mut model.decoder.position_embeddings;
    let zeros = vec![0.0; table.value.len()];
    table.set(&zeros).unwrap();
    assert!(spread(&model, &mut draws) < 1e-6);
}
