use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, bytes, narrow, traffic};
use vitmae_cpu::gather::{self, Shape};
use vitmae_cpu::values::Bf16;
use vitmae_testing::draws::Draws;

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    let shape = Shape { batch: 8, rows: 196, kept: 49, width: 768 };
    let Shape { batch, rows, kept, width } = shape;
    let mut draws = Draws::new(1);
    let x = draws.vec_f32(batch * rows * width);
    let ids: Vec<u32> = (0..batch)
        .flat_map(|_| draws.permutation(rows).into_iter().take(kept).collect::<Vec<_>>())
        .map(|id| id as u32)
        .collect();
    let chosen = batch * kept * width;
    let (mut y, mut dx) = (vec![0.0; chosen], vec![0.0; batch * rows * width]);
    add(criterion, "gather", "forward", traffic(2 * chosen), || {
        gather::forward(&x, &ids, shape, &mut y);
    });
    let dy = draws.vec_f32(chosen);
    add(criterion, "gather", "backward", traffic(chosen + batch * rows * width), || {
        gather::backward(&dy, &ids, shape, &mut dx);
    });
    let (x, dy) = (narrow(&x), narrow(&dy));
    let (mut y, mut dx) = (vec![Bf16::ZERO; chosen], vec![Bf16::ZERO; batch * rows * width]);
    add(criterion, "gather", "forward bf16", bytes(4 * chosen), || {
        gather::forward(&x, &ids, shape, &mut y);
    });
    let traffic = bytes(2 * (chosen + batch * rows * width));
    add(criterion, "gather", "backward bf16", traffic, || {
        gather::backward(&dy, &ids, shape, &mut dx);
    });
}
