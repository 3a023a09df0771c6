use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, traffic};
use vitmae_cpu::norm;
use vitmae_testing::draws::Draws;

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    let x = Draws::new(1).vec_f32(12 * 768 * 768);
    add(criterion, "norm", "7.1 M values", traffic(x.len()), || {
        std::hint::black_box(norm::norm(&x));
    });
}
