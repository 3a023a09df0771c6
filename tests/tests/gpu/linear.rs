use super::device::{self, Canary};
use super::half::{rounded, tolerance_of, unit};
use vitmae_kernels::activation::Activation;
use vitmae_kernels::linear::{self, Epilogue, Shape};
use vitmae_kernels::{Array, Dtype};
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::activation as reference_activation;
use vitmae_testing::reference::linear as reference;

/// Rows, inputs, outputs.
const SHAPES: [[usize; 3]; 6] =
    [[1, 1, 1], [1, 33, 14], [50, 17, 31], [197, 64, 15], [13, 769, 33], [3, 5, 257]];

#[test]
fn forward_equals_the_reference() {
    let (client, mut draws) = (device::client(), Draws::new(1));
    for dtype in device::dtypes(&client) {
        for [rows, inputs, outputs] in SHAPES {
            let shape = Shape { rows, inputs, outputs };
            let x = rounded(&client, &draws.vec_f32(rows * inputs), dtype);
            // Parameters are f32; these are exact in every type, as a device may round them.
            let weight = rounded(&client, &draws.vec_f32(outputs * inputs), Dtype::BF16);
            let bias = draws.vec_f32(outputs);
            let residual = rounded(&client, &draws.vec_f32(rows * outputs), dtype);
            let x_array = Array::from_f32_as(&client, &x, dtype);
            let weight_array = Array::from_f32(&client, &weight);
            let bias_array = Array::from_f32(&client, &bias);
            let residual_array = Array::from_f32_as(&client, &residual, dtype);
            let [bias, residual] = [bias, residual].map(|values| widen(&values));
            for parts in 0..8 {
                let (has_bias, has_act, has_residual) =
                    (parts & 1 > 0, parts & 2 > 0, parts & 4 > 0);
                let pre = Canary::poisoned(&client, rows * outputs, dtype);
                let y = Canary::poisoned(&client, rows * outputs, dtype);
                let epilogue = Epilogue {
                    bias: has_bias.then_some(&bias_array),
                    activation: has_act.then(|| (Activation::Gelu, pre.array())),
                    residual: has_residual.then_some(&residual_array),
                };
                linear::forward(&client, &x_array, &weight_array, epilogue, shape, y.array());
                let epilogue = reference::Epilogue {
                    bias: has_bias.then_some(&bias[..]),
                    activation: has_act.then_some(reference_activation::Activation::Gelu),
                    residual: has_residual.then_some(&residual[..]),
                };
                let of_reference = reference::Shape { rows, inputs, outputs };
                let expected =
                    reference::forward(&widen(&x), &widen(&weight), epilogue, of_reference);
                let size = 1.0 + (inputs as f64).sqrt() / 3.0;
                let mut tolerance = tolerance_of(tolerance_at(inputs + 4, size), dtype);
                // The product and the argument of the activation are rounded on the way. They are no
                // larger than the result and what was added to them, 2 at most.
                tolerance.rel += unit(dtype);
                tolerance.abs += 2.0 * unit(dtype);
                let name = format!("{shape:?}, parts {parts:03b}, {dtype}");
                if has_act {
                    let pre = pre.finish(&client, "pre");
                    assert_close(&format!("pre {name}"), &pre, &expected.pre, tolerance);
                }
                assert_close(&name, &y.finish(&client, "y"), &expected.y, tolerance);
            }
        }
    }
}

#[test]
fn backward_equals_the_reference() {
    let (client, mut draws) = (device::client(), Draws::new(2));
    for dtype in device::dtypes(&client) {
        for [rows, inputs, outputs] in SHAPES {
            let shape = Shape { rows, inputs, outputs };
            let x = rounded(&client, &draws.vec_f32(rows * inputs), dtype);
            let weight = rounded(&client, &draws.vec_f32(outputs * inputs), Dtype::BF16);
            let dy = rounded(&client, &draws.vec_f32(rows * outputs), dtype);
            let x_array = Array::from_f32_as(&client, &x, dtype);
            let weight_array = Array::from_f32(&client, &weight);
            let dy_array = Array::from_f32_as(&client, &dy, dtype);
            let of_reference = reference::Shape { rows, inputs, outputs };
            let gradients =
                reference::backward(&widen(&dy), &widen(&x), &widen(&weight), None, of_reference);
            let name = |what: &str| format!("{what} {shape:?} {dtype}");
            let tolerance = |terms: usize| tolerance_at(terms + 1, 3.0 + (terms as f64).sqrt());

            let dx = Canary::poisoned(&client, rows * inputs, dtype);
            linear::backward_input(&client, &dy_array, &weight_array, shape, dx.array());
            let bound = tolerance_of(tolerance(outputs), dtype);
            assert_close(&name("dx"), &dx.finish(&client, "dx"), &gradients.dx, bound);

            for accumulate in [false, true] {
                // What is there before is exact in f32, and its sum with the gradient is not large.
                let there = |len| if accumulate { vec![2.0; len] } else { vec![f32::NAN; len] };
                let added = |expected: &[f64]| -> Vec<f64> {
                    expected.iter().map(|v| v + if accumulate { 2.0 } else { 0.0 }).collect()
                };
                let dweight = Canary::filled(&client, &there(outputs * inputs));
                linear::backward_weight(
                    &client,
                    &dy_array,
                    &x_array,
                    shape,
                    dweight.array(),
                    accumulate,
                );
                let dweight = dweight.finish(&client, "dweight");
                let expected = added(&gradients.dweight);
                assert_close(&name("dweight"), &dweight, &expected, tolerance(rows));

                let dbias = Canary::filled(&client, &there(outputs));
                linear::backward_bias(&client, &dy_array, shape, dbias.array(), accumulate);
                let dbias = dbias.finish(&client, "dbias");
                assert_close(&name("dbias"), &dbias, &added(&gradients.dbias), tolerance(rows));
            }
        }
    }
}
