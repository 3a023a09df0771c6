use criterion::{Criterion, Throughput};
use vitmae_benches::Rate;
use vitmae_benches::gpu::Gpu;
use vitmae_kernels::{Dtype, convert};

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    let count = 8 * 197 * 2048;
    let (x, y) = (gpu.f32(count), gpu.act(count));
    let bytes = Throughput::BytesDecimal((count * (Dtype::F32.size() + gpu.dtype.size())) as u64);
    gpu.bench(criterion, "convert", "from f32", bytes, &y, || {
        convert::convert(&gpu.client, &x, &y);
    });
}
