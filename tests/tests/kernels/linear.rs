use super::pools;
use vitmae_cpu::activation::Activation;
use vitmae_cpu::gemm::{Epilogue, Precision};
use vitmae_cpu::linear::{self, Shape};
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
                pre: Some(pre.slice()),
                residual: Some(&residual),
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
