use criterion::Criterion;
use vitmae_benches::Rate;
use vitmae_benches::gpu::Gpu;
use vitmae_kernels::encoder_assembly::{self, Shape};

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    const NAME: &str = "encoder_assembly";
    let shape = Shape { batch: 8, patches: 196, kept: 49, width: 768 };
    let Shape { batch, patches, kept, width } = shape;
    let count = batch * (1 + kept) * width;
    let [tokens, dtokens] = [(); 2].map(|()| gpu.act(batch * kept * width));
    let [out, dout] = [(); 2].map(|()| gpu.act(count));
    let (cls, positions) = (gpu.f32(width), gpu.f32((1 + patches) * width));
    let (client, ids) = (&gpu.client, gpu.ids(batch, patches, kept));
    gpu.bench(criterion, NAME, "forward", gpu.traffic(2 * count), &out, || {
        encoder_assembly::forward(client, &tokens, &cls, &positions, &ids, shape, &out);
    });
    gpu.bench(criterion, NAME, "backward tokens", gpu.traffic(2 * count), &dtokens, || {
        encoder_assembly::backward_tokens(client, &dout, shape, &dtokens);
    });
}
