//! Values in bf16 beside the same in f32, and the demand that a kernel rounds what it would give in f32, once.

use super::pools;
use vitmae_cpu::values::Bf16;

/// Values before and after an output.
const MARGIN: usize = 64;
/// NaNs that no kernel computes: around an output, and inside before it is written.
const CANARY: Bf16 = Bf16::from_bits(0x7fca);
const POISON: Bf16 = Bf16::from_bits(0x7fde);

/// Rounded to nearest, ties to even.
pub(crate) fn narrow(values: &[f32]) -> Vec<Bf16> {
    values.iter().copied().map(Bf16::from_f32).collect()
}

/// The same values in f32.
pub(crate) fn wide(values: &[Bf16]) -> Vec<f32> {
    values.iter().map(|value| value.to_f32()).collect()
}

/// Values that bf16 has, in both types.
pub(crate) fn both(values: &[f32]) -> (Vec<Bf16>, Vec<f32>) {
    let narrow = narrow(values);
    let wide = wide(&narrow);
    (narrow, wide)
}

/// Runs `kernel` on outputs of poison between canaries, on every pool, and compares them with `expected`, rounded.
///
/// # Panics
/// If a bit differs. Any NaN stands for any other, and 0 for what bf16 has below its normal numbers.
#[track_caller]
pub(crate) fn assert_rounded<const N: usize>(
    name: &str,
    expected: [&[f32]; N],
    kernel: impl Fn([&mut [Bf16]; N]) + Sync,
) {
    let found = pools::run(name, || {
        let margin = [CANARY; MARGIN];
        let mut buffers = expected
            .map(|expected| [&margin[..], &vec![POISON; expected.len()], &margin[..]].concat());
        kernel(buffers.each_mut().map(|buffer| {
            let end = buffer.len() - MARGIN;
            &mut buffer[MARGIN..end]
        }));
        buffers.map(|buffer| wide(&buffer))
    });
    for (output, (found, expected)) in found.iter().zip(expected).enumerate() {
        let end = found.len() - MARGIN;
        let is_canary = |value: &f32| value.to_bits() == CANARY.to_f32().to_bits();
        let mut margins = found[..MARGIN].iter().chain(&found[end..]);
        assert!(margins.all(is_canary), "`{name}`: written outside output {output}");
        for (index, (&found, &value)) in found[MARGIN..end].iter().zip(expected).enumerate() {
            let expected = Bf16::from_f32(value).to_f32();
            let small = expected.is_subnormal() && found == 0.0;
            let unwritten = found.to_bits() == POISON.to_f32().to_bits();
            let both_nan = found.is_nan() && expected.is_nan() && !unwritten;
            assert!(
                found.to_bits() == expected.to_bits() || both_nan || small,
                "`{name}`: output {output} at [{index}] is {found:e}, {expected:e} rounded from {value:e}"
            );
        }
    }
}

/// # Panics
/// If a bit of any output differs.
#[track_caller]
pub(crate) fn assert_same<const N: usize>(
    name: &str,
    found: &[Vec<f32>; N],
    expected: &[impl AsRef<[f32]>; N],
) {
    for (output, (found, expected)) in found.iter().zip(expected).enumerate() {
        let expected = expected.as_ref();
        assert_eq!(found.len(), expected.len(), "`{name}`: output {output}");
        let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
        if let Some(index) = found.iter().zip(expected).position(differs) {
            let (a, b) = (found[index], expected[index]);
            panic!("`{name}`: output {output} at [{index}] is {a:e}, expected {b:e}");
        }
    }
}

#[test]
#[should_panic(expected = "`cut`: output 0 at [1] is 1e0, 1.0078125e0 rounded from 1.00606e0")]
fn a_kernel_that_cuts_fails() {
    let values = [-2.0, 1.006_06];
    assert_rounded("cut", [&values], |[out]| {
        for (out, value) in out.iter_mut().zip(values) {
            *out = Bf16::from_bits((value.to_bits() >> 16) as u16);
        }
    });
}

#[test]
#[should_panic(expected = "`idle`: output 1 at [0] is NaN")]
fn a_kernel_that_leaves_poison_fails() {
    assert_rounded("idle", [&[1.0], &[f32::NAN]], |[out, _]| out[0] = Bf16::ONE);
}

#[test]
#[should_panic(expected = "`same`: output 0 at [1] is -0e0, expected 0e0")]
fn another_sign_of_zero_fails() {
    assert_same("same", &[vec![1.0, -0.0]], &[vec![1.0, 0.0]]);
}
