use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, traffic};
use vitmae_cpu::encoder_assembly::{self, Shape};
use vitmae_testing::draws::Draws;

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    let shape = Shape { batch: 8, patches: 196, kept: 49, width: 768 };
    let Shape { batch, patches, kept, width } = shape;
    let mut draws = Draws::new(1);
    let (tokens, cls) = (draws.vec_f32(batch * kept * width), draws.vec_f32(width));
    let positions = draws.vec_f32((1 + patches) * width);
    let ids: Vec<u32> = (0..batch)
        .flat_map(|_| draws.permutation(patches).into_iter().take(kept).collect::<Vec<_>>())
        .map(|id| id as u32)
        .collect();
    let count = batch * (1 + kept) * width;
    let (mut out, mut dtokens) = (vec![0.0; count], vec![0.0; batch * kept * width]);
    let dout = draws.vec_f32(count);
    add(criterion, "encoder_assembly", "forward", traffic(2 * count), || {
        encoder_assembly::forward(&tokens, &cls, &positions, &ids, shape, &mut out);
    });
    add(criterion, "encoder_assembly", "backward tokens", traffic(2 * count), || {
        encoder_assembly::backward_tokens(&dout, shape, &mut dtokens);
    });
}
