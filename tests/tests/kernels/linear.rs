use super::pools;
use super::rounded::{assert_rounded, assert_same, both, narrow, wide};
use vitmae_cpu::activation::{self, Activation};
use vitmae_cpu::gemm::{Epilogue, Precision};
use vitmae_cpu::linear::{self, Shape};
use vitmae_cpu::values::{Values, ValuesMut};
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::guarded::Guarded;
use vitmae_testing::reference::activation as reference_activation;
use vitmae_testing::reference::linear as reference;

/// Rows, inputs, outputs.
const SHAPES: [[usize; 3]; 8] = [
    [1, 1, 1],
    [1, 33, 14],
    [50, 17, 31],
    [197, 64, 15],
    [13, 769, 33],
    [257, 50, 100],
    [3, 5, 1030],
    [100, 192, 576],
];

#[test]
fn forward_equals_the_reference() {
    let mut draws = Draws::new(1);
    for [rows, inputs, outputs] in SHAPES {
        let shape = Shape { rows, inputs, outputs };
        let (x, weight) = (draws.vec_f32(rows * inputs), draws.vec_f32(outputs * inputs));
        let (bias, residual) = (draws.vec_f32(outputs), draws.vec_f32(rows * outputs));
        let [pre, y] = pools::run("linear", || {
            let (mut pre, mut y) =
                (Guarded::poisoned(rows * outputs), Guarded::poisoned(rows * outputs));
            let epilogue = Epilogue {
                bias: Some(&bias),
                activation: Some(Activation::Gelu),
                pre: Some(pre.slice().into()),
                residual: Some(&residual),
                ..Epilogue::default()
            };
            linear::forward(Precision::F32, &x, &weight, epilogue, shape, y.slice());
            [pre.finish("pre"), y.finish("y")]
        });
        let [bias, residual] = [bias, residual].map(|values| widen(&values));
        let epilogue = reference::Epilogue {
            bias: Some(&bias),
            activation: Some(reference_activation::Activation::Gelu),
            residual: Some(&residual),
        };
        let of_reference = reference::Shape { rows, inputs, outputs };
        let expected = reference::forward(&widen(&x), &widen(&weight), epilogue, of_reference);
        let tolerance = tolerance_at(inputs + 4, 1.0 + (inputs as f64).sqrt() / 3.0);
        assert_close(&format!("pre {shape:?}"), &pre, &expected.pre, tolerance);
        assert_close(&format!("y {shape:?}"), &y, &expected.y, tolerance);
    }
}

#[test]
fn backward_equals_the_reference() {
    let mut draws = Draws::new(2);
    for [rows, inputs, outputs] in SHAPES {
        let shape = Shape { rows, inputs, outputs };
        let (x, weight) = (draws.vec_f32(rows * inputs), draws.vec_f32(outputs * inputs));
        let dy = draws.vec_f32(rows * outputs);
        let of_reference = reference::Shape { rows, inputs, outputs };
        let gradients =
            reference::backward(&widen(&dy), &widen(&x), &widen(&weight), None, of_reference);
        let name = |what: &str| format!("{what} {shape:?}");
        let tolerance = |terms: usize| tolerance_at(terms + 1, 3.0 + (terms as f64).sqrt());
        pools::assert_output(&name("dx"), &gradients.dx, tolerance(outputs), |dx| {
            linear::backward_input(Precision::F32, &dy, &weight, shape, dx);
        });
        pools::assert_sum(&name("dweight"), &gradients.dweight, tolerance(rows), |out, add| {
            linear::backward_weight(Precision::F32, &dy, &x, shape, out, add);
        });
        pools::assert_sum(&name("dbias"), &gradients.dbias, tolerance(rows), |out, add| {
            linear::backward_bias(&dy, shape, out, add);
        });
    }
}

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// With a weight as it is, packed, and in 8 bits.
#[test]
fn forward_in_bf16_is_that_in_f32_rounded_once() {
    let mut draws = Draws::new(3);
    for [rows, inputs, outputs] in SHAPES {
        let shape = Shape { rows, inputs, outputs };
        let (x, x_wide) = both(&draws.vec_f32(rows * inputs));
        let weight = draws.vec_f32(outputs * inputs);
        let (bias, residual) = (draws.vec_f32(outputs), draws.vec_f32(rows * outputs));
        let quantised = linear::quantise(&weight, inputs, outputs);
        for precision in PRECISIONS {
            let packed = linear::pack(precision, &weight, inputs, outputs, |len| vec![0.0; len]);
            for way in ["as it is", "packed", "int8"] {
                let forward = |x: Values, epilogue: Epilogue, y: ValuesMut| match way {
                    "packed" => linear::forward_packed(x, &packed, epilogue, rows, y),
                    "int8" => linear::forward_int8(x, &quantised, epilogue, y),
                    _ => linear::forward(precision, x, &weight, epilogue, shape, y),
                };
                let in_f32 = |x: Values, residual: Option<&[f32]>| {
                    let mut y = Guarded::poisoned(rows * outputs);
                    let epilogue = Epilogue { bias: Some(&bias), residual, ..Epilogue::default() };
                    forward(x, epilogue, y.slice().into());
                    y.finish("y")
                };
                let name = |what: &str| format!("{what} {shape:?} in {precision:?}, {way}");
                let residual = Some(&residual[..]);
                let expected = in_f32((&x_wide).into(), residual);
                let found = pools::run(&name("y"), || [in_f32((&x).into(), residual)]);
                assert_same(&name("y in f32"), &found, &[&expected]);

                // The activation takes its argument as the backward pass will find it.
                let pre = in_f32((&x_wide).into(), None);
                let mut activated = vec![f32::NAN; pre.len()];
                activation::forward(Activation::Gelu, &wide(&narrow(&pre)), &mut activated);
                for x in [Values::from(&x), Values::from(&x_wide)] {
                    assert_rounded(&name("y"), [&expected], |[y]| {
                        let bias = Some(&bias[..]);
                        let epilogue = Epilogue { bias, residual, ..Epilogue::default() };
                        forward(x, epilogue, y.into());
                    });
                    let (bias, activation) = (Some(&bias[..]), Some(Activation::Gelu));
                    assert_rounded(&name("pre and y"), [&pre, &activated], |[pre, y]| {
                        let pre = Some(pre.into());
                        let epilogue = Epilogue { bias, activation, pre, ..Epilogue::default() };
                        forward(x, epilogue, y.into());
                    });
                    assert_rounded(&name("y alone"), [&activated], |[y]| {
                        let epilogue = Epilogue { bias, activation, ..Epilogue::default() };
                        forward(x, epilogue, y.into());
                    });
                }
            }
        }
    }
}

#[test]
fn backward_from_bf16_is_that_of_the_same_values_in_f32() {
    let mut draws = Draws::new(4);
    for [rows, inputs, outputs] in SHAPES {
        let shape = Shape { rows, inputs, outputs };
        let (x, x_wide) = both(&draws.vec_f32(rows * inputs));
        let (dy, dy_wide) = both(&draws.vec_f32(rows * outputs));
        let weight = draws.vec_f32(outputs * inputs);
        let before = [draws.vec_f32(outputs * inputs), draws.vec_f32(outputs)];
        for precision in PRECISIONS {
            let name = |what: &str| format!("{what} {shape:?} in {precision:?}");
            let input = |dy: Values| {
                let mut dx = Guarded::poisoned(rows * inputs);
                linear::backward_input(precision, dy, &weight, shape, dx.slice());
                [dx.finish("dx")]
            };
            let expected = input((&dy_wide).into());
            assert_same(&name("dx"), &pools::run(&name("dx"), || input((&dy).into())), &expected);
            for dy in [Values::from(&dy), Values::from(&dy_wide)] {
                assert_rounded(&name("dx"), [&expected[0]], |[dx]| {
                    linear::backward_input(precision, dy, &weight, shape, dx);
                });
            }
            for add in [false, true] {
                let sums = |dy: Values, x: Values| {
                    let [mut dweight, mut dbias] = before.each_ref().map(|before| match add {
                        true => Guarded::filled(before),
                        false => Guarded::poisoned(before.len()),
                    });
                    linear::backward_weight(precision, dy, x, shape, dweight.slice(), add);
                    linear::backward_bias(dy, shape, dbias.slice(), add);
                    [dweight.finish("dweight"), dbias.finish("dbias")]
                };
                let (dy, dy_wide) = (Values::from(&dy), Values::from(&dy_wide));
                let (x, x_wide) = (Values::from(&x), Values::from(&x_wide));
                let expected = sums(dy_wide, x_wide);
                for (dy, x) in [(dy, x), (dy_wide, x), (dy, x_wide)] {
                    let name = name("dweight, dbias");
                    assert_same(&name, &pools::run(&name, || sums(dy, x)), &expected);
                }
            }
        }
    }
}
