use super::pools;
use vitmae_cpu::layer_norm;
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::guarded::Guarded;
use vitmae_testing::reference::layer_norm as reference;
use vitmae_testing::reference::reduce;

const EPS: f32 = 1e-6;

/// Rows and width: both sides of the chunks, the vectors and the parts of a sum.
const SHAPES: [(usize, usize); 16] = [
    (1, 1),
    (3, 2),
    (257, 3),
    (1, 8),
    (13, 15),
    (31, 16),
    (33, 17),
    (50, 63),
    (257, 64),
    (2, 65),
    (197, 192),
    (50, 257),
    (257, 768),
    (7, 1025),
    (1, 4097),
    (3, 8192),
];

/// Input with a mean of its own in every row.
fn input(draws: &mut Draws, n: usize, d: usize) -> Vec<f32> {
    let mut x = draws.vec_f32(n * d);
    for row in x.chunks_mut(d) {
        let mean = draws.between(-2.0, 2.0) as f32;
        row.iter_mut().for_each(|x| *x += mean);
    }
    x
}

/// The largest 1/σ: how much a row enlarges the roundings of its input.
fn largest(rstd: &[f64]) -> f64 {
    rstd.iter().copied().fold(1.0, f64::max)
}

#[test]
fn forward_equals_the_reference() {
    let mut draws = Draws::new(1);
    for (n, d) in SHAPES {
        let (x, weight, bias) = (input(&mut draws, n, d), draws.vec_f32(d), draws.vec_f32(d));
        let [y, mean, rstd] = pools::run("layer_norm", || {
            let (mut y, mut mean) = (Guarded::poisoned(n * d), Guarded::poisoned(n));
            let mut rstd = Guarded::poisoned(n);
            layer_norm::forward(&x, &weight, &bias, EPS, y.slice(), mean.slice(), rstd.slice());
            [y.finish("y"), mean.finish("mean"), rstd.finish("rstd")]
        });
        let expected = reference::forward(&widen(&x), &widen(&weight), &widen(&bias), EPS.into());
        let name = |what: &str| format!("{what} {n}x{d}");
        let scale = largest(&expected.rstd);
        assert_close(&name("y"), &y, &expected.y, tolerance_at(d + 4, scale));
        assert_close(&name("mean"), &mean, &expected.mean, tolerance_at(d, 1.0));
        assert_close(&name("rstd"), &rstd, &expected.rstd, tolerance_at(d + 4, scale));
    }
}

#[test]
fn backward_equals_the_reference() {
    let mut draws = Draws::new(2);
    for (n, d) in SHAPES {
        let (x, dy) = (input(&mut draws, n, d), draws.vec_f32(n * d));
        let (weight, residual) = (draws.vec_f32(d), draws.vec_f32(n * d));
        let before = [draws.vec_f32(d), draws.vec_f32(d)];
        let saved = reference::forward(&widen(&x), &widen(&weight), &vec![0.0; d], EPS.into());
        let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
        let (mean, rstd) = (narrow(&saved.mean), narrow(&saved.rstd));
        let gradients = reference::backward(&widen(&dy), &widen(&x), &widen(&weight), EPS.into());
        for (has_residual, accumulate) in [(false, false), (true, false), (false, true)] {
            let residual = has_residual.then_some(&residual[..]);
            let [dx, dweight, dbias] = pools::run("layer_norm backward", || {
                let mut dx = Guarded::poisoned(n * d);
                let mut sums = before.each_ref().map(|before| match accumulate {
                    true => Guarded::filled(before),
                    false => Guarded::poisoned(d),
                });
                let [dweight, dbias] = sums.each_mut().map(Guarded::slice);
                layer_norm::backward(
                    &dy,
                    &x,
                    &weight,
                    &mean,
                    &rstd,
                    residual,
                    dx.slice(),
                    dweight,
                    dbias,
                    accumulate,
                );
                let [dweight, dbias] = sums;
                [dx.finish("dx"), dweight.finish("dweight"), dbias.finish("dbias")]
            });
            let name = |what: &str| format!("{what} {n}x{d} {has_residual} {accumulate}");
            let on_top = |values: &[f64], before: Option<&[f32]>| match before {
                Some(before) => reduce::add(values, &widen(before)),
                None => values.to_vec(),
            };
            let scale = largest(&saved.rstd);
            let expected = on_top(&gradients.dx, residual);
            assert_close(&name("dx"), &dx, &expected, tolerance_at(d + 8, scale));
            let [w0, b0] = before.each_ref().map(|before| accumulate.then_some(&before[..]));
            let expected = on_top(&gradients.dweight, w0);
            let size = (n as f64).sqrt();
            assert_close(&name("dweight"), &dweight, &expected, tolerance_at(n + 4, size * scale));
            let expected = on_top(&gradients.dbias, b0);
            assert_close(&name("dbias"), &dbias, &expected, tolerance_at(n + 1, size));
        }
    }
}

#[test]
fn no_rows_leave_no_gradient() {
    let (mut dweight, mut dbias) = (Guarded::poisoned(3), Guarded::poisoned(3));
    let (w, b) = (dweight.slice(), dbias.slice());
    layer_norm::forward(&[], &[1.0; 3], &[0.0; 3], EPS, &mut [], &mut [], &mut []);
    layer_norm::backward(&[], &[], &[1.0; 3], &[], &[], None, &mut [], w, b, false);
    assert_eq!(dweight.finish("dweight"), [0.0; 3]);
    assert_eq!(dbias.finish("dbias"), [0.0; 3]);
}
