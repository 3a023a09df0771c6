use criterion::Criterion;
use vitmae_benches::gpu::Gpu;
use vitmae_benches::{Rate, traffic};
use vitmae_kernels::adamw::{self, Parameter, Settings};

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    // The weights of a block of ViT-B, and what the norms and biases of twelve blocks are.
    for (name, count, arrays) in [("7.1 M values", 12 * 768 * 768, 1), ("96 of 768", 768, 96)] {
        let state: Vec<_> = (0..arrays).map(|_| [(); 4].map(|()| gpu.f32(count))).collect();
        let scale = gpu.f32(1);
        let settings =
            Settings { lr: 1e-4, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.05, step: 10 };
        let parameters: Vec<_> = state
            .iter()
            .map(|[value, gradient, m, v]| Parameter { value, gradient, m, v, settings })
            .collect();
        let work = traffic(7 * count * arrays);
        gpu.bench(criterion, "adamw", name, work, &state[0][0], || {
            adamw::step(&gpu.client, &parameters, &scale);
        });
    }
}
