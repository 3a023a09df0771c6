use criterion::Criterion;
use vitmae_benches::Rate;
use vitmae_benches::gpu::Gpu;
use vitmae_kernels::{Dropout, dropout};

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    let count = 8 * 50 * 768;
    let [x, y] = [(); 2].map(|()| gpu.act(count));
    let noise = Dropout { rate: 0.1, key: [1, 2] };
    gpu.bench(criterion, "dropout", "forward", gpu.traffic(2 * count), &y, || {
        dropout::forward(&gpu.client, &x, None, &noise, &y);
    });
    gpu.bench(criterion, "dropout", "drop path", gpu.traffic(2 * count), &y, || {
        dropout::drop_path(&gpu.client, &x, None, &noise, 8, &y);
    });
}
