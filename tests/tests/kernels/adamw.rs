use super::pools;
use vitmae_cpu::adamw::{self, Settings};
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::guarded::Guarded;
use vitmae_testing::reference::adamw as reference;

/// Both sides of a vector and of a chunk.
const LENGTHS: [usize; 9] = [0, 1, 7, 16, 33, 1000, 16_384, 16_385, 40_000];

fn settings(step: u64) -> Settings {
    Settings { lr: 0.05, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, step }
}

fn of_reference(settings: &Settings) -> reference::Settings {
    let Settings { lr, betas: [beta1, beta2], eps, weight_decay, step } = *settings;
    let step = u32::try_from(step).expect("a step of the test");
    reference::Settings { lr, beta1, beta2, eps, weight_decay, step }
}

/// A second moment that is not near 0, so that the size of an update is known.
fn second_moment(draws: &mut Draws, count: usize) -> Vec<f32> {
    (0..count).map(|_| draws.between(0.05, 1.0) as f32).collect()
}

#[test]
fn one_step_equals_the_reference() {
    let mut draws = Draws::new(1);
    for (count, number) in LENGTHS.into_iter().flat_map(|n| [1, 2, 50_000].map(|step| (n, step))) {
        let settings = settings(number);
        let (value, gradient) = (draws.vec_f32(count), draws.vec_f32(count));
        let (m, v) = (draws.vec_f32(count), second_moment(&mut draws, count));
        let found = pools::run("adamw", || {
            let mut state = [&value, &m, &v].map(|part| Guarded::filled(part));
            let [value, m, v] = state.each_mut().map(Guarded::slice);
            adamw::step(value, &gradient, m, v, 1.0, &settings);
            state.map(|part| part.finish("state"))
        });
        if count == 0 {
            continue;
        }
        let state = reference::State { value: widen(&value), m: widen(&m), v: widen(&v) };
        let next = reference::step(&state, &widen(&gradient), of_reference(&settings));
        // The first update has 1/(1 − β₂) = 20 under the root: an update is at most lr·10·√20 ≈ 2.
        for (name, found, expected) in
            [("value", &found[0], next.value), ("m", &found[1], next.m), ("v", &found[2], next.v)]
        {
            assert_close(
                &format!("{name} {count} step {number}"),
                found,
                &expected,
                tolerance_at(12, 2.0),
            );
        }
    }
}

#[test]
fn a_hundred_steps_from_zero_moments_stay_with_the_reference() {
    let mut draws = Draws::new(2);
    let count = 257;
    let (mut value, mut m, mut v) = (draws.vec_f32(count), vec![0.0; count], vec![0.0; count]);
    let mut state = reference::State { value: widen(&value), m: widen(&m), v: widen(&v) };
    for number in 1..=100 {
        let settings = settings(number);
        let gradient = draws.vec_f32(count);
        adamw::step(&mut value, &gradient, &mut m, &mut v, 1.0, &settings);
        state = reference::step(&state, &widen(&gradient), of_reference(&settings));
    }
    assert_close("value", &value, &state.value, tolerance_at(12 * 100, 1.0));
}

#[test]
fn the_scale_is_a_factor_of_the_gradient_and_zero_stops_the_update() {
    let mut draws = Draws::new(3);
    let (value, gradient) = (draws.vec_f32(100), draws.vec_f32(100));
    let halved: Vec<f32> = gradient.iter().map(|g| 0.5 * g).collect();
    let after = |gradient: &[f32], scale| {
        let (mut value, mut m, mut v) = (value.clone(), vec![0.0; 100], vec![0.0; 100]);
        adamw::step(&mut value, gradient, &mut m, &mut v, scale, &settings(1));
        [value, m, v]
    };
    assert_eq!(after(&gradient, 0.5), after(&halved, 1.0));
    assert_eq!(after(&gradient, 0.0), [value.clone(), vec![0.0; 100], vec![0.0; 100]]);
}

#[test]
#[should_panic(expected = "adamw: the first update is number 1")]
fn step_zero_is_refused() {
    adamw::step(&mut [1.0], &[1.0], &mut [0.0], &mut [0.0], 1.0, &settings(0));
}

#[test]
#[should_panic(expected = "adamw: lengths")]
fn another_length_is_refused() {
    adamw::step(&mut [1.0], &[1.0, 2.0], &mut [0.0], &mut [0.0], 1.0, &settings(1));
}
