use super::device::{Canary, client};
use super::output::of_two;
use vitmae_cpu::adamw as cpu;
use vitmae_kernels::adamw::{self, Parameter, Settings};
use vitmae_kernels::{Array, Client};
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::adamw as reference;

/// Both sides of a vector and of a cube.
const LENGTHS: [usize; 7] = [0, 1, 7, 16, 1024, 1028, 20_001];

fn settings(step: u64) -> Settings {
    Settings { lr: 0.05, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, step }
}

fn of_reference(settings: &Settings) -> reference::Settings {
    let Settings { lr, betas: [beta1, beta2], eps, weight_decay, step } = *settings;
    let step = u32::try_from(step).expect("a step of the test");
    reference::Settings { lr, beta1, beta2, eps, weight_decay, step }
}

fn of_cpu(settings: &Settings) -> cpu::Settings {
    let Settings { lr, betas, eps, weight_decay, step } = *settings;
    cpu::Settings { lr, betas, eps, weight_decay, step }
}

/// A second moment that is not near 0, so that the size of an update is known.
fn second_moment(draws: &mut Draws, count: usize) -> Vec<f32> {
    (0..count).map(|_| draws.between(0.05, 1.0) as f32).collect()
}

/// The state `[value, m, v]` after one update on the device.
fn step(
    client: &Client,
    state: [&[f32]; 3],
    gradient: &[f32],
    scale: f32,
    settings: Settings,
) -> [Vec<f32>; 3] {
    let on_state = state.map(|part| Canary::filled(client, part));
    let [value, m, v] = on_state.each_ref().map(Canary::array);
    let gradient = &Array::from_f32(client, gradient);
    let scale = &Array::from_f32(client, &[scale]);
    adamw::step(client, &[Parameter { value, gradient, m, v, settings }], scale);
    on_state.map(|part| part.finish(client, "state"))
}

#[test]
fn one_step_equals_the_reference() {
    let (client, mut draws) = (client(), Draws::new(1));
    for (count, number) in LENGTHS.into_iter().flat_map(|n| [1, 2, 50_000].map(|step| (n, step))) {
        let settings = settings(number);
        let (value, gradient) = (draws.vec_f32(count), draws.vec_f32(count));
        let (m, v) = (draws.vec_f32(count), second_moment(&mut draws, count));
        let found = step(&client, [&value, &m, &v], &gradient, 1.0, settings);
        if count == 0 {
            continue;
        }
        let state = reference::State { value: widen(&value), m: widen(&m), v: widen(&v) };
        let next = reference::step(&state, &widen(&gradient), of_reference(&settings));
        let mut twin = [value, m, v];
        let [value, m, v] = &mut twin;
        cpu::step(value, &gradient, m, v, 1.0, &of_cpu(&settings));
        // The first update has 1/(1 − β₂) = 20 under the root: an update is at most lr·10·√20 ≈ 2.
        let tolerance = tolerance_at(12, 2.0);
        for (i, expected) in [next.value, next.m, next.v].into_iter().enumerate() {
            let name = format!("{} of {count}, step {number}", ["value", "m", "v"][i]);
            assert_close(&name, &found[i], &expected, tolerance);
            assert_close(&format!("{name}, CPU twin"), &found[i], &twin[i], of_two(tolerance));
        }
    }
}

#[test]
fn several_parameters_keep_their_own_settings_over_steps() {
    let (client, mut draws) = (client(), Draws::new(2));
    let counts = [257, 64];
    let values = counts.map(|count| draws.vec_f32(count));
    let on_values = values.each_ref().map(|value| Array::from_f32(&client, value));
    let [on_m, on_v] =
        [0, 1].map(|_| counts.map(|count| Array::from_f32(&client, &vec![0.0; count])));
    let zeros = |count| vec![0.0; count];
    let mut states = [0, 1].map(|i| reference::State {
        value: widen(&values[i]),
        m: zeros(counts[i]),
        v: zeros(counts[i]),
    });
    for number in 1..=20 {
        let settings = [0.0, 0.1].map(|decay| Settings { weight_decay: decay, ..settings(number) });
        let gradients = counts.map(|count| draws.vec_f32(count));
        let on_gradients = gradients.each_ref().map(|gradient| Array::from_f32(&client, gradient));
        let parameters = [0, 1].map(|i| Parameter {
            value: &on_values[i],
            gradient: &on_gradients[i],
            m: &on_m[i],
            v: &on_v[i],
            settings: settings[i],
        });
        adamw::step(&client, &parameters, &Array::from_f32(&client, &[1.0]));
        for i in [0, 1] {
            let gradient = widen(&gradients[i]);
            states[i] = reference::step(&states[i], &gradient, of_reference(&settings[i]));
        }
    }
    for i in [0, 1] {
        let found = on_values[i].to_f32(&client).expect("values come back");
        assert_close("value", &found, &states[i].value, tolerance_at(12 * 20, 1.0));
    }
}

#[test]
fn parameters_that_share_launches_are_updated_as_alone() {
    let (client, mut draws) = (client(), Draws::new(4));
    assert!(client.properties().hardware.max_bindings >= 9, "this device does not share launches");
    // More than a launch takes, of three lengths and two settings, mixed.
    let counts: Vec<usize> = (0..31).map(|i| [768, 1030, 0, 7][i % 4]).collect();
    let settings = [0.0, 0.1].map(|weight_decay| Settings { weight_decay, ..settings(3) });
    let of = |i: usize| settings[i % 2];
    let scale = Array::from_f32(&client, &[0.5]);
    let states: Vec<[Vec<f32>; 3]> = counts
        .iter()
        .map(|&n| [draws.vec_f32(n), draws.vec_f32(n), second_moment(&mut draws, n)])
        .collect();
    let gradients: Vec<Vec<f32>> = counts.iter().map(|&n| draws.vec_f32(n)).collect();
    let on_gradients: Vec<_> = gradients.iter().map(|g| Array::from_f32(&client, g)).collect();
    let on_states: Vec<_> = states
        .iter()
        .map(|state| state.each_ref().map(|part| Canary::filled(&client, part)))
        .collect();
    let parameters: Vec<_> = (on_states.iter().zip(&on_gradients).enumerate())
        .map(|(i, (state, gradient))| {
            let [value, m, v] = state.each_ref().map(Canary::array);
            Parameter { value, gradient, m, v, settings: of(i) }
        })
        .collect();
    adamw::step(&client, &parameters, &scale);
    for (i, found) in on_states.into_iter().enumerate() {
        let alone =
            step(&client, states[i].each_ref().map(|part| &part[..]), &gradients[i], 0.5, of(i));
        assert_eq!(found.map(|part| part.finish(&client, "state")), alone, "parameter {i}");
    }
}

#[test]
fn the_scale_is_a_factor_of_the_gradient_and_zero_stops_the_update() {
    let (client, mut draws) = (client(), Draws::new(3));
    let (value, gradient) = (draws.vec_f32(100), draws.vec_f32(100));
    let halved: Vec<f32> = gradient.iter().map(|g| 0.5 * g).collect();
    let after = |gradient: &[f32], scale| {
        step(&client, [&value, &[0.0; 100], &[0.0; 100]], gradient, scale, settings(1))
    };
    assert_eq!(after(&gradient, 0.5), after(&halved, 1.0));
    assert_eq!(after(&gradient, 0.0), [value.clone(), vec![0.0; 100], vec![0.0; 100]]);
}

#[test]
#[should_panic(expected = "adamw: the first update is number 1")]
fn step_zero_is_refused() {
    step(&client(), [&[1.0], &[0.0], &[0.0]], &[1.0], 1.0, settings(0));
}

#[test]
#[should_panic(expected = "adamw: lengths")]
fn another_length_is_refused() {
    step(&client(), [&[1.0], &[0.0], &[0.0]], &[1.0, 2.0], 1.0, settings(1));
}
