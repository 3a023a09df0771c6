use criterion::Criterion;
use vitmae_benches::gpu::Gpu;
use vitmae_benches::{Rate, traffic};
use vitmae_kernels::interpolation::{self, Kernel};

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    let (from, to, width) = ((14, 14), (16, 16), 768);
    let (table, out) = (gpu.f32(14 * 14 * width), gpu.f32(16 * 16 * width));
    let work = traffic((14 * 14 + 16 * 16) * width);
    gpu.bench(criterion, "interpolation", "14 x 14 to 16 x 16", work, &out, || {
        interpolation::forward(&gpu.client, &table, from, to, width, Kernel::Torch, &out);
    });
}
