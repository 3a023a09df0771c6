use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, traffic};
use vitmae_cpu::patches::{self, Shape};
use vitmae_testing::draws::Draws;

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    let (side, patch) = (224, 16);
    let shape = Shape {
        batch: 8,
        channels: 3,
        height: side,
        width: side,
        patch_height: patch,
        patch_width: patch,
    };
    let mut draws = Draws::new(1);
    let pixels = draws.vec_f32(shape.len());
    let mut out = vec![0.0; shape.len()];
    add(criterion, "patches", "patchify", traffic(2 * shape.len()), || {
        patches::patchify(&pixels, shape, &mut out);
    });
    add(criterion, "patches", "unpatchify", traffic(2 * shape.len()), || {
        patches::unpatchify(&pixels, shape, &mut out);
    });
    let ids: Vec<u32> = (0..shape.batch)
        .flat_map(|_| {
            draws.permutation(shape.num_patches()).into_iter().take(49).collect::<Vec<_>>()
        })
        .map(|id| id as u32)
        .collect();
    let mut rows = vec![0.0; ids.len() * shape.patch_dim()];
    add(criterion, "patches", "im2col of kept patches", traffic(2 * rows.len()), || {
        patches::im2col(&pixels, &ids, shape, &mut rows);
    });
}
