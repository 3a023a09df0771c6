use criterion::Criterion;
use vitmae_benches::gpu::Gpu;
use vitmae_benches::{Rate, traffic};
use vitmae_kernels::adamw::{self, Parameter, Settings};

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    // One block of ViT-B.
    let count = 12 * 768 * 768;
    let [value, gradient, m, v] = [(); 4].map(|()| gpu.f32(count));
    let scale = gpu.f32(1);
    let settings =
        Settings { lr: 1e-4, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.05, step: 10 };
    let parameter = Parameter { value: &value, gradient: &gradient, m: &m, v: &v, settings };
    gpu.bench(criterion, "adamw", "7.1 M values", traffic(7 * count), &value, || {
        adamw::step(&gpu.client, &[parameter], &scale);
    });
}
