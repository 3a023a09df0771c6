use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, traffic};
use vitmae_cpu::ema;
use vitmae_testing::draws::Draws;

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    // One block of ViT-B.
    let count = 12 * 768 * 768;
    let mut draws = Draws::new(1);
    let (mut average, value) = (draws.vec_f32(count), draws.vec_f32(count));
    add(criterion, "ema", "7.1 M values", traffic(3 * count), || {
        ema::step(&mut average, &value, 1.0, 0.9999);
    });
}
