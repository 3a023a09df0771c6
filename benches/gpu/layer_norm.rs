use criterion::Criterion;
use vitmae_benches::Rate;
use vitmae_benches::gpu::Gpu;
use vitmae_kernels::layer_norm;

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    for (name, rows, width) in [("encoder", 8 * 50, 768), ("decoder", 8 * 197, 512)] {
        let (client, count) = (&gpu.client, rows * width);
        let [x, y, dx, dy] = [(); 4].map(|()| gpu.act(count));
        let [weight, bias, dweight, dbias] = [(); 4].map(|()| gpu.f32(width));
        let [mean, rstd] = [(); 2].map(|()| gpu.f32(rows));
        let work = gpu.traffic(2 * count);
        gpu.bench(criterion, "layer_norm", &format!("{name} forward"), work, &y, || {
            layer_norm::forward(client, &x, &weight, &bias, 1e-12, &y, &mean, &rstd);
        });
        let [product, residual] = [(); 2].map(|()| gpu.act(count));
        let (work, fused) = (gpu.traffic(4 * count), format!("{name} forward of a sum"));
        gpu.bench(criterion, "layer_norm", &fused, work, &y, || {
            let added = layer_norm::Residual { shift: &bias, residual: &residual };
            layer_norm::forward_residual(
                client, &product, added, &weight, &bias, 1e-12, &x, &y, &mean, &rstd,
            );
        });
        let work = gpu.traffic(3 * count);
        gpu.bench(criterion, "layer_norm", &format!("{name} backward"), work, &dx, || {
            let (dw, db) = (&dweight, &dbias);
            layer_norm::backward(client, &dy, &x, &weight, &mean, &rstd, None, &dx, dw, db, false);
        });
    }
}
