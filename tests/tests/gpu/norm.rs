use super::device::{client, dtypes, rounded};
use super::output::assert_output;
use vitmae_cpu::norm as cpu;
use vitmae_kernels::{Array, Dtype, norm};
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::norm as reference;

/// Both sides of a vector, of a cube and of the part of a cube.
const LENGTHS: [usize; 8] = [0, 1, 3, 8, 257, 1028, 16_385, 50_000];

#[test]
fn sums_of_squares_equal_the_reference() {
    let (client, mut draws) = (client(), Draws::new(1));
    for dtype in dtypes(&client) {
        for count in LENGTHS {
            let x = rounded(&draws.vec_f32(count), dtype);
            let on_x = Array::from_f32_as(&client, &x, dtype);
            let expected = reference::sum_of_squares(&widen(&x));
            let tolerance = tolerance_at(count, 0.0);
            let name = format!("{count} of {dtype}");
            let twin = |sum: &mut [f32]| sum[0] = cpu::sum_of_squares(&x) as f32;
            assert_output(&client, &name, Dtype::F32, &[expected], tolerance, twin, |sum| {
                norm::sum_of_squares(&client, &on_x, sum);
            });
        }
    }
}

#[test]
fn the_sum_over_several_arrays_is_that_of_their_sums() {
    let (client, mut draws) = (client(), Draws::new(2));
    let arrays = LENGTHS.map(|count| draws.vec_f32(count));
    let on_arrays = arrays.each_ref().map(|x| Array::from_f32(&client, x));
    let expected: f64 = arrays.iter().map(|x| reference::sum_of_squares(&widen(x))).sum();
    let tolerance = tolerance_at(50_000, 0.0);
    let twin = |sum: &mut [f32]| {
        sum[0] = arrays.iter().map(|x| cpu::sum_of_squares(x)).sum::<f64>() as f32;
    };
    assert_output(&client, "all", Dtype::F32, &[expected], tolerance, twin, |sum| {
        norm::sum_of_squares_of_all(&client, &on_arrays.each_ref(), sum);
    });
}

#[test]
fn arrays_that_share_launches_count_once_each() {
    let (client, mut draws) = (client(), Draws::new(3));
    assert!(client.properties().hardware.max_bindings >= 17, "this device does not share launches");
    let arrays: Vec<Vec<f32>> = (0..60).map(|i| draws.vec_f32([1028, 20_000, 5][i % 3])).collect();
    let on_arrays: Vec<_> = arrays.iter().map(|x| Array::from_f32(&client, x)).collect();
    let expected: f64 = arrays.iter().map(|x| reference::sum_of_squares(&widen(x))).sum();
    let twin = |sum: &mut [f32]| {
        sum[0] = arrays.iter().map(|x| cpu::sum_of_squares(x)).sum::<f64>() as f32;
    };
    let tolerance = tolerance_at(50_000, 0.0);
    assert_output(&client, "shared", Dtype::F32, &[expected], tolerance, twin, |sum| {
        norm::sum_of_squares_of_all(&client, &on_arrays.iter().collect::<Vec<_>>(), sum);
    });
}

#[test]
fn the_norm_is_the_root_of_the_sum() {
    let client = client();
    let arrays = [[3.0f32, 0.0, 4.0], [0.0, 12.0, 0.0]].map(|x| Array::from_f32(&client, &x));
    let root = |norm: &mut [f32]| norm[0] = 13.0;
    assert_output(&client, "norm", Dtype::F32, &[13.0], tolerance_at(4, 0.0), root, |norm| {
        norm::global_norm(&client, &arrays.each_ref(), norm);
    });
}

#[test]
fn the_scale_clips_and_stays_zero_after_a_bad_value() {
    let client = client();
    let scale_after = |value: f32, longest: Option<f32>, before: f32| {
        let [value, scale] = [value, before].map(|x| Array::from_f32(&client, &[x]));
        norm::clip_scale(&client, &value, longest, &scale);
        scale.to_f32(&client).expect("a value")[0]
    };
    let values = [0.0, 0.5, 4.0, 1e30, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    for (value, longest) in values.into_iter().flat_map(|x| [(x, None), (x, Some(1.0))]) {
        for before in [1.0, 0.25, 0.0] {
            let found = scale_after(value, longest, before);
            let expected = cpu::clip_scale(value, longest, before);
            let near = (found - expected).abs() <= 1e-6 * expected;
            assert!(near, "{value}, {longest:?}, {before}: {found}, expected {expected}");
        }
    }
}

#[test]
fn a_value_that_is_no_number_shows_in_the_sum() {
    let client = client();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = vec![1.0; 20_000];
        x[17_001] = bad;
        let sum = Array::empty(&client, 1, Dtype::F32);
        norm::sum_of_squares(&client, &Array::from_f32(&client, &x), &sum);
        assert!(!sum.to_f32(&client).expect("a value")[0].is_finite(), "{bad}");
    }
}
