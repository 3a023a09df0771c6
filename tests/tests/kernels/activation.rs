use super::pools;
use super::rounded::{assert_rounded, assert_same, both};
use vitmae_cpu::activation::{self, Activation};
use vitmae_cpu::values::{Bf16, Values};
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::guarded::Guarded;
use vitmae_testing::reference::activation as reference;

/// Roundings of an exponential or an error function by polynomials, a division and a few products.
const TERMS: usize = 16;

/// Dense where the functions bend, and the far tails, where they must become constant or straight.
fn arguments() -> Vec<f32> {
    let mut x: Vec<f32> = (-6000..=6000).map(|i| i as f32 * 1e-3).collect();
    x.extend((-400..=400).map(|i| i as f32 * 0.25));
    x.extend([0.0, -0.0, 1e-30, -1e-30, 1e-6, -1e-6, 88.0, -88.0, 1e4, -1e4]);
    x
}

#[test]
fn every_name_equals_the_reference_forward_and_backward() {
    let x = arguments();
    let wide = widen(&x);
    let dy = Draws::new(1).vec_f32(x.len());
    for (name, expected) in reference::NAMES {
        let act = Activation::from_name(name).unwrap_or_else(|| panic!("`{name}` is unknown"));
        let [y, dx] = pools::run(name, || {
            let (mut y, mut dx) = (Guarded::poisoned(x.len()), Guarded::poisoned(x.len()));
            activation::forward(act, &x, y.slice());
            activation::backward(act, &x, &dy, dx.slice());
            [y.finish("y"), dx.finish("dx")]
        });
        assert_close(name, &y, &reference::forward(&wide, expected), tolerance_at(TERMS, 1.0));
        let wanted = reference::backward(&widen(&dy), &wide, expected);
        assert_close(&format!("{name} backward"), &dx, &wanted, tolerance_at(TERMS, 1.0));
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
fn every_length_is_written_in_full() {
    let mut draws = Draws::new(2);
    for len in [0, 1, 15, 16, 17, 31, 33, 257, 16 * 1024, 16 * 1024 + 1, 50_000] {
        let (x, dy) = (draws.vec_f32(len), draws.vec_f32(len));
        let [y, dx] = pools::run("gelu", || {
            let (mut y, mut dx) = (Guarded::poisoned(len), Guarded::poisoned(len));
            activation::forward(Activation::Gelu, &x, y.slice());
            activation::backward(Activation::Gelu, &x, &dy, dx.slice());
            [y.finish("y"), dx.finish("dx")]
        });
        if len > 0 {
            let gelu = reference::Activation::Gelu;
            let expected = reference::forward(&widen(&x), gelu);
            assert_close("y", &y, &expected, tolerance_at(TERMS, 1.0));
            let expected = reference::backward(&widen(&dy), &widen(&x), gelu);
            assert_close("dx", &dx, &expected, tolerance_at(TERMS, 1.0));
        }
    }
}

/// Every function on both sides of the buffers that bf16 goes through, and of the tasks.
#[test]
fn bf16_in_memory_gives_the_f32_result_rounded_once() {
    let mut values = arguments();
    values.extend([f32::NAN, f32::INFINITY, -f32::INFINITY]);
    let (x, x_wide) = both(&values);
    let (dy, dy_wide) = both(&Draws::new(3).vec_f32(x.len()));
    for name in Activation::names() {
        let act = Activation::from_name(name).unwrap();
        check_bf16(name, act, (&x, &x_wide), (&dy, &dy_wide));
    }
    let mut draws = Draws::new(4);
    for len in [0, 1, 31, 33, 2047, 2048, 2049, 16 * 1024 - 1, 16 * 1024 + 1, 50_001] {
        let (x, x_wide) = both(&draws.vec_f32(len));
        let (dy, dy_wide) = both(&draws.vec_f32(len));
        check_bf16(&format!("{len}"), Activation::Gelu, (&x, &x_wide), (&dy, &dy_wide));
    }
}

/// Each argument in either type, beside the others in either.
fn check_bf16(
    name: &str,
    act: Activation,
    (x, x_wide): (&[Bf16], &[f32]),
    (dy, dy_wide): (&[Bf16], &[f32]),
) {
    let len = x.len();
    let (mut y, mut dx) = (vec![f32::NAN; len], vec![f32::NAN; len]);
    activation::forward(act, x_wide, &mut y);
    activation::backward(act, x_wide, dy_wide, &mut dx);
    let xs = [Values::from(x), x_wide.into()];
    let dys = [Values::from(dy), dy_wide.into()];
    for (i, x) in xs.into_iter().enumerate() {
        let name = |what: &str| format!("{name}: {what}, x in {}", ["bf16", "f32"][i]);
        assert_rounded(&name("y"), [&y], |[y]| activation::forward(act, x, y));
        let found = pools::run(&name("y"), || {
            let mut y = Guarded::poisoned(len);
            activation::forward(act, x, y.slice());
            [y.finish("y")]
        });
        assert_same(&name("y in f32"), &found, &[&y]);
        for (j, dy) in dys.into_iter().enumerate() {
            let name = |what: &str| name(&format!("{what}, dy in {}", ["bf16", "f32"][j]));
            assert_rounded(&name("dx"), [&dx], |[dx]| activation::backward(act, x, dy, dx));
            let found = pools::run(&name("dx"), || {
                let mut dx = Guarded::poisoned(len);
                activation::backward(act, x, dy, dx.slice());
                [dx.finish("dx")]
            });
            assert_same(&name("dx in f32"), &found, &[&dx]);
        }
    }
}
