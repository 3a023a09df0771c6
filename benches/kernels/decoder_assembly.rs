use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, traffic};
use vitmae_cpu::decoder_assembly::{self, Shape};
use vitmae_testing::draws::Draws;

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    let shape = Shape { batch: 8, patches: 196, kept: 49, width: 512 };
    let Shape { batch, patches, kept, width } = shape;
    let mut draws = Draws::new(1);
    let (visible, all) = (batch * (1 + kept) * width, batch * (1 + patches) * width);
    let (tokens, dout) = (draws.vec_f32(visible), draws.vec_f32(all));
    let (mask_token, positions) = (draws.vec_f32(width), draws.vec_f32((1 + patches) * width));
    let ids: Vec<u32> =
        (0..batch).flat_map(|_| draws.permutation(patches)).map(|id| id as u32).collect();
    let (mut out, mut dvisible) = (vec![0.0; all], vec![0.0; visible]);
    let (mut dmask_token, mut dpositions) = (vec![0.0; width], vec![0.0; (1 + patches) * width]);
    let removed = batch * (patches - kept) * width;
    add(criterion, "decoder_assembly", "forward", traffic(visible + all), || {
        decoder_assembly::forward(&tokens, &mask_token, &positions, &ids, shape, &mut out);
    });
    add(criterion, "decoder_assembly", "backward visible", traffic(2 * visible), || {
        decoder_assembly::backward_visible(&dout, &ids, shape, &mut dvisible);
    });
    add(criterion, "decoder_assembly", "backward mask token", traffic(removed), || {
        decoder_assembly::backward_mask_token(&dout, &ids, shape, &mut dmask_token, false);
    });
    add(criterion, "decoder_assembly", "backward positions", traffic(all), || {
        decoder_assembly::backward_positions(&dout, shape, &mut dpositions, false);
    });
}
