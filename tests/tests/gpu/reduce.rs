use super::device::{Canary, client, dtypes, rounded};
use super::output::{assert_output, assert_sum};
use vitmae_cpu::reduce as cpu;
use vitmae_kernels::{Array, Dtype, reduce};
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::reduce as reference;

/// Rows and width: both sides of a tile of columns and of the parts of a sum.
const SHAPES: [(usize, usize); 9] =
    [(0, 3), (1, 1), (2, 17), (31, 32), (64, 5), (65, 5), (257, 33), (6304, 8), (9, 2049)];

#[test]
fn sums_of_rows_equal_the_reference() {
    let (client, mut draws) = (client(), Draws::new(1));
    for dtype in dtypes(&client) {
        for (rows, width) in SHAPES {
            let x = rounded(&draws.vec_f32(rows * width), dtype);
            let on_x = Array::from_f32_as(&client, &x, dtype);
            let expected = reference::sum_columns(&widen(&x), width);
            let tolerance = tolerance_at(rows + 1, 3.0 + (rows as f64).sqrt());
            let twin = |out: &mut [f32], add| cpu::sum_rows(&x, out, add);
            let name = format!("{rows}x{width} {dtype}");
            assert_sum(&client, &name, &expected, tolerance, twin, |out, add| {
                reduce::sum_rows(&client, &on_x, out, add);
            });
        }
    }
}

/// One dimension of a launch has 65 535 cubes at most on many devices.
#[test]
fn more_cubes_than_one_dimension_holds_do_their_work() {
    let client = client();
    let width = 65_536 * 32 + 1;
    let x: Vec<f32> = (0..2 * width).map(|i| (i % 1009) as f32).collect();
    let on_x = Array::from_f32(&client, &x);
    let sums = Canary::poisoned(&client, width, Dtype::F32);
    reduce::sum_rows(&client, &on_x, sums.array(), false);
    let expected = reference::sum_columns(&widen(&x), width);
    assert_close("sums", &sums.finish(&client, "sums"), &expected, tolerance_at(2, 4.0));
}

#[test]
fn addition_equals_the_reference() {
    let (client, mut draws) = (client(), Draws::new(2));
    for dtype in dtypes(&client) {
        for count in [0, 1, 31, 257, 1024, 70_001] {
            let [a, b] = [0, 1].map(|_| rounded(&draws.vec_f32(count), dtype));
            let [on_a, on_b] = [&a, &b].map(|v| Array::from_f32_as(&client, v, dtype));
            let expected = reference::add(&widen(&a), &widen(&b));
            let twin = |out: &mut [f32]| cpu::add(&a, &b, out);
            assert_output(&client, "a + b", dtype, &expected, tolerance_at(1, 1.0), twin, |out| {
                reduce::add(&client, &on_a, &on_b, out);
            });
        }
    }
}

/// The gradient has a closed form: the share of each token that counts.
#[test]
fn means_of_tokens_equal_the_reference_forward_and_backward() {
    let (client, mut draws) = (client(), Draws::new(3));
    let shapes = [(1, 1, 1, 0), (2, 5, 17, 1), (3, 197, 33, 1), (9, 50, 64, 0), (2, 4, 3, 3)];
    for dtype in dtypes(&client) {
        for (batch, tokens, width, first) in shapes {
            let x = rounded(&draws.vec_f32(batch * tokens * width), dtype);
            let dout = rounded(&draws.vec_f32(batch * width), dtype);
            let [on_x, on_dout] = [&x, &dout].map(|v| Array::from_f32_as(&client, v, dtype));
            let expected = reference::mean_tokens(&widen(&x), tokens, width, first);
            let tolerance = tolerance_at(tokens + 1, 1.0);
            let twin = |out: &mut [f32]| cpu::mean_tokens(&x, tokens, width, first, out);
            assert_output(&client, "mean", dtype, &expected, tolerance, twin, |out| {
                reduce::mean_tokens(&client, &on_x, tokens, width, first, out);
            });
            let share = 1.0 / (tokens - first) as f64;
            let expected: Vec<f64> = (0..batch * tokens * width)
                .map(|i| (i / (tokens * width), i / width % tokens, i % width))
                .map(
                    |(b, n, d)| {
                        if n < first { 0.0 } else { share * f64::from(dout[b * width + d]) }
                    },
                )
                .collect();
            let twin = |dx: &mut [f32]| cpu::mean_tokens_backward(&dout, tokens, width, first, dx);
            assert_output(&client, "dx", dtype, &expected, tolerance_at(2, 1.0), twin, |dx| {
                reduce::mean_tokens_backward(&client, &on_dout, tokens, width, first, dx);
            });
        }
    }
}
