use criterion::Criterion;
use vitmae_benches::Rate;
use vitmae_benches::gpu::Gpu;
use vitmae_kernels::activation::{self, Activation};

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    // The hidden layer of the encoder's MLP.
    let (rows, width) = (8 * 50, 3072);
    let count = rows * width;
    let [x, dy, out] = [(); 3].map(|()| gpu.act(count));
    let gelu = Activation::Gelu;
    gpu.bench(criterion, "activation", "gelu forward", gpu.traffic(2 * count), &out, || {
        activation::forward(&gpu.client, gelu, &x, &out);
    });
    gpu.bench(criterion, "activation", "gelu backward", gpu.traffic(3 * count), &out, || {
        activation::backward(&gpu.client, gelu, &x, &dy, &out);
    });
    let bias = gpu.f32(width);
    gpu.bench(criterion, "activation", "bias and gelu", gpu.traffic(3 * count), &out, || {
        activation::bias_activation(&gpu.client, &x, Some(&bias), gelu, None, Some(&dy), &out);
    });
}
