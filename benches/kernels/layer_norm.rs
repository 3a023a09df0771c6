use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, bytes, narrow, traffic};
use vitmae_cpu::layer_norm;
use vitmae_cpu::values::Bf16;
use vitmae_testing::draws::Draws;

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    for (name, rows, width) in [("encoder", 8 * 50, 768), ("decoder", 8 * 197, 512)] {
        let count = rows * width;
        let mut draws = Draws::new(1);
        let (x, dy) = (draws.vec_f32(count), draws.vec_f32(count));
        let (weight, bias) = (draws.vec_f32(width), draws.vec_f32(width));
        let (mut y, mut mean, mut rstd) = (vec![0.0; count], vec![0.0; rows], vec![0.0; rows]);
        add(criterion, "layer_norm", &format!("{name} forward"), traffic(2 * count), || {
            layer_norm::forward(&x, &weight, &bias, 1e-12, &mut y, &mut mean, &mut rstd);
        });
        let mut rounded = vec![Bf16::ZERO; count];
        add(criterion, "layer_norm", &format!("{name} forward bf16"), bytes(6 * count), || {
            layer_norm::forward(&x, &weight, &bias, 1e-12, &mut rounded, &mut mean, &mut rstd);
        });
        let (mut dweight, mut dbias) = (vec![0.0; width], vec![0.0; width]);
        layer_norm::forward(&x, &weight, &bias, 1e-12, &mut y, &mut mean, &mut rstd);
        let dx = &mut y;
        add(criterion, "layer_norm", &format!("{name} backward"), traffic(3 * count), || {
            let (dw, db) = (&mut dweight, &mut dbias);
            layer_norm::backward(&dy, &x, &weight, &mean, &rstd, None, dx, dw, db, false);
        });
        let dy = narrow(&dy);
        add(criterion, "layer_norm", &format!("{name} backward bf16"), bytes(10 * count), || {
            let (dw, db) = (&mut dweight, &mut dbias);
            layer_norm::backward(&dy, &x, &weight, &mean, &rstd, None, dx, dw, db, false);
        });
    }
}
