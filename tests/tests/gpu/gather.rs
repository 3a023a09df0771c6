use super::device::{client, dtypes, rounded};
use super::output::assert_output;
use vitmae_cpu::gather as cpu;
use vitmae_kernels::gather::{self, Shape};
use vitmae_kernels::{Array, Dtype, Ids};
use vitmae_testing::close::Tolerance;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::gather as reference;

/// B, rows, K, D; more chosen than there are rows, so that some repeat.
const SHAPES: [[usize; 4]; 7] = [
    [1, 1, 1, 1],
    [2, 5, 3, 7],
    [3, 4, 9, 17],
    [2, 196, 49, 64],
    [33, 3, 2, 33],
    [2, 4, 0, 5],
    [2, 4, 0, 8],
];

#[test]
fn forward_and_backward_equal_the_reference() {
    let (client, mut draws) = (client(), Draws::new(1));
    for dtype in dtypes(&client) {
        for [batch, rows, kept, width] in SHAPES {
            let shape = Shape { batch, rows, kept, width };
            let of_cpu = cpu::Shape { batch, rows, kept, width };
            let x = rounded(&draws.vec_f32(batch * rows * width), dtype);
            let dy = rounded(&draws.vec_f32(batch * kept * width), dtype);
            let ids: Vec<u32> =
                (0..batch * kept).map(|_| draws.integer(0..=rows - 1) as u32).collect();
            let [on_x, on_dy] = [&x, &dy].map(|v| Array::from_f32_as(&client, v, dtype));
            let on_ids = Ids::from_slice(&client, &ids);
            let name = |what: &str| format!("{what} {shape:?}");
            let expected = reference::forward(&widen(&x), &ids, batch, width);
            let twin = |y: &mut [f32]| cpu::forward(&x, &ids, of_cpu, y);
            assert_output(&client, &name("y"), dtype, &expected, Tolerance::EXACT, twin, |y| {
                gather::forward(&client, &on_x, &on_ids, shape, y);
            });
            let expected = reference::backward(&widen(&dy), &ids, rows, batch, width);
            let tolerance = tolerance_at(kept, 3.0);
            let twin = |dx: &mut [f32]| cpu::backward(&dy, &ids, of_cpu, dx);
            assert_output(&client, &name("dx"), dtype, &expected, tolerance, twin, |dx| {
                gather::backward(&client, &on_dy, &on_ids, shape, dx);
            });
        }
    }
}

#[test]
fn a_row_that_does_not_exist_is_neither_read_nor_written() {
    let client = client();
    let shape = Shape { batch: 1, rows: 2, kept: 3, width: 1 };
    let ids = Ids::from_slice(&client, &[2, 1, u32::MAX]);
    let values = Array::from_f32(&client, &[5.0, 7.0]);
    let fill = |values: [f32; 3]| move |out: &mut [f32]| out.copy_from_slice(&values[..out.len()]);
    let (exact, f32) = (Tolerance::EXACT, Dtype::F32);
    assert_output(&client, "y", f32, &[0.0, 7.0, 0.0], exact, fill([0.0, 7.0, 0.0]), |y| {
        gather::forward(&client, &values, &ids, shape, y);
    });
    let dy = Array::from_f32(&client, &[1.0, 2.0, 4.0]);
    assert_output(&client, "dx", f32, &[0.0, 2.0], exact, fill([0.0, 2.0, 0.0]), |dx| {
        gather::backward(&client, &dy, &ids, shape, dx);
    });
}
