use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, traffic};
use vitmae_cpu::gather::{self, Shape};
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
}
