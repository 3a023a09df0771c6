use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, traffic};
use vitmae_cpu::dropout::{self, Dropout};
use vitmae_cpu::random::Stream;
use vitmae_testing::draws::Draws;

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    let count = 8 * 50 * 768;
    let x = Draws::new(1).vec_f32(count);
    let mut y = vec![0.0; count];
    let noise = Dropout { rate: 0.1, stream: Stream::new(0, "bench", 0, 0) };
    add(criterion, "dropout", "forward", traffic(2 * count), || {
        dropout::forward(&x, None, &noise, &mut y);
    });
    add(criterion, "dropout", "drop path", traffic(2 * count), || {
        dropout::drop_path(&x, None, &noise, 8, &mut y);
    });
}
