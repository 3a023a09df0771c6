use super::device::{client, dtypes, rounded};
use super::output::assert_output;
use vitmae_cpu::cross_entropy as cpu;
use vitmae_kernels::cross_entropy::{self, IGNORED};
use vitmae_kernels::{Array, Dtype};
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::cross_entropy as reference;

/// Rows and classes: both sides of the units of a cube.
const SHAPES: [(usize, usize); 6] = [(1, 1), (1, 2), (3, 2), (33, 10), (7, 1000), (300, 17)];

/// Labels with every third row ignored, but never all.
fn labels(draws: &mut Draws, rows: usize, classes: usize) -> Vec<i64> {
    let label = |row: usize, class: usize| if row % 3 == 1 { IGNORED } else { class as i64 };
    (0..rows).map(|row| label(row, draws.integer(0..=classes - 1))).collect()
}

#[test]
fn forward_and_backward_equal_the_reference() {
    let (client, mut draws) = (client(), Draws::new(1));
    let cases = SHAPES.into_iter().flat_map(|s| [0.0f32, 0.1].map(|smoothing| (s, smoothing)));
    for dtype in dtypes(&client) {
        for ((rows, classes), smoothing) in cases.clone() {
            let logits: Vec<f32> = draws.vec_f32(rows * classes).iter().map(|x| 8.0 * x).collect();
            let logits = rounded(&logits, dtype);
            let labels = labels(&mut draws, rows, classes);
            let on_logits = Array::from_f32_as(&client, &logits, dtype);
            let name = format!("{rows}x{classes}, smoothing {smoothing}, of {dtype}");
            let wide = widen(&logits);
            let expected = reference::forward(&wide, &labels, smoothing.into());
            let tolerance = tolerance_at(classes + rows, 8.0);
            let twin = |loss: &mut [f32]| loss[0] = cpu::forward(&logits, &labels, smoothing);
            assert_output(&client, &name, Dtype::F32, &[expected], tolerance, twin, |loss| {
                cross_entropy::forward(&client, &on_logits, &labels, smoothing, loss);
            });
            let gradient = reference::backward(&wide, &labels, smoothing.into());
            let expected: Vec<f64> = gradient.iter().map(|g| 2.5 * g).collect();
            let tolerance = tolerance_at(classes + 8, 1.0);
            let twin = |dlogits: &mut [f32]| {
                cpu::backward(&logits, &labels, smoothing, 2.5, dlogits);
            };
            assert_output(&client, &name, dtype, &expected, tolerance, twin, |dlogits| {
                cross_entropy::backward(&client, &on_logits, &labels, smoothing, 2.5, dlogits);
            });
        }
    }
}

#[test]
fn scores_far_apart_neither_overflow_nor_vanish() {
    let client = client();
    let logits = [1e4, -1e4, 3e38, 3e38];
    let on_logits = Array::from_f32(&client, &logits);
    let labels = [1, 0];
    let expected = (2e4 + 2f64.ln()) / 2.0;
    // The CPU adds the largest score before it subtracts the own one, and loses ln 2 beside 3e38.
    let twin = |loss: &mut [f32]| loss[0] = expected as f32;
    let f32 = Dtype::F32;
    assert_output(&client, "loss", f32, &[expected], tolerance_at(1, 1e4), twin, |loss| {
        cross_entropy::forward(&client, &on_logits, &labels, 0.0, loss);
    });
    let expected = [0.5, -0.5, -0.25, 0.25];
    let twin = |dlogits: &mut [f32]| dlogits.copy_from_slice(&[0.5, -0.5, -0.25, 0.25]);
    assert_output(&client, "dlogits", f32, &expected, tolerance_at(4, 1.0), twin, |dlogits| {
        cross_entropy::backward(&client, &on_logits, &labels, 0.0, 1.0, dlogits);
    });
}

#[test]
fn with_every_row_ignored_the_loss_is_not_a_number_and_its_gradient_0() {
    let client = client();
    let logits = Array::from_f32(&client, &[1.0, 2.0]);
    let loss = Array::empty(&client, 1, Dtype::F32);
    cross_entropy::forward(&client, &logits, &[IGNORED], 0.0, &loss);
    assert!(loss.to_f32(&client).expect("a value")[0].is_nan());
    let (tolerance, twin) = (tolerance_at(1, 0.0), |d: &mut [f32]| d.fill(0.0));
    assert_output(&client, "dlogits", Dtype::F32, &[0.0; 2], tolerance, twin, |dlogits| {
        cross_entropy::backward(&client, &logits, &[IGNORED], 0.0, 1.0, dlogits);
    });
}

#[test]
#[should_panic(expected = "cross_entropy: a label is not below 2")]
fn a_class_that_does_not_exist_is_refused() {
    let client = client();
    let logits = Array::from_f32(&client, &[1.0, 2.0]);
    cross_entropy::forward(&client, &logits, &[2], 0.0, &Array::empty(&client, 1, Dtype::F32));
}
