use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, traffic};
use vitmae_cpu::adamw::{self, Settings};
use vitmae_testing::draws::Draws;

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    // One block of ViT-B.
    let count = 12 * 768 * 768;
    let mut draws = Draws::new(1);
    let (mut value, gradient) = (draws.vec_f32(count), draws.vec_f32(count));
    let (mut m, mut v) = (vec![0.0; count], vec![1.0; count]);
    let settings =
        Settings { lr: 1e-4, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.05, step: 10 };
    add(criterion, "adamw", "7.1 M values", traffic(7 * count), || {
        adamw::step(&mut value, &gradient, &mut m, &mut v, 1.0, &settings);
    });
}
