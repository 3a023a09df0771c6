use criterion::Criterion;
use vitmae_benches::gpu::Gpu;
use vitmae_benches::{Rate, traffic};
use vitmae_kernels::ema::{self, Parameter};

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    // The weights of a block of ViT-B, and what the norms and biases of twelve blocks are.
    for (name, count, arrays) in [("7.1 M values", 12 * 768 * 768, 1), ("96 of 768", 768, 96)] {
        let state: Vec<_> = (0..arrays).map(|_| [(); 2].map(|()| gpu.f32(count))).collect();
        let scale = gpu.f32(1);
        let parameters: Vec<_> =
            state.iter().map(|[average, value]| Parameter { average, value }).collect();
        let work = traffic(3 * count * arrays);
        gpu.bench(criterion, "ema", name, work, &state[0][0], || {
            ema::step(&gpu.client, &parameters, &scale, 0.9999);
        });
    }
}
