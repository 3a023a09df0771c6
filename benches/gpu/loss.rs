use criterion::Criterion;
use vitmae_benches::Rate;
use vitmae_benches::gpu::Gpu;
use vitmae_kernels::Array;
use vitmae_kernels::loss::{self, Distance, Objective, Target};

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    let (client, rows, dim) = (&gpu.client, 8 * 196, 768);
    let [pred, dpred] = [(); 2].map(|()| gpu.act(rows * dim));
    let (patches, loss) = (gpu.f32(rows * dim), gpu.f32(1));
    let mask: Vec<f32> = (0..rows).map(|row| f32::from(u8::from(row % 4 > 0))).collect();
    let mask = Array::from_f32(client, &mask);
    let removed = rows * dim * 3 / 4;
    for (name, target) in [("pixels", Target::Pixels), ("normalised", Target::Normalised)] {
        let objective = Objective { target, distance: Distance::Squared };
        let work = gpu.traffic(2 * removed);
        gpu.bench(criterion, "loss", &format!("{name} forward"), work, &loss, || {
            loss::forward(client, &pred, &patches, &mask, objective, &loss);
        });
        let work = gpu.traffic(2 * removed + rows * dim);
        gpu.bench(criterion, "loss", &format!("{name} backward"), work, &dpred, || {
            loss::backward(client, &pred, &patches, &mask, objective, 1.0, &dpred);
        });
    }
}
