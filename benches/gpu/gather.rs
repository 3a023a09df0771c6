use criterion::Criterion;
use vitmae_benches::Rate;
use vitmae_benches::gpu::Gpu;
use vitmae_kernels::gather::{self, Shape};

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    let shape = Shape { batch: 8, rows: 196, kept: 49, width: 768 };
    let Shape { batch, rows, kept, width } = shape;
    let (all, chosen) = (batch * rows * width, batch * kept * width);
    let (x, y, ids) = (gpu.act(all), gpu.act(chosen), gpu.ids(batch, rows, kept));
    gpu.bench(criterion, "gather", "forward", gpu.traffic(2 * chosen), &y, || {
        gather::forward(&gpu.client, &x, &ids, shape, &y);
    });
    gpu.bench(criterion, "gather", "backward", gpu.traffic(chosen + all), &x, || {
        gather::backward(&gpu.client, &y, &ids, shape, &x);
    });
}
