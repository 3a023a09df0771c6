use super::device::{Canary, client};
use super::output::of_two;
use vitmae_cpu::ema as cpu;
use vitmae_kernels::ema::{self, Parameter};
use vitmae_kernels::{Array, Client};
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::ema as reference;

/// Both sides of a vector and of a cube.
const LENGTHS: [usize; 7] = [0, 1, 7, 16, 1024, 1028, 20_001];

/// The average after one update on the device.
fn step(client: &Client, average: &[f32], value: &[f32], scale: f32, decay: f64) -> Vec<f32> {
    let on_average = Canary::filled(client, average);
    let parameter =
        Parameter { average: on_average.array(), value: &Array::from_f32(client, value) };
    ema::step(client, &[parameter], &Array::from_f32(client, &[scale]), decay);
    on_average.finish(client, "average")
}

#[test]
fn one_step_equals_the_reference() {
    let (client, mut draws) = (client(), Draws::new(1));
    for (count, decay) in LENGTHS.into_iter().flat_map(|n| [0.0, 0.5, 0.9999].map(|d| (n, d))) {
        let (average, value) = (draws.vec_f32(count), draws.vec_f32(count));
        let found = step(&client, &average, &value, 0.5, decay);
        if count == 0 {
            continue;
        }
        let expected = reference::step(&widen(&average), &widen(&value), decay);
        let mut twin = average;
        cpu::step(&mut twin, &value, 0.5, decay);
        // A difference, a product and a sum; values are below 1, so the difference is below 2.
        let tolerance = tolerance_at(3, 1.0);
        let name = format!("average of {count}, decay {decay}");
        assert_close(&name, &found, &expected, tolerance);
        assert_close(&format!("{name}, CPU twin"), &found, &twin, of_two(tolerance));
    }
}

#[test]
fn parameters_that_share_launches_are_updated_as_alone() {
    let (client, mut draws) = (client(), Draws::new(2));
    assert!(client.properties().hardware.max_bindings >= 5, "this device does not share launches");
    // More than a launch takes, of four lengths, mixed.
    let counts: Vec<usize> = (0..43).map(|i| [768, 1030, 0, 7][i % 4]).collect();
    let averages: Vec<Vec<f32>> = counts.iter().map(|&n| draws.vec_f32(n)).collect();
    let values: Vec<Vec<f32>> = counts.iter().map(|&n| draws.vec_f32(n)).collect();
    let on_averages: Vec<_> = averages.iter().map(|a| Canary::filled(&client, a)).collect();
    let on_values: Vec<_> = values.iter().map(|w| Array::from_f32(&client, w)).collect();
    let parameters: Vec<_> = on_averages
        .iter()
        .zip(&on_values)
        .map(|(average, value)| Parameter { average: average.array(), value })
        .collect();
    ema::step(&client, &parameters, &Array::from_f32(&client, &[1.0]), 0.75);
    for (i, found) in on_averages.into_iter().enumerate() {
        let alone = step(&client, &averages[i], &values[i], 1.0, 0.75);
        assert_eq!(found.finish(&client, "average"), alone, "parameter {i}");
    }
}

#[test]
fn an_average_of_what_stays_stays_and_a_scale_of_zero_stops_it() {
    let (client, value) = (client(), Draws::new(3).vec_f32(100));
    let on_average = Canary::filled(&client, &value);
    let parameter =
        Parameter { average: on_average.array(), value: &Array::from_f32(&client, &value) };
    let scale = Array::from_f32(&client, &[1.0]);
    for _ in 0..2000 {
        ema::step(&client, &[parameter], &scale, 0.9999);
    }
    assert_eq!(on_average.finish(&client, "average"), value);
    assert_eq!(step(&client, &value, &[5.0; 100], 0.0, 0.9), value);
}

#[test]
#[should_panic(expected = "ema: lengths")]
fn another_length_is_refused() {
    step(&client(), &[1.0], &[1.0, 2.0], 1.0, 0.9);
}
