use criterion::Criterion;
use vitmae_benches::Rate;
use vitmae_benches::gpu::Gpu;
use vitmae_kernels::norm;

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    let (x, sum) = (gpu.act(12 * 768 * 768), gpu.f32(1));
    gpu.bench(criterion, "norm", "7.1 M values", gpu.traffic(x.len), &sum, || {
        norm::global_norm(&gpu.client, &[&x], &sum);
    });
}
