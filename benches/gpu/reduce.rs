use criterion::Criterion;
use vitmae_benches::Rate;
use vitmae_benches::gpu::Gpu;
use vitmae_kernels::reduce;

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    let (rows, width) = (8 * 197, 2048);
    let count = rows * width;
    let [a, b, out] = [(); 3].map(|()| gpu.act(count));
    let sums = gpu.f32(width);
    gpu.bench(criterion, "reduce", "sum of rows", gpu.traffic(count), &sums, || {
        reduce::sum_rows(&gpu.client, &a, &sums, false);
    });
    gpu.bench(criterion, "reduce", "add", gpu.traffic(3 * count), &out, || {
        reduce::add(&gpu.client, &a, &b, &out);
    });
}
