use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, bytes, narrow, traffic};
use vitmae_cpu::reduce;
use vitmae_testing::draws::Draws;

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    let (rows, width) = (8 * 197, 2048);
    let mut draws = Draws::new(1);
    let (a, b) = (draws.vec_f32(rows * width), draws.vec_f32(rows * width));
    let (mut sums, mut out) = (vec![0.0; width], vec![0.0; rows * width]);
    add(criterion, "reduce", "sum of rows", traffic(rows * width), || {
        reduce::sum_rows(&a, &mut sums, false);
    });
    let narrow_a = narrow(&a);
    add(criterion, "reduce", "sum of rows bf16", bytes(2 * rows * width), || {
        reduce::sum_rows(&narrow_a, &mut sums, false);
    });
    add(criterion, "reduce", "add", traffic(3 * rows * width), || reduce::add(&a, &b, &mut out));
}
