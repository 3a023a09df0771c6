//! The classifier in training.

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
