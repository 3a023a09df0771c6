use criterion::Criterion;
use vitmae_benches::gpu::Gpu;
use vitmae_benches::{Rate, flop};
use vitmae_kernels::linear::{self, Epilogue, Shape};

/// Rows, inputs and outputs of a linear layer.
const LAYERS: [(&str, [usize; 3]); 7] = [
    ("encoder qkv", [400, 768, 2304]),
    ("encoder fc1", [400, 768, 3072]),
    ("encoder fc2", [400, 3072, 768]),
    ("decoder qkv", [1576, 512, 1536]),
    ("decoder fc1", [1576, 512, 2048]),
    ("decoder fc2", [1576, 2048, 512]),
    ("encoder fc1, one image", [50, 768, 3072]),
];

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    for (name, [rows, inputs, outputs]) in LAYERS {
        let (client, shape) = (&gpu.client, Shape { rows, inputs, outputs });
        let [x, dx] = [(); 2].map(|()| gpu.act(rows * inputs));
        let [y, dy] = [(); 2].map(|()| gpu.act(rows * outputs));
        let [weight, dweight] = [(); 2].map(|()| gpu.f32(outputs * inputs));
        let bias = gpu.f32(outputs);
        let work = flop(2 * rows * inputs * outputs);
        gpu.bench(criterion, "gemm", &format!("{name} forward"), work.clone(), &y, || {
            let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
            linear::forward(client, &x, &weight, epilogue, shape, &y);
        });
        gpu.bench(criterion, "gemm", &format!("{name} backward input"), work.clone(), &dx, || {
            linear::backward_input(client, &dy, &weight, shape, &dx);
        });
        gpu.bench(criterion, "gemm", &format!("{name} backward weight"), work, &dweight, || {
            linear::backward_weight(client, &dy, &x, shape, &dweight, false);
        });
    }
}
