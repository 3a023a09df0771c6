//! What holds for every call, whatever the weights.

use vitmae_model::{
    ForwardOptions, Interpolation, Masking, Numerics, TrainOptions, VitMaeConfig,
    VitMaeForPreTraining,
};
use vitmae_tensor::ops::{self, Precision};
use vitmae_tensor::{Device, Indices, Tensor};
use vitmae_testing::draws::Draws;

use super::tiny;

fn model(config: &VitMaeConfig) -> VitMaeForPreTraining {
    VitMaeForPreTraining::new(config.clone(), &Device::cpu(), 9).unwrap()
}

#[test]
fn outputs_have_their_shapes_and_are_there_when_asked_for() {
    let (config, mut draws) = (tiny::config(), Draws::new(1));
    let (model, masking) = (model(&config), tiny::masking(&config, 2, &mut draws));
    let pixels = tiny::tensor(&config, 2, &tiny::pixels(&config, 2, &mut draws));
    let plain = model.forward(&pixels, &masking, &ForwardOptions::default()).unwrap();
    assert!(plain.hidden_states.is_none() && plain.decoder_attentions.is_none());
    let options = ForwardOptions {
        output_hidden_states: true,
        output_attentions: true,
        ..ForwardOptions::default()
    };
    let full = model.forward(&pixels, &masking, &options).unwrap();
    assert_eq!(full.logits.to_vec().unwrap(), plain.logits.to_vec().unwrap());
    assert_eq!(full.logits.shape(), [2, 16, 12]);
    assert_eq!(full.last_hidden_state.shape(), [2, 5, 16]);
    let shapes = |tensors: Option<Vec<Tensor>>| -> Vec<Vec<usize>> {
        tensors.unwrap().iter().map(|t| t.shape().to_vec()).collect()
    };
    assert_eq!(shapes(full.hidden_states), vec![vec![2, 5, 16]; 3]);
    assert_eq!(shapes(full.attentions.clone()), vec![vec![2, 2, 5, 5]; 2]);
    assert_eq!(shapes(full.decoder_hidden_states), vec![vec![2, 17, 8]; 2]);
    assert_eq!(shapes(full.decoder_attentions), vec![vec![2, 2, 17, 17]; 1]);
    for row in full.attentions.unwrap()[0].to_vec().unwrap().chunks_exact(5) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }
}

#[test]
fn packed_weights_give_the_same_bits_and_follow_every_change() {
    let (config, mut draws) = (tiny::config(), Draws::new(6));
    let (plain, masking) = (model(&config), tiny::masking(&config, 2, &mut draws));
    let pixels = tiny::tensor(&config, 2, &tiny::pixels(&config, 2, &mut draws));
    let logits = |model: &VitMaeForPreTraining| {
        let output = model.forward(&pixels, &masking, &ForwardOptions::default()).unwrap();
        output.logits.to_vec().unwrap()
    };
    for precision in [Precision::F32, Precision::Bf16] {
        let (mut plain, mut packed) = (plain.clone(), plain.clone());
        plain.set_precision(precision);
        packed.set_precision(precision);
        packed.pack_weights().unwrap();
        assert_eq!(logits(&packed), logits(&plain));
        // A change of values, and one of precision, is seen although nobody packs again.
        for model in [&mut plain, &mut packed] {
            let weight = &mut model.decoder.prediction.weight.value;
            let halved: Vec<f32> = weight.to_vec().unwrap().iter().map(|w| 0.5 * w).collect();
            weight.set(&halved).unwrap();
        }
        assert_eq!(logits(&packed), logits(&plain));
        for precision in [Precision::Bf16, Precision::F32] {
            packed.set_precision(precision);
            plain.set_precision(precision);
            assert_eq!(logits(&packed), logits(&plain));
        }
    }
}

#[test]
fn encoding_keeps_the_grid_and_forward_shuffles_it() {
    let (config, mut draws) = (tiny::config(), Draws::new(2));
    let model = model(&config).vit;
    let pixels = tiny::tensor(&config, 2, &tiny::pixels(&config, 2, &mut draws));
    let grid = model.encode(&pixels, false).unwrap();
    let noise: Vec<f64> = (0..32).map(|_| draws.uniform()).collect();
    let masking = Masking::from_noise(&noise, 2, 16, 0.0).unwrap();
    let shuffled = model.forward(&pixels, &masking, &ForwardOptions::default()).unwrap();
    assert!(grid.to_vec().unwrap() != shuffled.last_hidden_state.to_vec().unwrap());
    // Class token first, then `ids_restore` finds the patches again.
    let rows: Vec<u32> = masking
        .ids_restore
        .chunks_exact(16)
        .flat_map(|row| std::iter::once(0).chain(row.iter().map(|id| id + 1)))
        .collect();
    let rows = Indices::from_slice(&Device::cpu(), &[2, 17], &rows).unwrap();
    let restored = ops::gather(&shuffled.last_hidden_state, &rows).unwrap();
    for (a, b) in restored.to_vec().unwrap().iter().zip(grid.to_vec().unwrap()) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn a_mask_says_the_same_as_the_noise_it_came_from() {
    let (config, mut draws) = (tiny::config(), Draws::new(4));
    let model = model(&config);
    let pixels = tiny::tensor(&config, 3, &tiny::pixels(&config, 3, &mut draws));
    let by_noise = tiny::masking(&config, 3, &mut draws);
    let removed: Vec<bool> = by_noise.mask.iter().map(|&m| m == 1.0).collect();
    let by_mask = Masking::from_mask(&removed, 3, 16).unwrap();
    let by_list = Masking::from_kept(&by_noise.ids_keep, 3, 16).unwrap();
    let run = |masking: &Masking| {
        let output = model.forward(&pixels, masking, &ForwardOptions::default()).unwrap();
        (output.loss.unwrap(), output.logits.to_vec().unwrap())
    };
    let (loss, logits) = run(&by_noise);
    assert_eq!((loss, logits.clone()), run(&by_list));
    let (other, others) = run(&by_mask);
    assert!((loss - other).abs() < 1e-5);
    assert!(logits.iter().zip(&others).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn a_batch_is_its_images_one_by_one() {
    let (config, mut draws) = (tiny::config(), Draws::new(5));
    let model = model(&config);
    let pixels = tiny::pixels(&config, 3, &mut draws);
    let masking = tiny::masking(&config, 3, &mut draws);
    let options = ForwardOptions::default();
    let all = model.forward(&tiny::tensor(&config, 3, &pixels), &masking, &options).unwrap();
    let all = all.logits.to_vec().unwrap();
    for image in 0..3 {
        let each = pixels.len() / 3;
        let one = tiny::tensor(&config, 1, &pixels[image * each..][..each]);
        let kept = &masking.ids_keep[image * masking.len_keep..][..masking.len_keep];
        let masking = Masking::from_kept(kept, 1, 16).unwrap();
        let logits = model.forward(&one, &masking, &options).unwrap().logits.to_vec().unwrap();
        assert_eq!(all[image * logits.len()..][..logits.len()], logits);
    }
}

#[test]
fn nothing_removed_is_no_loss_and_cannot_be_trained_on() {
    let (config, mut draws) = (tiny::config(), Draws::new(6));
    let mut model = model(&config);
    let pixels = tiny::tensor(&config, 1, &tiny::pixels(&config, 1, &mut draws));
    let masking = Masking::none(1, 16);
    let output = model.forward(&pixels, &masking, &ForwardOptions::default()).unwrap();
    assert!(output.loss.is_none() && output.logits.to_vec().unwrap().iter().all(|x| x.is_finite()));
    let error = model.forward_backward(&pixels, &masking, &Default::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "masking: no patch is removed, so there is no loss\nhelp: raise the mask ratio to remove at \
         least one of 16 patches"
    );
}

#[test]
fn images_that_do_not_fit_are_named() {
    let config = tiny::config();
    let model = model(&config);
    let message = |shape: &[usize], interpolate: bool| {
        let pixels = Tensor::zeros(&Device::cpu(), shape).unwrap();
        model.vit.encode(&pixels, interpolate).unwrap_err().to_string()
    };
    assert_eq!(
        message(&[1, 3, 12, 8], false),
        "model: images have 3 channels, expected 2 as `num_channels` says"
    );
    assert_eq!(
        message(&[1, 2, 12, 10], false),
        "model: images are 12 x 10 pixels (height x width), expected 12 x 8\nhelp: resize them, or \
         ask for `interpolate_pos_encoding`"
    );
    assert_eq!(
        message(&[1, 2, 13, 8], true),
        "model: image height 13 is not divisible by patch height 3"
    );
    assert_eq!(
        message(&[2, 12, 8], false),
        "model: `pixel_values` has shape [2, 12, 8], expected [B, C, H, W]"
    );
    let pixels = Tensor::zeros(&Device::cpu(), &[2, 2, 12, 8]).unwrap();
    let error =
        model.forward(&pixels, &Masking::none(2, 9), &ForwardOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "masking: it is for 2 images of 9 patches, expected 2 of 16");
}

#[test]
fn both_ways_of_resampling_run_and_the_record_decides_the_default() {
    let (mut config, mut draws) = (tiny::config(), Draws::new(7));
    let pixels = Tensor::from_vec(&Device::cpu(), &[1, 2, 18, 6], draws.vec_f32(216)).unwrap();
    let noise: Vec<f64> = (0..18).map(|_| draws.uniform()).collect();
    let masking = Masking::from_noise(&noise, 1, 18, 0.75).unwrap();
    let run = |config: &VitMaeConfig, way: Option<Interpolation>| {
        let options = ForwardOptions {
            interpolate_pos_encoding: true,
            interpolation: way,
            ..ForwardOptions::default()
        };
        model(config).forward(&pixels, &masking, &options).unwrap().logits.to_vec().unwrap()
    };
    let [hf1d, grid2d] =
        [Interpolation::Hf1d, Interpolation::Grid2d].map(|way| run(&config, Some(way)));
    assert_ne!(hf1d, grid2d);
    assert_eq!(run(&config, None), hf1d);
    config.extra.insert("vitmae_interpolation".into(), "grid2d".into());
    assert_eq!(run(&config, None), grid2d);
}

#[test]
fn recorded_numerics_are_the_default_of_loss_and_positions() {
    let (mut config, mut draws) = (tiny::config(), Draws::new(71));
    config.norm_pix_loss = true;
    let pixels = Tensor::from_vec(&Device::cpu(), &[1, 2, 18, 6], draws.vec_f32(216)).unwrap();
    let noise: Vec<f64> = (0..18).map(|_| draws.uniform()).collect();
    let masking = Masking::from_noise(&noise, 1, 18, 0.75).unwrap();
    let run = |config: &VitMaeConfig, numerics: Option<Numerics>| {
        let forward = ForwardOptions {
            interpolate_pos_encoding: true,
            numerics,
            ..ForwardOptions::default()
        };
        let mut model = model(config);
        let output = model.forward(&pixels, &masking, &forward).unwrap();
        let train = TrainOptions { forward, ..TrainOptions::default() };
        let trained = model.forward_backward(&pixels, &masking, &train).unwrap().item().unwrap();
        assert_eq!(output.loss, Some(trained));
        (trained, output.logits.to_vec().unwrap())
    };
    let [torch, tf] = [Numerics::Torch, Numerics::Tf].map(|whose| run(&config, Some(whose)));
    assert!(torch.0 != tf.0 && torch.1 != tf.1);
    assert_eq!(run(&config, None), torch);
    config.extra.insert("vitmae_numerics".into(), "tf".into());
    assert_eq!(run(&config, None), tf);
    assert_eq!(run(&config, Some(Numerics::Torch)), torch);
}

#[test]
fn threads_do_not_change_a_bit_of_a_training_step() {
    let (config, mut draws) = (tiny::config(), Draws::new(8));
    let pixels = tiny::pixels(&config, 5, &mut draws);
    let masking = tiny::masking(&config, 5, &mut draws);
    let step = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut model = model(&config);
            let pixels = tiny::tensor(&config, 5, &pixels);
            let loss = model.forward_backward(&pixels, &masking, &Default::default()).unwrap();
            let gradients: Vec<Vec<f32>> = model
                .parameters()
                .iter()
                .filter_map(|p| Some(p.grad.as_ref()?.to_vec().unwrap()))
                .collect();
            (loss.item().unwrap(), gradients)
        })
    };
    let one = step(1);
    for threads in [2, 3, 8] {
        assert_eq!(step(threads), one, "{threads} threads");
    }
}

#[test]
fn computing_blocks_again_changes_no_bit() {
    // With dropout, whose noise must be the same both times.
    let config = VitMaeConfig { hidden_dropout_prob: 0.2, ..tiny::config() };
    let mut draws = Draws::new(9);
    let pixels = tiny::tensor(&config, 3, &tiny::pixels(&config, 3, &mut draws));
    let masking = tiny::masking(&config, 3, &mut draws);
    let [kept, again] = [false, true].map(|recompute| {
        let mut model = model(&config);
        let options =
            TrainOptions { recompute, dropout_seed: 4, drop_path: 0.4, ..TrainOptions::default() };
        let loss = model.forward_backward(&pixels, &masking, &options).unwrap();
        let gradients = model.parameters().into_iter().filter_map(|p| p.grad.as_ref());
        let gradients: Vec<Vec<f32>> = gradients.map(|g| g.to_vec().unwrap()).collect();
        (loss.item().unwrap(), gradients)
    });
    assert_eq!(kept, again);
}
