use super::device::{self, Canary, rounded, rounding};
use super::output::{assert_output, assert_sum, of_two, stored};
use vitmae_cpu::activation::Activation as CpuActivation;
use vitmae_cpu::gemm::{Epilogue as CpuEpilogue, Precision};
use vitmae_cpu::linear as cpu;
use vitmae_kernels::activation::Activation;
use vitmae_kernels::linear::{self, Epilogue, Shape};
use vitmae_kernels::{Array, Client, Dtype};
use vitmae_testing::close::{Tolerance, assert_close};
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::activation as reference_activation;
use vitmae_testing::reference::linear as reference;

/// Rows, inputs, outputs; the last two for matrix units, in one part and in two.
const SHAPES: [[usize; 3]; 8] = [
    [1, 1, 1],
    [1, 33, 14],
    [50, 17, 31],
    [197, 64, 15],
    [13, 769, 33],
    [3, 5, 257],
    [197, 64, 96],
    [70, 1032, 136],
];

/// Parameters are f32; these are exact in every type, as a device with matrix units rounds them.
fn parameters(draws: &mut Draws, len: usize) -> Vec<f32> {
    rounded(&draws.vec_f32(len), Dtype::BF16)
}

/// Bias, activation and residual of a forward pass, and which of them there are.
struct Behind {
    bias: Vec<f32>,
    residual: Vec<f32>,
    has: [bool; 3],
}

impl Behind {
    /// `pre` and `y` on the device.
    fn on_device(
        &self,
        client: &Client,
        (x, weight): (&Array, &Array),
        shape: Shape,
    ) -> [Option<Vec<f32>>; 2] {
        let [has_bias, has_activation, has_residual] = self.has;
        let output = || Canary::poisoned(client, shape.rows * shape.outputs, x.dtype);
        let (pre, y) = (output(), output());
        let bias = Array::from_f32(client, &self.bias);
        let residual = Array::from_f32_as(client, &self.residual, x.dtype);
        let epilogue = Epilogue {
            bias: has_bias.then_some(&bias),
            activation: has_activation.then_some(Activation::Gelu),
            pre: has_activation.then(|| pre.array()),
            residual: has_residual.then_some(&residual),
        };
        linear::forward(client, x, weight, epilogue, shape, y.array());
        let pre = has_activation.then(|| pre.finish(client, "pre"));
        [pre, Some(y.finish(client, "y"))]
    }

    /// The same in f64.
    fn reference(&self, x: &[f32], weight: &[f32], shape: reference::Shape) -> reference::Forward {
        let [has_bias, has_activation, has_residual] = self.has;
        let (bias, residual) = (widen(&self.bias), widen(&self.residual));
        let epilogue = reference::Epilogue {
            bias: has_bias.then_some(&bias[..]),
            activation: has_activation.then_some(reference_activation::Activation::Gelu),
            residual: has_residual.then_some(&residual[..]),
        };
        reference::forward(&widen(x), &widen(weight), epilogue, shape)
    }

    /// `y` of the CPU twin.
    fn twin(&self, x: &[f32], weight: &[f32], shape: cpu::Shape) -> Vec<f32> {
        let [has_bias, has_activation, has_residual] = self.has;
        let [mut pre, mut y] = [(); 2].map(|()| vec![f32::NAN; shape.rows * shape.outputs]);
        let epilogue = CpuEpilogue {
            bias: has_bias.then_some(&self.bias[..]),
            activation: has_activation.then_some(CpuActivation::Gelu),
            pre: has_activation.then_some((&mut pre[..]).into()),
            residual: has_residual.then_some(&self.residual[..]),
            ..CpuEpilogue::default()
        };
        cpu::forward(Precision::F32, x, weight, epilogue, shape, &mut y);
        y
    }
}

/// The product and the argument of the activation are stored on the way, so there are three roundings. The stored ones are
/// no larger than the result and what was added to it, 2 at most.
fn stored_on_the_way(tolerance: Tolerance, dtype: Dtype) -> Tolerance {
    let (tolerance, unit) = (stored(tolerance, dtype), 2.0 * rounding(dtype));
    let Tolerance { abs, rel } = Tolerance::CAP;
    Tolerance::new(abs.min(tolerance.abs + 2.0 * unit), rel.min(tolerance.rel + unit))
}

#[test]
fn forward_equals_the_reference_and_the_twin() {
    let (client, mut draws) = (device::client(), Draws::new(1));
    for dtype in device::dtypes(&client) {
        // What is stored on the way to a result in bf16 may be off by more than any tolerance.
        if dtype == Dtype::BF16 && device::rounds_freely(dtype) {
            device::left_out("forward", dtype);
            continue;
        }
        for [rows, inputs, outputs] in SHAPES {
            let x = rounded(&draws.vec_f32(rows * inputs), dtype);
            let weight = parameters(&mut draws, outputs * inputs);
            let on_device =
                (&Array::from_f32_as(&client, &x, dtype), &Array::from_f32(&client, &weight));
            let (bias, residual) = (draws.vec_f32(outputs), draws.vec_f32(rows * outputs));
            let mut behind = Behind { bias, residual: rounded(&residual, dtype), has: [false; 3] };
            for parts in 0..8 {
                behind.has = [1, 2, 4].map(|part| parts & part > 0);
                let [pre, y] =
                    behind.on_device(&client, on_device, Shape { rows, inputs, outputs });
                let y = y.expect("y is always there");
                let of_reference = reference::Shape { rows, inputs, outputs };
                let expected = behind.reference(&x, &weight, of_reference);
                let tolerance = tolerance_at(inputs + 4, 1.0 + (inputs as f64).sqrt() / 3.0);
                let tolerance = stored_on_the_way(tolerance, dtype);
                let name = format!("{rows}x{inputs}x{outputs}, parts {parts:03b}, {dtype}");
                if let Some(pre) = pre {
                    assert_close(&format!("pre {name}"), &pre, &expected.pre, tolerance);
                }
                assert_close(&name, &y, &expected.y, tolerance);
                let twin = behind.twin(&x, &weight, cpu::Shape { rows, inputs, outputs });
                assert_close(&format!("{name}, CPU twin"), &y, &twin, of_two(tolerance));
            }
        }
    }
}

#[test]
fn backward_equals_the_reference_and_the_twin() {
    let (client, mut draws) = (device::client(), Draws::new(2));
    for dtype in device::dtypes(&client) {
        for [rows, inputs, outputs] in SHAPES {
            let shape = Shape { rows, inputs, outputs };
            let of_twin = cpu::Shape { rows, inputs, outputs };
            let of_reference = reference::Shape { rows, inputs, outputs };
            let x = rounded(&draws.vec_f32(rows * inputs), dtype);
            let weight = parameters(&mut draws, outputs * inputs);
            let dy = rounded(&draws.vec_f32(rows * outputs), dtype);
            let [on_x, on_dy] = [&x, &dy].map(|values| Array::from_f32_as(&client, values, dtype));
            let on_weight = Array::from_f32(&client, &weight);
            let expected =
                reference::backward(&widen(&dy), &widen(&x), &widen(&weight), None, of_reference);
            let name = |what: &str| format!("{what} {rows}x{inputs}x{outputs} {dtype}");
            let tolerance = |terms: usize| tolerance_at(terms + 1, 3.0 + (terms as f64).sqrt());

            let twin =
                |dx: &mut [f32]| cpu::backward_input(Precision::F32, &dy, &weight, of_twin, dx);
            let bound = tolerance(outputs);
            assert_output(&client, &name("dx"), dtype, &expected.dx, bound, twin, |dx| {
                linear::backward_input(&client, &on_dy, &on_weight, shape, dx);
            });
            let twin = |out: &mut [f32], add| {
                cpu::backward_weight(Precision::F32, &dy, &x, of_twin, out, add)
            };
            let bound = tolerance(rows);
            assert_sum(&client, &name("dweight"), &expected.dweight, bound, twin, |out, add| {
                linear::backward_weight(&client, &on_dy, &on_x, shape, out, add);
            });
            let twin = |out: &mut [f32], add| cpu::backward_bias(&dy, of_twin, out, add);
            assert_sum(&client, &name("dbias"), &expected.dbias, bound, twin, |out, add| {
                linear::backward_bias(&client, &on_dy, shape, out, add);
            });
        }
    }
}

#[test]
fn products_in_bf16_are_those_of_the_cpu() {
    use vitmae_tensor::ops::{self, Weight};
    use vitmae_tensor::{Device, Tensor};
    let mut draws = Draws::new(3);
    for [rows, inputs, outputs] in SHAPES {
        let values =
            [rows * inputs, outputs * inputs, rows * outputs].map(|len| draws.vec_f32(len));
        let on = |device: Device| {
            let [x, weight, dy] = [[rows, inputs], [outputs, inputs], [rows, outputs]];
            let tensor = |shape: [usize; 2], values: &[f32]| {
                Tensor::from_slice(&device, &shape, values).expect("a tensor")
            };
            let (x, weight, dy) =
                (tensor(x, &values[0]), tensor(weight, &values[1]), tensor(dy, &values[2]));
            let factor = Weight { tensor: &weight, precision: Precision::Bf16, packed: None };
            let mut dweight = None;
            ops::linear_backward_weight(Precision::Bf16, &dy, &x, weight.shape(), &mut dweight)
                .expect("dweight");
            [
                ops::linear(&x, factor, None, Precision::F32).expect("y"),
                ops::linear_backward_input(Precision::Bf16, &dy, &weight, Precision::F32)
                    .expect("dx"),
                dweight.expect("dweight"),
            ]
            .map(|tensor| tensor.to_vec().expect("its values"))
        };
        let (found, expected) = (on(device::device()), on(Device::cpu()));
        let terms = [inputs, outputs, rows];
        for (((name, terms), found), expected) in
            ["y", "dx", "dweight"].iter().zip(terms).zip(&found).zip(&expected)
        {
            let tolerance = of_two(tolerance_at(terms, (terms as f64).sqrt()));
            assert_close(&format!("{name} {rows}x{inputs}x{outputs}"), found, expected, tolerance);
        }
    }
}
