use criterion::Criterion;
use vitmae_benches::Rate;
use vitmae_benches::gpu::Gpu;
use vitmae_kernels::cross_entropy;

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    let (rows, classes) = (64, 1000);
    let labels: Vec<i64> = (0..rows as i64).collect();
    let [logits, dlogits] = [(); 2].map(|()| gpu.act(rows * classes));
    let loss = gpu.f32(1);
    let count = rows * classes;
    gpu.bench(criterion, "cross_entropy", "forward", gpu.traffic(count), &loss, || {
        cross_entropy::forward(&gpu.client, &logits, &labels, 0.1, &loss);
    });
    gpu.bench(criterion, "cross_entropy", "backward", gpu.traffic(2 * count), &dlogits, || {
        cross_entropy::backward(&gpu.client, &logits, &labels, 0.1, 1.0, &dlogits);
    });
}
