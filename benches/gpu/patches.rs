use criterion::Criterion;
use vitmae_benches::Rate;
use vitmae_benches::gpu::Gpu;
use vitmae_kernels::patches::{self, Shape};

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    let (side, patch) = (224, 16);
    let shape = Shape {
        batch: 8,
        channels: 3,
        height: side,
        width: side,
        patch_height: patch,
        patch_width: patch,
    };
    let count = 8 * 3 * side * side;
    let (client, ids) = (&gpu.client, gpu.ids(8, 196, 49));
    let [pixels, out] = [(); 2].map(|()| gpu.act(count));
    gpu.bench(criterion, "patches", "patchify", gpu.traffic(2 * count), &out, || {
        patches::patchify(client, &pixels, shape, &out);
    });
    gpu.bench(criterion, "patches", "unpatchify", gpu.traffic(2 * count), &out, || {
        patches::unpatchify(client, &pixels, shape, &out);
    });
    let rows = gpu.act(ids.len * 3 * patch * patch);
    let work = gpu.traffic(2 * rows.len);
    gpu.bench(criterion, "patches", "im2col of kept patches", work, &rows, || {
        patches::im2col(client, &pixels, &ids, shape, &rows);
    });
}
