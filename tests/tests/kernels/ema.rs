use super::pools;
use vitmae_cpu::ema;
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::guarded::Guarded;
use vitmae_testing::reference::ema as reference;

/// Both sides of a vector and of a chunk.
const LENGTHS: [usize; 9] = [0, 1, 7, 16, 33, 1000, 16_384, 16_385, 40_000];

#[test]
fn one_step_equals_the_reference() {
    let mut draws = Draws::new(1);
    for (count, decay) in LENGTHS.into_iter().flat_map(|n| [0.0, 0.5, 0.9999].map(|d| (n, d))) {
        let (average, value) = (draws.vec_f32(count), draws.vec_f32(count));
        let found = pools::run("ema", || {
            let mut average = Guarded::filled(&average);
            ema::step(average.slice(), &value, 0.5, decay);
            [average.finish("average")]
        });
        if count == 0 {
            continue;
        }
        let expected = reference::step(&widen(&average), &widen(&value), decay);
        let name = format!("average of {count}, decay {decay}");
        // It is rounded once.
        assert_close(&name, &found[0], &expected, tolerance_at(1, 1.0));
    }
}

#[test]
fn an_average_of_what_stays_stays_and_a_scale_of_zero_stops_it() {
    let value = Draws::new(2).vec_f32(100);
    let mut average = value.clone();
    for _ in 0..20_000 {
        ema::step(&mut average, &value, 1.0, 0.9999);
    }
    assert_eq!(average, value);
    ema::step(&mut average, &[5.0; 100], 0.0, 0.9);
    assert_eq!(average, value);
}

#[test]
#[should_panic(expected = "ema: lengths")]
fn another_length_is_refused() {
    ema::step(&mut [1.0], &[1.0, 2.0], 1.0, 0.9);
}
