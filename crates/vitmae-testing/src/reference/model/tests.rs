use super::*;
use crate::close::{Tolerance, assert_close};
use crate::draws::Draws;
use crate::gradient_check::assert_gradient;
use crate::reference::masking;

fn config() -> Config {
    let images = patches::Shape {
        batch: 0,
        channels: 2,
        height: 6,
        width: 4,
        patch_height: 3,
        patch_width: 2,
    };
    Config {
        images,
        encoder: Stack { width: 8, layers: 2, heads: 2, intermediate: 12 },
        decoder: Stack { width: 4, layers: 1, heads: 1, intermediate: 8 },
        activation: Activation::Gelu,
        qkv_bias: true,
        layer_norm_eps: 1e-6,
        target: Target::Normalised,
        distance: Distance::Squared,
    }
}

fn parameters(config: &Config, draws: &mut Draws) -> Parameters {
    let count = |shape: &[usize]| shape.iter().product::<usize>();
    let shapes = parameter_shapes(config);
    shapes.into_iter().map(|(name, shape)| (name, draws.vec(count(&shape)))).collect()
}

#[test]
fn the_base_model_has_the_published_number_of_parameters() {
    let images = patches::Shape {
        batch: 0,
        channels: 3,
        height: 224,
        width: 224,
        patch_height: 16,
        patch_width: 16,
    };
    let base = Config {
        images,
        encoder: Stack { width: 768, layers: 12, heads: 12, intermediate: 3072 },
        decoder: Stack { width: 512, layers: 8, heads: 16, intermediate: 2048 },
        ..config()
    };
    let total: usize =
        parameter_shapes(&base).iter().map(|(_, s)| s.iter().product::<usize>()).sum();
    assert_eq!(total, 111_907_840);
}

#[test]
fn the_order_of_kept_patches_does_not_matter() {
    // Attention knows no order but that of the positions: the same set kept in another order gives the
    // same prediction and the same tokens in that order.
    let (config, mut draws) = (config(), Draws::new(30));
    let p = parameters(&config, &mut draws);
    let pixels = draws.vec(2 * 6 * 4);
    let one = masking::from_noise(&[0.1, 0.2, 0.8, 0.9], 1, 4, 0.5);
    let two = masking::from_noise(&[0.2, 0.1, 0.9, 0.8], 1, 4, 0.5);
    assert_eq!((one.ids_keep.as_slice(), two.ids_keep.as_slice()), (&[0, 1][..], &[1, 0][..]));
    let (a, b) = (pretraining(&config, &p, &pixels, &one), pretraining(&config, &p, &pixels, &two));
    assert_close("logits", &a.logits, &b.logits, Tolerance::new(1e-11, 1e-11));
    let row = |output: &Output, n: usize| output.encoder.last_hidden_state[n * 8..][..8].to_vec();
    assert_close("tokens", &row(&a, 1), &row(&b, 2), Tolerance::new(1e-11, 1e-11));
}

#[test]
fn removed_pixels_do_not_reach_the_prediction() {
    let (config, mut draws) = (config(), Draws::new(31));
    let p = parameters(&config, &mut draws);
    let mut pixels = draws.vec(2 * 6 * 4);
    let masking = masking::from_noise(&[0.1, 0.2, 0.8, 0.9], 1, 4, 0.5);
    let before = pretraining(&config, &p, &pixels, &masking);
    pixels[3 * 4] += 1.0; // row 3, column 0 lies in patch 2, which is removed
    let after = pretraining(&config, &p, &pixels, &masking);
    assert_eq!(before.logits, after.logits);
    assert_ne!(before.loss, after.loss);
    pixels[0] += 1.0; // patch 0 is kept
    assert_ne!(pretraining(&config, &p, &pixels, &masking).logits, before.logits);
}

#[test]
fn outputs_have_the_shapes_of_the_specification() {
    let config = Config { qkv_bias: false, ..config() };
    let mut draws = Draws::new(32);
    let p = parameters(&config, &mut draws);
    assert!(!p.contains_key("vit.blocks.0.attention.qkv.bias"));
    let masking = masking::from_noise(&draws.vec(3 * 4), 3, 4, 0.5);
    let out = pretraining(&config, &p, &draws.vec(3 * 48), &masking);
    assert_eq!(out.logits.len(), 3 * 4 * 12);
    assert_eq!(out.encoder.last_hidden_state.len(), 3 * 3 * 8);
    assert_eq!((out.encoder.hidden_states.len(), out.encoder.attentions.len()), (3, 2));
    assert_eq!((out.decoder_hidden_states.len(), out.decoder_attentions.len()), (2, 1));
    assert_eq!(out.decoder_attentions[0].len(), 3 * 5 * 5);
    assert!(out.loss.is_finite());
}

#[test]
fn the_gradient_of_the_last_layer_follows_from_that_of_the_loss() {
    let (config, mut draws) = (config(), Draws::new(33));
    let p = parameters(&config, &mut draws);
    let pixels = draws.vec(2 * 48);
    let masking = masking::from_noise(&draws.vec(8), 2, 4, 0.5);
    let out = pretraining(&config, &p, &pixels, &masking);
    let images = patches::Shape { batch: 2, ..config.images };
    let patches = patches::patchify(&pixels, images);
    let dlogits =
        loss::backward(&out.logits, &patches, &masking.mask, (config.target, config.distance));
    let name = "decoder.prediction.bias";
    let objective = |bias: &[f64]| {
        let mut p = p.clone();
        p.insert(name.to_owned(), bias.to_vec());
        pretraining(&config, &p, &pixels, &masking).loss
    };
    assert_gradient(name, objective, &p[name], &reduce::sum_columns(&dlogits, 12));
}

#[test]
fn the_heads_read_different_tokens() {
    let (config, mut draws) = (config(), Draws::new(34));
    let mut p = parameters(&config, &mut draws);
    for (name, count) in [("classifier.weight", 24), ("classifier.bias", 3)] {
        p.insert(name.to_owned(), draws.vec(count));
    }
    for name in ["fc_norm.weight", "fc_norm.bias"] {
        p.insert(name.to_owned(), draws.vec(8));
    }
    let pixels = draws.vec(2 * 48);
    let cls = classify(&config, &p, &pixels, 2, Head::Cls);
    let mean = classify(&config, &p, &pixels, 2, Head::MeanFcNorm);
    assert_eq!((cls.len(), mean.len()), (6, 6));
    assert_ne!(cls, mean);
    // An image gives the same scores alone and in a batch.
    let alone = classify(&config, &p, &pixels[48..], 1, Head::Cls);
    assert_close("alone", &alone, &cls[3..], Tolerance::new(1e-12, 0.0));
}
