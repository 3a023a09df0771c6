use super::device::{client, dtypes, rounded};
use super::output::assert_output;
use vitmae_cpu::dropout as cpu;
use vitmae_cpu::random::Stream;
use vitmae_kernels::dropout::{self, Dropout};
use vitmae_kernels::{Array, Dtype};
use vitmae_testing::close::Tolerance;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::dropout as reference;
use vitmae_testing::reference::reduce;

/// Both sides of a draw of four and of a cube.
const LENGTHS: [usize; 8] = [0, 1, 3, 4, 5, 1000, 1024, 4101];

#[test]
fn masks_are_those_of_the_cpu_bit_by_bit() {
    let client = client();
    for (count, rate) in LENGTHS.into_iter().flat_map(|n| [0.0, 0.1, 0.5, 0.999].map(|r| (n, r))) {
        let stream = Stream::new(7, "dropout", 3, 5);
        let (on_gpu, on_cpu) = (Dropout { rate, key: stream.key() }, cpu::Dropout { rate, stream });
        let expected: Vec<f64> =
            (0..count as u64).map(|index| on_cpu.keep_scale(index).into()).collect();
        let name = format!("keep {count} at {rate}");
        let twin = |keep: &mut [f32]| cpu::keep(&on_cpu, keep);
        assert_output(&client, &name, Dtype::F32, &expected, Tolerance::EXACT, twin, |keep| {
            dropout::keep(&client, &on_gpu, keep);
        });
    }
}

#[test]
fn forward_and_backward_equal_the_reference() {
    let (client, mut draws) = (client(), Draws::new(1));
    let cases = LENGTHS.into_iter().flat_map(|n| [0.1, 0.5].map(|rate| (n, rate)));
    for dtype in dtypes(&client) {
        for (count, rate) in cases.clone() {
            let stream = Stream::new(7, "dropout", 3, count as u64);
            let (on_gpu, on_cpu) =
                (Dropout { rate, key: stream.key() }, cpu::Dropout { rate, stream });
            let [x, residual] = [0, 1].map(|_| rounded(&draws.vec_f32(count), dtype));
            let [on_x, on_residual] =
                [&x, &residual].map(|v| Array::from_f32_as(&client, v, dtype));
            let keep: Vec<f64> =
                (0..count as u64).map(|index| on_cpu.keep_scale(index).into()).collect();
            let name = |what: &str| format!("{what} {count} at {rate}");
            let expected = reference::forward(&widen(&x), &keep);
            let twin = |y: &mut [f32]| cpu::forward(&x, None, &on_cpu, y);
            assert_output(&client, &name("y"), dtype, &expected, tolerance_at(1, 1.0), twin, |y| {
                dropout::forward(&client, &on_x, None, &on_gpu, y);
            });
            let twin = |dx: &mut [f32]| cpu::backward(&x, &on_cpu, dx);
            assert_output(
                &client,
                &name("dx"),
                dtype,
                &expected,
                tolerance_at(1, 1.0),
                twin,
                |dx| {
                    dropout::backward(&client, &on_x, &on_gpu, dx);
                },
            );
            let expected = reduce::add(&expected, &widen(&residual));
            let twin = |y: &mut [f32]| cpu::forward(&x, Some(&residual), &on_cpu, y);
            let name = name("y + residual");
            assert_output(&client, &name, dtype, &expected, tolerance_at(2, 1.0), twin, |y| {
                dropout::forward(&client, &on_x, Some(&on_residual), &on_gpu, y);
            });
        }
    }
}

#[test]
fn drop_path_equals_the_reference_and_the_twin() {
    let (client, mut draws) = (client(), Draws::new(2));
    for dtype in dtypes(&client) {
        for (batch, size) in [(1, 1), (3, 7), (5, 64), (9, 1000), (130, 12)] {
            let stream = Stream::new(7, "path", 3, 5);
            let (rate, key) = (0.4, stream.key());
            let (on_gpu, on_cpu) = (Dropout { rate, key }, cpu::Dropout { rate, stream });
            let [x, residual] = [0, 1].map(|_| rounded(&draws.vec_f32(batch * size), dtype));
            let [on_x, on_residual] =
                [&x, &residual].map(|v| Array::from_f32_as(&client, v, dtype));
            let keep: Vec<f64> =
                (0..batch as u64).map(|image| on_cpu.keep_scale(image).into()).collect();
            let expected = reference::forward_per_image(&widen(&x), &keep);
            let name = |what: &str| format!("{what} {batch}x{size}");
            let twin = |dx: &mut [f32]| cpu::drop_path_backward(&x, &on_cpu, batch, dx);
            let tolerance = tolerance_at(1, 1.0);
            assert_output(&client, &name("dx"), dtype, &expected, tolerance, twin, |dx| {
                dropout::drop_path_backward(&client, &on_x, &on_gpu, batch, dx);
            });
            let expected = reduce::add(&expected, &widen(&residual));
            let twin = |y: &mut [f32]| cpu::drop_path(&x, Some(&residual), &on_cpu, batch, y);
            let (name, tolerance) = (name("y + residual"), tolerance_at(2, 1.0));
            assert_output(&client, &name, dtype, &expected, tolerance, twin, |y| {
                dropout::drop_path(&client, &on_x, Some(&on_residual), &on_gpu, batch, y);
            });
        }
    }
}
