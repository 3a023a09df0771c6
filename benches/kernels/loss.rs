use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, traffic};
use vitmae_cpu::loss::{self, Distance, Objective, Target};
use vitmae_testing::draws::Draws;

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    let (rows, dim) = (8 * 196, 768);
    let mut draws = Draws::new(1);
    let (pred, patches) = (draws.vec_f32(rows * dim), draws.vec_f32(rows * dim));
    let mask: Vec<f32> = (0..rows).map(|row| f32::from(u8::from(row % 4 > 0))).collect();
    let mut dpred = vec![0.0; rows * dim];
    let removed = rows * dim * 3 / 4;
    for (name, target) in [("pixels", Target::Pixels), ("normalised", Target::Normalised)] {
        let objective = Objective { target, distance: Distance::Squared };
        add(criterion, "loss", &format!("{name} forward"), traffic(2 * removed), || {
            std::hint::black_box(loss::forward(&pred, &patches, &mask, objective));
        });
        let values = 2 * removed + rows * dim;
        add(criterion, "loss", &format!("{name} backward"), traffic(values), || {
            loss::backward(&pred, &patches, &mask, objective, 1.0, &mut dpred);
        });
    }
}
