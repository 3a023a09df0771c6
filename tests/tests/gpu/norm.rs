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
