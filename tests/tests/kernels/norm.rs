use super::pools;
use vitmae_cpu::norm;
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::norm as reference;

/// Both sides of a row of lanes and of a chunk.
const LENGTHS: [usize; 8] = [0, 1, 7, 8, 9, 16_384, 16_385, 100_000];

#[test]
fn the_norm_equals_the_reference() {
    let mut draws = Draws::new(1);
    for count in LENGTHS {
        let x = draws.vec_f32(count);
        // As two halves of its bits, so that all 64 must agree between the pools.
        let [halves] = pools::run("norm", || {
            let bits = norm::norm(&x).to_bits();
            [[bits as u32, (bits >> 32) as u32].map(f32::from_bits).to_vec()]
        });
        let bits =
            halves.iter().rev().fold(0u64, |bits, half| bits << 32 | u64::from(half.to_bits()));
        let expected = reference::global_norm(&[&widen(&x)]);
        // The sum is one of f64.
        let tolerance = tolerance_at(1, 1e-6 * expected);
        assert_close("norm", &[f64::from_bits(bits)], &[expected], tolerance);
    }
}

#[test]
fn large_and_small_values_neither_overflow_nor_vanish() {
    assert_close("large", &[norm::norm(&[3e30, 4e30])], &[5e30], tolerance_at(4, 1.0));
    assert_close("small", &[norm::norm(&[3e-30, 4e-30])], &[5e-30], tolerance_at(4, 0.0));
}

#[test]
fn the_scale_clips_and_stays_zero_after_a_bad_value() {
    for (value, longest) in [(0.5, Some(1.0)), (4.0, Some(1.0)), (4.0, None), (0.0, Some(1e-3))] {
        let found = norm::clip_scale(value, longest, 0.25);
        let expected = reference::clip_scale(value.into(), longest.map(f64::from), 0.25);
        assert_close("scale", &[found], &[expected], tolerance_at(3, 0.0));
        assert_eq!(norm::clip_scale(value, longest, 0.0), 0.0);
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(norm::clip_scale(bad, Some(1.0), 1.0), 0.0);
        assert_eq!(norm::clip_scale(bad, None, 1.0), 0.0);
    }
}

#[test]
fn a_value_that_is_no_number_is_found() {
    assert_eq!(norm::first_non_finite(&[1.0, f32::MAX, -0.0]), None);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = vec![1.0; 20_000];
        (x[17_000], x[19_000]) = (bad, bad);
        assert_eq!(norm::first_non_finite(&x), Some(17_000));
        assert_eq!(norm::first_non_finite(&x), reference::first_non_finite(&widen(&x)));
        assert!(!norm::norm(&x).is_finite());
    }
}
