use super::pools;
use super::rounded::{assert_same, both};
use vitmae_cpu::reduce;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::guarded::Guarded;
use vitmae_testing::reference::reduce as reference;

/// Rows and width: both sides of the parts of a sum.
const SHAPES: [(usize, usize); 10] = [
    (0, 3),
    (1, 1),
    (2, 17),
    (31, 16),
    (257, 33),
    (1000, 3),
    (6304, 64),
    (50, 769),
    (3, 8192),
    (10_000, 1),
];

#[test]
fn sums_of_rows_equal_the_reference() {
    let mut draws = Draws::new(1);
    for (rows, width) in SHAPES {
        let x = draws.vec_f32(rows * width);
        let expected = reference::sum_columns(&widen(&x), width);
        let tolerance = tolerance_at(rows + 1, 3.0 + (rows as f64).sqrt());
        pools::assert_sum(&format!("{rows}x{width}"), &expected, tolerance, |out, add| {
            reduce::sum_rows(&x, out, add);
        });
    }
}

#[test]
fn addition_equals_the_reference() {
    let mut draws = Draws::new(2);
    for count in [0, 1, 17, 16_384, 16_385, 50_000] {
        let (a, b) = (draws.vec_f32(count), draws.vec_f32(count));
        let expected = reference::add(&widen(&a), &widen(&b));
        pools::assert_output("a + b", &expected, tolerance_at(1, 1.0), |out| {
            reduce::add(&a, &b, out);
        });
    }
}

/// The gradient has a closed form: the share of each token that counts.
#[test]
fn means_of_tokens_equal_the_reference_forward_and_backward() {
    let mut draws = Draws::new(3);
    for (batch, tokens, width, first) in
        [(1, 1, 1, 0), (2, 5, 17, 1), (3, 197, 33, 1), (9, 50, 64, 0), (2, 4, 3, 3)]
    {
        let x = draws.vec_f32(batch * tokens * width);
        let dout = draws.vec_f32(batch * width);
        let expected = reference::mean_tokens(&widen(&x), tokens, width, first);
        pools::assert_output("mean", &expected, tolerance_at(tokens + 1, 1.0), |out| {
            reduce::mean_tokens(&x, tokens, width, first, out);
        });
        let share = 1.0 / (tokens - first) as f64;
        let expected: Vec<f64> = (0..batch * tokens * width)
            .map(|i| (i / (tokens * width), i / width % tokens, i % width))
            .map(|(b, n, d)| if n < first { 0.0 } else { share * f64::from(dout[b * width + d]) })
            .collect();
        pools::assert_output("dx", &expected, tolerance_at(2, 1.0), |dx| {
            reduce::mean_tokens_backward(&dout, tokens, width, first, dx);
        });
    }
}

#[test]
fn sums_of_rows_in_bf16_are_those_of_the_same_values_in_f32() {
    let mut draws = Draws::new(4);
    for (rows, width) in SHAPES.into_iter().chain([(40, 683), (41, 2047), (9, 2049), (700, 1025)]) {
        let (x, wide) = both(&draws.vec_f32(rows * width));
        let before = draws.vec_f32(width);
        for add in [false, true] {
            let out = || if add { Guarded::filled(&before) } else { Guarded::poisoned(width) };
            let name = format!("{rows}x{width}, accumulated: {add}");
            let mut expected = out();
            reduce::sum_rows(&wide, expected.slice(), add);
            let found = pools::run(&name, || {
                let mut out = out();
                reduce::sum_rows(&x, out.slice(), add);
                [out.finish("sums")]
            });
            assert_same(&name, &found, &[expected.finish("sums")]);
        }
    }
}
