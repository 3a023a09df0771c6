use super::pools;
use super::rounded::{assert_rounded, assert_same, both};
use vitmae_cpu::layer_norm;
use vitmae_cpu::values::Values;
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
    let (dy, mut y): ([f32; 0], [f32; 0]) = ([], []);
    layer_norm::forward(&[], &[1.0; 3], &[0.0; 3], EPS, &mut y, &mut [], &mut []);
    layer_norm::backward(&dy, &[], &[1.0; 3], &[], &[], None, &mut [], w, b, false);
    assert_eq!(dweight.finish("dweight"), [0.0; 3]);
    assert_eq!(dbias.finish("dbias"), [0.0; 3]);
}

/// The shapes of the others, and both sides of the buffer that rows in bf16 go through.
fn shapes_in_bf16() -> impl Iterator<Item = (usize, usize)> {
    SHAPES.into_iter().chain([(41, 683), (17, 2047), (9, 2048), (9, 2049), (700, 1025)])
}

#[test]
fn forward_into_bf16_is_that_in_f32_rounded_once() {
    let mut draws = Draws::new(3);
    for (n, d) in shapes_in_bf16() {
        let (x, weight, bias) = (input(&mut draws, n, d), draws.vec_f32(d), draws.vec_f32(d));
        let (mut y, mut mean, mut rstd) = (vec![f32::NAN; n * d], vec![0.0; n], vec![0.0; n]);
        layer_norm::forward(&x, &weight, &bias, EPS, &mut y, &mut mean, &mut rstd);
        let expected = [mean, rstd];
        let name = format!("{n}x{d}");
        assert_rounded(&name, [&y], |[y]| {
            let (mut mean, mut rstd) = (Guarded::poisoned(n), Guarded::poisoned(n));
            layer_norm::forward(&x, &weight, &bias, EPS, y, mean.slice(), rstd.slice());
            assert_same(&name, &[mean.finish("mean"), rstd.finish("rstd")], &expected);
        });
    }
}

#[test]
fn backward_from_bf16_is_that_of_the_same_values_in_f32() {
    let mut draws = Draws::new(4);
    for (n, d) in shapes_in_bf16() {
        let (x, weight) = (input(&mut draws, n, d), draws.vec_f32(d));
        let (dy, dy_wide) = both(&draws.vec_f32(n * d));
        let (residual, before) = (draws.vec_f32(n * d), [draws.vec_f32(d), draws.vec_f32(d)]);
        let (mean, rstd) = (draws.vec_f32(n), draws.vec_f32(n));
        for (has_residual, add) in [(false, false), (true, false), (false, true)] {
            let residual = has_residual.then_some(&residual[..]);
            let run = |dy: Values| {
                let mut dx = Guarded::poisoned(n * d);
                let sum = |before: &Vec<f32>| match add {
                    true => Guarded::filled(before),
                    false => Guarded::poisoned(d),
                };
                let [mut dw, mut db] = before.each_ref().map(sum);
                let (to, w, b) = (dx.slice(), dw.slice(), db.slice());
                layer_norm::backward(dy, &x, &weight, &mean, &rstd, residual, to, w, b, add);
                [dx.finish("dx"), dw.finish("dweight"), db.finish("dbias")]
            };
            let name = format!("{n}x{d}, residual: {has_residual}, accumulated: {add}");
            let found = pools::run(&name, || run((&dy).into()));
            assert_same(&name, &found, &run((&dy_wide).into()));
        }
    }
}
