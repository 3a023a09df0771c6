use super::device::client;
use super::output::{assert_output, assert_sum};
use vitmae_cpu::interpolation as cpu;
use vitmae_kernels::interpolation::{self, Kernel};
use vitmae_kernels::{Array, Dtype};
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::interpolation as reference;

/// Rows and columns.
type Grid = (usize, usize);

/// From a grid to a grid, and a width: the same size, larger, smaller, other proportions, one row.
const CASES: [(Grid, Grid, usize); 8] = [
    ((1, 1), (1, 1), 1),
    ((1, 1), (3, 2), 5),
    ((4, 4), (4, 4), 17),
    ((4, 4), (7, 9), 8),
    ((14, 14), (6, 5), 33),
    ((14, 14), (24, 24), 16),
    ((1, 196), (1, 576), 4),
    ((5, 3), (3, 5), 15),
];

#[test]
fn forward_and_backward_equal_the_reference() {
    let (client, mut draws) = (client(), Draws::new(1));
    let kernels = [
        (Kernel::Torch, cpu::Kernel::Torch, reference::Kernel::Torch),
        (Kernel::Tf, cpu::Kernel::Tf, reference::Kernel::Tf),
    ];
    for ((from, to, width), (kernel, of_cpu, of_reference)) in
        CASES.into_iter().flat_map(|case| kernels.map(|kernel| (case, kernel)))
    {
        let table = draws.vec_f32(from.0 * from.1 * width);
        let dout = draws.vec_f32(to.0 * to.1 * width);
        let [on_table, on_dout] = [&table, &dout].map(|v| Array::from_f32(&client, v));
        let name = |what: &str| format!("{what} {kernel:?} {from:?} to {to:?}");
        let expected = reference::forward(&widen(&table), from, to, width, of_reference);
        // 4 × 4 taps, and weights that are rounded to f32 from polynomials.
        let tolerance = tolerance_at(24, 2.0);
        let twin = |out: &mut [f32]| cpu::forward(&table, from, to, width, of_cpu, out);
        assert_output(&client, &name("out"), Dtype::F32, &expected, tolerance, twin, |out| {
            interpolation::forward(&client, &on_table, from, to, width, kernel, out);
        });
        let expected = reference::backward(&widen(&dout), from, to, width, of_reference);
        let each = (16 * to.0 * to.1).div_ceil(from.0 * from.1);
        let tolerance = tolerance_at(24 + each, 3.0 + (each as f64).sqrt());
        let twin = |dtable: &mut [f32], add| {
            cpu::backward(&dout, from, to, width, of_cpu, dtable, add);
        };
        assert_sum(&client, &name("dtable"), &expected, tolerance, twin, |dtable, add| {
            interpolation::backward(&client, &on_dout, from, to, width, kernel, dtable, add);
        });
    }
}
