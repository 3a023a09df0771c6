use super::device::{self, Canary};
use vitmae_kernels::{Array, Dtype, layer_norm};
use vitmae_testing::close::{Tolerance, assert_close};
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::layer_norm as reference;
use vitmae_testing::reference::reduce;

const EPS: f32 = 1e-6;

/// Rows and width: both sides of the teams, the vectors, the registers and the chunks of rows.
const SHAPES: [(usize, usize); 14] = [
    (1, 1),
    (3, 2),
    (40, 3),
    (1, 8),
    (13, 15),
    (33, 17),
    (50, 66),
    (65, 64),
    (197, 192),
    (9, 257),
    (50, 768),
    (7, 1025),
    (2, 4097),
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

/// The tolerance of values of size `scale` that are stored as `dtype`: half a unit of its last place more.
fn stored(dtype: Dtype, scale: f64, tolerance: Tolerance) -> Tolerance {
    let rounding = device::rounding(dtype);
    Tolerance::new(tolerance.abs + rounding * scale.min(1.0), tolerance.rel + rounding)
}

/// Types of a norm's input and output: the same one, and f32 beside another.
fn pairs(client: &vitmae_kernels::Client) -> Vec<[Dtype; 2]> {
    let dtypes = device::dtypes(client);
    let mixed = dtypes.iter().filter(|&&dtype| dtype != Dtype::F32);
    let mixed: Vec<_> = mixed.map(|&dtype| [Dtype::F32, dtype]).collect();
    dtypes.iter().map(|&dtype| [dtype; 2]).chain(mixed).collect()
}

#[test]
fn forward_equals_the_reference() {
    let (client, mut draws) = (device::client(), Draws::new(1));
    for [of_x, dtype] in pairs(&client) {
        for (n, d) in device::some(&SHAPES, dtype) {
            let x = device::rounded(&input(&mut draws, n, d), of_x);
            let (weight, bias) = (draws.vec_f32(d), draws.vec_f32(d));
            let y = Canary::poisoned(&client, n * d, dtype);
            let mean = Canary::poisoned(&client, n, Dtype::F32);
            let rstd = Canary::poisoned(&client, n, Dtype::F32);
            layer_norm::forward(
                &client,
                &Array::from_f32_as(&client, &x, of_x),
                &Array::from_f32(&client, &weight),
                &Array::from_f32(&client, &bias),
                EPS,
                y.array(),
                mean.array(),
                rstd.array(),
            );
            let expected =
                reference::forward(&widen(&x), &widen(&weight), &widen(&bias), EPS.into());
            let scale = largest(&expected.rstd);
            let finish = |canary: Canary, what: &str, expected: &[f64], tolerance| {
                let name = format!("{what} {n}x{d} {of_x} {dtype}");
                assert_close(&name, &canary.finish(&client, &name), expected, tolerance);
            };
            let y_tolerance = stored(dtype, scale, tolerance_at(d + 4, scale));
            finish(y, "y", &expected.y, y_tolerance);
            finish(mean, "mean", &expected.mean, tolerance_at(d, 1.0));
            finish(rstd, "rstd", &expected.rstd, tolerance_at(d + 4, scale));
        }
    }
}

#[test]
fn the_norm_of_a_sum_equals_the_norm_of_the_stored_sum() {
    let (client, mut draws) = (device::client(), Draws::new(4));
    assert!(client.properties().hardware.max_bindings >= 9, "this device does it in two passes");
    for dtype in device::dtypes(&client) {
        // There the sum in registers is not the one that is stored.
        if device::rounds_freely(dtype) {
            device::left_out("the norm of a sum", dtype);
            continue;
        }
        for (n, d) in device::some(&SHAPES, dtype) {
            let x = device::rounded(&input(&mut draws, n, d), dtype);
            let residual = device::rounded(&draws.vec_f32(n * d), dtype);
            let [shift, weight, bias] = [0; 3].map(|_| draws.vec_f32(d));
            let [sum, y, alone] = [0; 3].map(|_| Canary::poisoned(&client, n * d, dtype));
            let [mean, rstd, alone_mean, alone_rstd] =
                [0; 4].map(|_| Canary::poisoned(&client, n, Dtype::F32));
            let (weight, bias) =
                (&Array::from_f32(&client, &weight), &Array::from_f32(&client, &bias));
            let added = layer_norm::Residual {
                shift: &Array::from_f32(&client, &shift),
                residual: &Array::from_f32_as(&client, &residual, dtype),
            };
            let on_x = &Array::from_f32_as(&client, &x, dtype);
            let (sum_out, y_out) = (sum.array(), y.array());
            layer_norm::forward_residual(
                &client,
                on_x,
                added,
                weight,
                bias,
                EPS,
                sum_out,
                y_out,
                mean.array(),
                rstd.array(),
            );
            let (y_out, mean_out, rstd_out) =
                (alone.array(), alone_mean.array(), alone_rstd.array());
            layer_norm::forward(&client, sum_out, weight, bias, EPS, y_out, mean_out, rstd_out);
            let columns = shift.iter().cycle();
            let expected: Vec<f64> = (x.iter().zip(&residual).zip(columns))
                .map(|((&x, &r), &s)| f64::from(x) + f64::from(s) + f64::from(r))
                .collect();
            let name = format!("{n}x{d} {dtype}");
            let tolerance = stored(dtype, 4.0, tolerance_at(3, 4.0));
            assert_close(&format!("sum {name}"), &sum.finish(&client, "sum"), &expected, tolerance);
            for (fused, alone) in [(y, alone), (mean, alone_mean), (rstd, alone_rstd)] {
                let (fused, alone) =
                    (fused.finish(&client, "fused"), alone.finish(&client, "alone"));
                assert_eq!(fused, alone, "{name}");
            }
        }
    }
}

#[test]
fn backward_equals_the_reference() {
    let (client, mut draws) = (device::client(), Draws::new(2));
    for dtypes in pairs(&client) {
        for (n, d) in device::some(&SHAPES, dtypes[1]) {
            for (has_residual, accumulate) in [(false, false), (true, true)] {
                backward(&client, &mut draws, dtypes, n, d, has_residual, accumulate);
            }
        }
    }
}

fn backward(
    client: &vitmae_kernels::Client,
    draws: &mut Draws,
    [dtype, of_dy]: [Dtype; 2],
    n: usize,
    d: usize,
    has_residual: bool,
    accumulate: bool,
) {
    let x = device::rounded(&input(draws, n, d), dtype);
    let dy = device::rounded(&draws.vec_f32(n * d), of_dy);
    let residual = device::rounded(&draws.vec_f32(n * d), dtype);
    let (weight, w0, b0) = (draws.vec_f32(d), draws.vec_f32(d), draws.vec_f32(d));
    let saved = reference::forward(&widen(&x), &widen(&weight), &vec![0.0; d], EPS.into());
    let narrow = |values: &[f64]| {
        let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
        Array::from_f32(client, &values)
    };
    let upload = |values: &[f32]| Array::from_f32_as(client, values, dtype);
    let residual_array = upload(&residual);
    let dx = Canary::poisoned(client, n * d, dtype);
    let sums = [&w0, &b0].map(|before| match accumulate {
        true => Canary::filled(client, before),
        false => Canary::poisoned(client, d, Dtype::F32),
    });
    layer_norm::backward(
        client,
        &Array::from_f32_as(client, &dy, of_dy),
        &upload(&x),
        &Array::from_f32(client, &weight),
        &narrow(&saved.mean),
        &narrow(&saved.rstd),
        has_residual.then_some(&residual_array),
        dx.array(),
        sums[0].array(),
        sums[1].array(),
        accumulate,
    );
    let gradients = reference::backward(&widen(&dy), &widen(&x), &widen(&weight), EPS.into());
    let on_top = |values: &[f64], before: Option<&[f32]>| match before {
        Some(before) => reduce::add(values, &widen(before)),
        None => values.to_vec(),
    };
    let check = |canary: Canary, what: &str, expected: &[f64], tolerance| {
        let name = format!("{what} {n}x{d} {dtype} {of_dy} {has_residual} {accumulate}");
        assert_close(&name, &canary.finish(client, &name), expected, tolerance);
    };
    let [dweight, dbias] = sums;
    let scale = largest(&saved.rstd);
    let expected = on_top(&gradients.dx, has_residual.then_some(&residual));
    check(dx, "dx", &expected, stored(dtype, scale, tolerance_at(d + 8, scale)));
    let expected = on_top(&gradients.dweight, accumulate.then_some(&w0));
    let size = (n as f64).sqrt();
    check(dweight, "dweight", &expected, tolerance_at(n + 4, size * scale));
    let expected = on_top(&gradients.dbias, accumulate.then_some(&b0));
    check(dbias, "dbias", &expected, tolerance_at(n + 1, size));
}

#[test]
fn no_rows_leave_no_gradient() {
    let client = device::client();
    let nothing = Array::empty(&client, 0, Dtype::F32);
    let (dweight, dbias) =
        (Canary::poisoned(&client, 3, Dtype::F32), Canary::poisoned(&client, 3, Dtype::F32));
    let ones = Array::from_f32(&client, &[1.0; 3]);
    layer_norm::forward(&client, &nothing, &ones, &ones, EPS, &nothing, &nothing, &nothing);
    layer_norm::backward(
        &client,
        &nothing,
        &nothing,
        &ones,
        &nothing,
        &nothing,
        None,
        &nothing,
        dweight.array(),
        dbias.array(),
        false,
    );
    assert_eq!(dweight.finish(&client, "dweight"), [0.0; 3]);
    assert_eq!(dbias.finish(&client, "dbias"), [0.0; 3]);
}
