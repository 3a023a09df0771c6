use super::pools;
use vitmae_cpu::interpolation::{self, Kernel};
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::interpolation as reference;

type Grid = (usize, usize);

/// From a grid to a grid, and a width: the same size, larger, smaller, other proportions, one row.
const CASES: [(Grid, Grid, usize); 8] = [
    ((1, 1), (1, 1), 1),
    ((1, 1), (3, 2), 5),
    ((4, 4), (4, 4), 17),
    ((4, 4), (7, 9), 8),
    ((14, 14), (6, 5), 33),
    ((14, 14), (24, 24), 64),
    ((1, 196), (1, 576), 16),
    ((5, 3), (3, 5), 15),
];

#[test]
fn forward_and_backward_equal_the_reference() {
    let mut draws = Draws::new(1);
    let kernels = [(Kernel::Torch, reference::Kernel::Torch), (Kernel::Tf, reference::Kernel::Tf)];
    for ((from, to, width), (kernel, of_reference)) in
        CASES.into_iter().flat_map(|case| kernels.map(|kernel| (case, kernel)))
    {
        let table = draws.vec_f32(from.0 * from.1 * width);
        let dout = draws.vec_f32(to.0 * to.1 * width);
        let name = |what: &str| format!("{what} {kernel:?} {from:?} to {to:?}");
        let expected = reference::forward(&widen(&table), from, to, width, of_reference);
        // 4 × 4 taps, and weights that are rounded to f32 from polynomials.
        pools::assert_output(&name("out"), &expected, tolerance_at(24, 2.0), |out| {
            interpolation::forward(&table, from, to, width, kernel, out);
        });
        let expected = reference::backward(&widen(&dout), from, to, width, of_reference);
        let each = (16 * to.0 * to.1).div_ceil(from.0 * from.1);
        let tolerance = tolerance_at(24 + each, 3.0 + (each as f64).sqrt());
        pools::assert_sum(&name("dtable"), &expected, tolerance, |dtable, add| {
            interpolation::backward(&dout, from, to, width, kernel, dtable, add);
        });
    }
}
