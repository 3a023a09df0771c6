//! The classifier in training.

use vitmae_layers::Param;
use vitmae_model::{Head, Labels, TrainOptions, VitForImageClassification, VitMaeConfig};
use vitmae_tensor::Device;
use vitmae_testing::draws::Draws;

use super::tiny;

#[test]
fn dropout_follows_the_embeddings_on_both_ways() {
    let config = VitMaeConfig { hidden_dropout_prob: 0.5, ..tiny::config() };
    let pixels = tiny::tensor(&config, 1, &tiny::pixels(&config, 1, &mut Draws::new(3)));
    let mut model =
        VitForImageClassification::new(config.clone(), Head::Cls, &Device::cpu(), 1).unwrap();
    let options = TrainOptions { dropout_seed: 9, ..TrainOptions::default() };
    let loss = |model: &mut VitForImageClassification, options: &TrainOptions| {
        let labels = Labels::Classes(&[1]);
        model.forward_backward(&pixels, labels, options).unwrap().item().unwrap()
    };
    loss(&mut model, &options);
    let gradient = model.vit.cls_token.grad.clone().unwrap().to_vec().unwrap();
    // What the embeddings dropped gives no gradient; without a drop of theirs none would be exactly 0.
    let dropped = gradient.iter().filter(|&&slope| slope == 0.0).count();
    assert!((3..=13).contains(&dropped), "{dropped} of 16 dropped");

    let values = model.vit.cls_token.value.to_vec().unwrap();
    for (place, &slope) in gradient.iter().enumerate() {
        let [above, below] = [5e-4f32, -5e-4].map(|step| {
            let mut moved = values.clone();
            moved[place] += step;
            model.vit.cls_token.set(&moved).unwrap();
            loss(&mut model, &options)
        });
        let numeric = (above - below) / 1e-3;
        assert!(
            (numeric - slope).abs() < 2e-3 + 0.02 * slope.abs(),
            "[{place}]: {slope}, by differences {numeric}"
        );
    }

    model.vit.cls_token.set(&values).unwrap();
    model.zero_grad();
    loss(&mut model, &TrainOptions { dropout: false, ..options });
    let gradient = model.vit.cls_token.grad.clone().unwrap().to_vec().unwrap();
    assert!(gradient.iter().all(|&slope| slope != 0.0));
}

#[test]
fn drop_path_leaves_out_whole_branches_and_has_their_gradient() {
    let config = tiny::config();
    let pixels = tiny::tensor(&config, 6, &tiny::pixels(&config, 6, &mut Draws::new(4)));
    let mut model =
        VitForImageClassification::new(config, Head::MeanFcNorm, &Device::cpu(), 2).unwrap();
    let labels = [0i64, 1, 0, 1, 1, 0];
    let loss = |model: &mut VitForImageClassification, seed: u64, drop_path: f64| {
        let options = TrainOptions { dropout_seed: seed, drop_path, ..TrainOptions::default() };
        let loss = model.forward_backward(&pixels, Labels::Classes(&labels), &options);
        loss.unwrap().item().unwrap()
    };
    // The last block's branches are left out at the highest rate, the first one's never.
    assert_ne!(loss(&mut model, 1, 0.5), loss(&mut model, 2, 0.5));
    assert_eq!(loss(&mut model, 1, 0.0), loss(&mut model, 2, 0.0));
    model.zero_grad();
    loss(&mut model, 1, 0.5);
    let of = |param: &&Param| {
        let gradient = param.grad.as_ref()?.to_vec().unwrap();
        Some((param.name.clone(), gradient, param.value.to_vec().unwrap()))
    };
    // Before further passes add to the gradients.
    let all: Vec<_> = model.parameters().iter().map(of).collect();
    for (index, param) in all.into_iter().enumerate() {
        let Some((name, gradient, values)) = param.filter(|p| p.0.ends_with("weight")) else {
            continue;
        };
        // The steepest value of each weight.
        let place = (0..gradient.len())
            .max_by(|&a, &b| gradient[a].abs().total_cmp(&gradient[b].abs()))
            .unwrap();
        let [above, below] = [2e-3f32, -2e-3].map(|step| {
            let mut moved = values.clone();
            moved[place] += step;
            model.parameters_mut()[index].set(&moved).unwrap();
            loss(&mut model, 1, 0.5)
        });
        model.parameters_mut()[index].set(&values).unwrap();
        let (slope, numeric) = (gradient[place], (above - below) / 4e-3);
        assert!(
            (numeric - slope).abs() < 3e-4 + 0.02 * slope.abs(),
            "{name}[{place}]: {slope}, by differences {numeric}"
        );
    }
}
