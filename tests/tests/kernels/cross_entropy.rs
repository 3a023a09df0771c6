use super::pools;
use vitmae_cpu::cross_entropy;
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::cross_entropy as reference;

/// Rows and classes.
const SHAPES: [(usize, usize); 6] = [(1, 1), (1, 2), (3, 2), (33, 10), (7, 1000), (257, 17)];

/// Labels with every third row ignored, but never all.
fn labels(draws: &mut Draws, rows: usize, classes: usize) -> Vec<i64> {
    let label =
        |row: usize, class: usize| if row % 3 == 1 { reference::IGNORED } else { class as i64 };
    (0..rows).map(|row| label(row, draws.integer(0..=classes - 1))).collect()
}

#[test]
fn forward_and_backward_equal_the_reference() {
    let mut draws = Draws::new(1);
    for ((rows, classes), smoothing) in
        SHAPES.into_iter().flat_map(|s| [0.0f32, 0.1].map(|x| (s, x)))
    {
        let logits: Vec<f32> = draws.vec_f32(rows * classes).iter().map(|x| 8.0 * x).collect();
        let labels = labels(&mut draws, rows, classes);
        let name = format!("{rows}x{classes}, smoothing {smoothing}");
        let wide = widen(&logits);
        let loss = cross_entropy::forward(&logits, &labels, smoothing);
        let expected = reference::forward(&wide, &labels, smoothing.into());
        assert_close(&name, &[loss], &[expected], tolerance_at(4, 8.0));
        let gradient = reference::backward(&wide, &labels, smoothing.into());
        let expected: Vec<f64> = gradient.iter().map(|g| 2.5 * g).collect();
        pools::assert_output(&name, &expected, tolerance_at(4, 1.0), |dlogits| {
            cross_entropy::backward(&logits, &labels, smoothing, 2.5, dlogits);
        });
    }
}

#[test]
fn scores_far_apart_neither_overflow_nor_vanish() {
    let logits = [1e4, -1e4, 3e38, 3e38];
    let loss = cross_entropy::forward(&logits, &[1, 0], 0.0);
    let expected = (2e4 + 2f64.ln()) / 2.0;
    assert_close("loss", &[loss], &[expected], tolerance_at(4, 1e4));
    pools::assert_output("dlogits", &[0.5, -0.5, -0.25, 0.25], tolerance_at(4, 1.0), |dlogits| {
        cross_entropy::backward(&logits, &[1, 0], 0.0, 1.0, dlogits);
    });
}

#[test]
fn with_every_row_ignored_the_loss_is_not_a_number() {
    assert!(cross_entropy::forward(&[1.0, 2.0], &[reference::IGNORED], 0.0).is_nan());
}
