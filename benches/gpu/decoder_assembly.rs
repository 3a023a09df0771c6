use criterion::Criterion;
use vitmae_benches::Rate;
use vitmae_benches::gpu::Gpu;
use vitmae_kernels::decoder_assembly::{self, Shape};

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    const NAME: &str = "decoder_assembly";
    let shape = Shape { batch: 8, patches: 196, kept: 49, width: 512 };
    let Shape { batch, patches, kept, width } = shape;
    let (visible, all) = (batch * (1 + kept) * width, batch * (1 + patches) * width);
    let [tokens, dvisible] = [(); 2].map(|()| gpu.act(visible));
    let [out, dout] = [(); 2].map(|()| gpu.act(all));
    let (mask_token, positions) = (gpu.f32(width), gpu.f32((1 + patches) * width));
    let ids = gpu.ids(batch, patches, patches);
    let (client, removed) = (&gpu.client, batch * (patches - kept) * width);
    gpu.bench(criterion, NAME, "forward", gpu.traffic(visible + all), &out, || {
        decoder_assembly::forward(client, &tokens, &mask_token, &positions, &ids, shape, &out);
    });
    gpu.bench(criterion, NAME, "backward visible", gpu.traffic(2 * visible), &dvisible, || {
        decoder_assembly::backward_visible(client, &dout, &ids, shape, &dvisible);
    });
    let case = "backward mask token";
    gpu.bench(criterion, NAME, case, gpu.traffic(removed), &mask_token, || {
        decoder_assembly::backward_mask_token(client, &dout, &ids, shape, &mask_token, false);
    });
    gpu.bench(criterion, NAME, "backward positions", gpu.traffic(all), &positions, || {
        decoder_assembly::backward_positions(client, &dout, shape, &positions, false);
    });
}
