use super::device::{client, dtypes, left_out, rounded, rounding, rounds_freely};
use super::output::assert_output;
use vitmae_cpu::activation as cpu;
use vitmae_kernels::activation::{self, Activation};
use vitmae_kernels::{Array, Dtype};
use vitmae_testing::close::Tolerance;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::activation as reference;
use vitmae_testing::reference::reduce;

/// Roundings of an exponential or an error function by polynomials, a division and a few products.
const TERMS: usize = 16;

/// Dense where the functions bend, and the tails, where they must become constant or straight; the far ones
/// are beyond f16.
fn arguments(dtype: Dtype) -> Vec<f32> {
    let mut x: Vec<f32> = (-600..=600).map(|i| i as f32 * 1e-2).collect();
    x.extend((-100..=100).map(|i| i as f32 * 0.75));
    x.extend([0.0, -0.0, 1e-30, -1e-30, 1e-6, -1e-6, 88.0, -88.0]);
    if dtype == Dtype::F32 {
        x.extend([1e4, -1e4]);
    }
    rounded(&x, dtype)
}

#[test]
fn every_name_equals_the_reference_forward_and_backward() {
    let client = client();
    for dtype in dtypes(&client) {
        let x = arguments(dtype);
        let dy = rounded(&Draws::new(1).vec_f32(x.len()), dtype);
        let [on_x, on_dy] = [&x, &dy].map(|v| Array::from_f32_as(&client, v, dtype));
        for (name, of_reference) in reference::NAMES {
            let act = Activation::from_name(name).unwrap_or_else(|| panic!("`{name}` is unknown"));
            let twin = cpu::Activation::from_name(name).expect("a name of the CPU");
            let expected = reference::forward(&widen(&x), of_reference);
            let tolerance = tolerance_at(TERMS, 1.0);
            let forward = |y: &mut [f32]| cpu::forward(twin, &x, y);
            assert_output(&client, name, dtype, &expected, tolerance, forward, |y| {
                activation::forward(&client, act, &on_x, y);
            });
            let expected = reference::backward(&widen(&dy), &widen(&x), of_reference);
            let backward = |dx: &mut [f32]| cpu::backward(twin, &x, &dy, dx);
            let name = format!("{name} backward");
            assert_output(&client, &name, dtype, &expected, tolerance, backward, |dx| {
                activation::backward(&client, act, &on_x, &on_dy, dx);
            });
        }
    }
}

#[test]
fn the_names_are_those_of_the_reference() {
    let mut names: Vec<&str> = Activation::names().collect();
    let mut expected: Vec<&str> = reference::NAMES.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(Activation::from_name("prelu"), None);
}

#[test]
fn what_is_not_a_number_stays_so() {
    let client = client();
    let (x, ones) = (Array::from_f32(&client, &[f32::NAN]), Array::from_f32(&client, &[1.0]));
    for name in Activation::names() {
        let act = Activation::from_name(name).expect("one of the names");
        let y = Array::empty(&client, 1, Dtype::F32);
        activation::forward(&client, act, &x, &y);
        assert!(y.to_f32(&client).expect("a value")[0].is_nan(), "{name}");
        activation::backward(&client, act, &ones, &x, &y);
        assert!(y.to_f32(&client).expect("a value")[0].is_nan(), "{name} backward");
    }
}

#[test]
fn every_length_is_written_in_full() {
    let (client, mut draws) = (client(), Draws::new(2));
    let gelu = reference::Activation::Gelu;
    for len in [0, 1, 31, 256, 257, 1024, 1028, 20_001] {
        let x = draws.vec_f32(len);
        let expected = reference::forward(&widen(&x), gelu);
        let on_x = Array::from_f32(&client, &x);
        let twin = |y: &mut [f32]| cpu::forward(cpu::Activation::Gelu, &x, y);
        let name = format!("gelu {len}");
        assert_output(&client, &name, Dtype::F32, &expected, tolerance_at(TERMS, 1.0), twin, |y| {
            activation::forward(&client, Activation::Gelu, &on_x, y);
        });
    }
}

/// Every choice of parts, and widths beside a vector.
#[test]
fn bias_activation_equals_the_reference() {
    let (client, mut draws) = (client(), Draws::new(3));
    let parts = [(true, true), (true, false), (false, true), (false, false)];
    let cases = [(1, 1), (3, 7), (33, 20), (5, 257)]
        .into_iter()
        .flat_map(|shape| parts.map(|parts| (shape, parts)))
        .flat_map(|case| ["gelu", "linear"].map(|name| (case, name)));
    for dtype in dtypes(&client) {
        for (((rows, width), (has_bias, has_residual)), name) in cases.clone() {
            let [x, residual] = [0, 1].map(|_| rounded(&draws.vec_f32(rows * width), dtype));
            let bias = draws.vec_f32(width);
            let of_reference = reference::Activation::from_name(name).expect("a name");
            let act = Activation::from_name(name).expect("a name");
            let mut expected_pre = widen(&x);
            if has_bias {
                expected_pre = reduce::add_row(&expected_pre, &widen(&bias));
            }
            // What is stored of the pre-activation is what goes on.
            let pre: Vec<f32> = expected_pre.iter().map(|&v| v as f32).collect();
            let through = |pre: &[f32]| {
                let y = reference::forward(&widen(pre), of_reference);
                if has_residual { reduce::add(&y, &widen(&residual)) } else { y }
            };
            let [on_x, on_residual] =
                [&x, &residual].map(|v| Array::from_f32_as(&client, v, dtype));
            let on_bias = has_bias.then(|| Array::from_f32(&client, &bias));
            let on_residual = has_residual.then_some(&on_residual);
            let run = |pre: Option<&Array>, y: &Array| {
                activation::bias_activation(
                    &client,
                    &on_x,
                    on_bias.as_ref(),
                    act,
                    on_residual,
                    pre,
                    y,
                );
            };
            let what = format!("{name} {rows}x{width} bias {has_bias} residual {has_residual}");
            let tolerance = tolerance_at(TERMS, 2.0);
            // The CPU does this inside its matrix product; its activation is the twin.
            let twin_of = |pre: &[f32], y: &mut [f32]| {
                cpu::forward(cpu::Activation::from_name(name).expect("a name"), pre, &mut *y);
                if has_residual {
                    y.iter_mut().zip(&residual).for_each(|(y, r)| *y += r);
                }
            };
            let twin = |y: &mut [f32]| twin_of(&pre, y);
            assert_output(&client, &what, dtype, &through(&pre), tolerance, twin, |y| run(None, y));
            let rounded_pre = rounded(&pre, dtype);
            let twin = |y: &mut [f32]| twin_of(&rounded_pre, y);
            let (what_pre, what) = (format!("{what} pre"), format!("{what} saving"));
            let expected = through(&rounded_pre);
            // The activation's argument is of size 2, and may be the other neighbour.
            let open = if rounds_freely(dtype) { 2.0 * rounding(dtype) } else { 0.0 };
            let of_saved = Tolerance::new(tolerance.abs + open, tolerance.rel);
            if dtype == Dtype::BF16 && rounds_freely(dtype) {
                left_out("what a saved argument gives", dtype);
            } else {
                assert_output(&client, &what, dtype, &expected, of_saved, twin, |y| {
                    run(Some(&Array::empty(&client, x.len(), dtype)), y);
                });
            }
            let twin = |out: &mut [f32]| out.copy_from_slice(&pre);
            assert_output(&client, &what_pre, dtype, &expected_pre, tolerance, twin, |pre| {
                run(Some(pre), &Array::empty(&client, x.len(), dtype));
            });
        }
    }
}
