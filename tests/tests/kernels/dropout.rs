use super::pools;
use vitmae_cpu::dropout::{self, Dropout};
use vitmae_cpu::random::Stream;
use vitmae_testing::close::Tolerance;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::dropout as reference;
use vitmae_testing::reference::reduce;

/// Both sides of a draw of four and of a chunk.
const LENGTHS: [usize; 8] = [0, 1, 3, 4, 5, 1000, 16_385, 40_001];

fn dropout(rate: f32) -> Dropout {
    Dropout { rate, stream: Stream::new(7, "dropout", 3, 5) }
}

/// The scales by the definition: one number for each index.
fn keep(dropout: &Dropout, count: usize) -> Vec<f32> {
    (0..count as u64).map(|index| dropout.keep_scale(index)).collect()
}

#[test]
fn forward_and_backward_equal_the_reference() {
    let mut draws = Draws::new(1);
    for (count, rate) in LENGTHS.into_iter().flat_map(|n| [0.0, 0.1, 0.5].map(|rate| (n, rate))) {
        let dropout = dropout(rate);
        let (x, residual) = (draws.vec_f32(count), draws.vec_f32(count));
        let keep = widen(&keep(&dropout, count));
        let name = |what: &str| format!("{what} {count} at {rate}");
        pools::assert_output(&name("keep"), &keep, Tolerance::EXACT, |out| {
            dropout::keep(&dropout, out);
        });
        let expected = reference::forward(&widen(&x), &keep);
        pools::assert_output(&name("y"), &expected, tolerance_at(1, 1.0), |y| {
            dropout::forward(&x, None, &dropout, y);
        });
        pools::assert_output(&name("dx"), &expected, tolerance_at(1, 1.0), |dx| {
            dropout::backward(&x, &dropout, dx);
        });
        let expected = reduce::add(&expected, &widen(&residual));
        pools::assert_output(&name("y + residual"), &expected, tolerance_at(2, 1.0), |y| {
            dropout::forward(&x, Some(&residual), &dropout, y);
        });
    }
}

#[test]
fn scales_are_zero_or_the_inverse_of_the_share_kept_and_keep_the_mean() {
    for rate in [0.1f32, 0.5, 0.9] {
        let keep = keep(&dropout(rate), 200_000);
        let scale = 1.0 / (1.0 - rate);
        assert!(keep.iter().all(|&k| k == 0.0 || k == scale), "rate {rate}");
        let dropped = keep.iter().filter(|&&k| k == 0.0).count() as f64 / 200_000.0;
        // Five standard deviations of a binomial share.
        let bound = 5.0 * (f64::from(rate) * (1.0 - f64::from(rate)) / 200_000.0).sqrt();
        assert!((dropped - f64::from(rate)).abs() < bound, "rate {rate}: {dropped} dropped");
    }
}

#[test]
fn a_run_of_scales_may_start_anywhere() {
    let dropout = dropout(0.3);
    let all = keep(&dropout, 40);
    for start in 0..9 {
        let mut part = [0.0; 13];
        dropout.keep_scales(start as u64, &mut part);
        assert_eq!(part, all[start..start + 13], "from {start}");
    }
}

#[test]
fn drop_path_has_one_draw_an_image() {
    let mut draws = Draws::new(2);
    for (batch, size) in [(1, 1), (3, 7), (5, 64), (9, 1000), (130, 12)] {
        let dropout = dropout(0.4);
        let (x, residual) = (draws.vec_f32(batch * size), draws.vec_f32(batch * size));
        let keep = widen(&keep(&dropout, batch));
        let name = |what: &str| format!("{what} {batch}x{size}");
        let expected = reference::forward_per_image(&widen(&x), &keep);
        pools::assert_output(&name("dx"), &expected, tolerance_at(1, 1.0), |dx| {
            dropout::drop_path_backward(&x, &dropout, batch, dx);
        });
        let expected = reduce::add(&expected, &widen(&residual));
        pools::assert_output(&name("y + residual"), &expected, tolerance_at(2, 1.0), |y| {
            dropout::drop_path(&x, Some(&residual), &dropout, batch, y);
        });
    }
    dropout::drop_path(&[], None, &dropout(0.4), 0, &mut []);
}

#[test]
#[should_panic(expected = "drop_path: batch")]
fn a_length_that_is_no_multiple_of_the_batch_is_refused() {
    dropout::drop_path(&[1.0; 5], None, &dropout(0.4), 2, &mut [0.0; 5]);
}
