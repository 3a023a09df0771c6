//! Conversions between types, and rounding to bf16 with and without the type, against the crate `half`.

use super::device::{client, dtypes, rounded, rounding, rounds_freely};
use super::output::assert_output;
use half::bf16;
use vitmae_kernels::{Array, Dtype, convert};
use vitmae_testing::close::Tolerance;
use vitmae_testing::draws::{Draws, widen};

/// No value, one, vectors with a tail, more than a cube.
const LENGTHS: [usize; 5] = [0, 1, 4, 1023, 4100];

#[test]
fn every_type_converts_to_every_type() {
    let (client, mut draws) = (client(), Draws::new(1));
    for from in dtypes(&client) {
        for (to, len) in dtypes(&client).into_iter().flat_map(|to| LENGTHS.map(|len| (to, len))) {
            let values = rounded(&draws.vec_f32(len), from);
            let x = Array::from_f32_as(&client, &values, from);
            let expected = rounded(&values, to);
            let twin = |y: &mut [f32]| y.copy_from_slice(&expected);
            let name = format!("{len} values from {from}");
            let open = to == Dtype::F16 && rounds_freely(to);
            let tolerance = if open { Tolerance::new(0.0, rounding(to)) } else { Tolerance::EXACT };
            assert_output(&client, &name, to, &widen(&expected), tolerance, twin, |y| {
                convert::convert(&client, &x, y);
            });
        }
    }
}

#[test]
fn rounding_to_bf16_has_the_bits_of_the_type() {
    let (client, mut draws) = (client(), Draws::new(2));
    // Ties to both sides, the largest values, infinities, zeros, NaN of both signs and with low bits alone.
    let edges = [
        0x3f80_0000u32,
        0x3f80_8000,
        0x3f81_8000,
        0x3f80_8001,
        0xbf80_7fff,
        0x7f7f_7fff,
        0x7f7f_8000,
        0x7f7f_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x0000_0000,
        0x8000_0000,
        0x7fff_ffff,
        0xffff_ffff,
        0x7f80_0001,
        0xff80_0001,
    ];
    let edges = edges.into_iter().map(f32::from_bits);
    let values: Vec<f32> = edges.chain(draws.vec_f32(1001)).collect();
    let found = convert::rounded_to_bf16(&client, &Array::from_f32(&client, &values));
    let found = found.to_f32(&client).expect("its values");
    assert_eq!(found.len(), values.len());
    for (found, value) in found.iter().zip(values) {
        let expected = bf16::from_f32(value);
        // Which NaN it is differs from device to device.
        let same = found.to_bits() == expected.to_f32().to_bits();
        assert!(
            same || (found.is_nan() && value.is_nan()),
            "{value:e}: {found:e}, not {expected:e}"
        );
    }
    let none = convert::rounded_to_bf16(&client, &Array::empty(&client, 0, Dtype::F32));
    assert_eq!(none.len, 0);
}
