//! Operations of the CPU on tensors in bf16: their results are those of the same values in f32, kept as promised.

use vitmae_cpu::values::{Bf16, ValuesMut};

use crate::ops::*;
use crate::{Device, Indices, Tensor};

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// Values that bf16 has, and their tensor in a precision.
fn tensor(shape: &[usize], seed: usize, stored: Precision) -> Tensor {
    let value = |i: usize| ((i * 37 + seed * 11) % 61) as f32 / 64.0 - 0.5;
    let write = |out: ValuesMut| match out {
        ValuesMut::F32(out) => out.iter_mut().enumerate().for_each(|(i, out)| *out = value(i)),
        ValuesMut::Bf16(out) => {
            out.iter_mut().enumerate().for_each(|(i, out)| *out = Bf16::from_f32(value(i)));
        }
    };
    Tensor::written_as(&Device::cpu(), shape, stored, write).unwrap()
}

/// The same values in both precisions.
fn both(shape: &[usize], seed: usize) -> [Tensor; 2] {
    PRECISIONS.map(|stored| tensor(shape, seed, stored))
}

fn f32(shape: &[usize], seed: usize) -> Tensor {
    tensor(shape, seed, Precision::F32)
}

/// # Panics
/// Unless `found` is kept in `stored` and has the values of `expected`, rounded to that.
#[track_caller]
fn check(found: &Tensor, stored: Precision, expected: &Tensor) {
    assert_eq!(found.stored(), stored);
    assert_eq!(found.shape(), expected.shape());
    assert!(!found.is_empty());
    let rounded = |value: f32| match stored {
        Precision::F32 => value,
        Precision::Bf16 => Bf16::from_f32(value).to_f32(),
    };
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let expected = expected.to_vec().unwrap().into_iter().map(rounded).collect();
    assert_eq!(bits(found.to_vec().unwrap()), bits(expected));
}

#[test]
fn products_are_stored_as_asked_and_read_either() {
    let (weight, bias) = (f32(&[7, 5], 2), f32(&[7], 3));
    let ([x, x_bf16], [dy, dy_bf16]) = (both(&[2, 3, 5], 1), both(&[2, 3, 7], 4));
    for precision in PRECISIONS {
        let as_it_is = Weight { tensor: &weight, precision, packed: None };
        let mut in_order = weight.clone();
        let packed = pack(&mut in_order, precision).unwrap();
        let int8 = PackedWeight::int8(&weight).unwrap();
        let packed = Weight { tensor: &in_order, packed: packed.as_ref(), ..as_it_is };
        let int8 = Weight { packed: int8.as_ref(), ..as_it_is };
        for weight in [as_it_is, packed, int8] {
            let expected = linear(&x, weight, Some(&bias), Precision::F32).unwrap();
            assert_eq!(expected.shape(), [2, 3, 7]);
            for (x, stored) in [&x, &x_bf16].into_iter().flat_map(|x| PRECISIONS.map(|s| (x, s))) {
                check(&linear(x, weight, Some(&bias), stored).unwrap(), stored, &expected);
            }
        }
        let expected = linear_backward_input(precision, &dy, &weight, Precision::F32).unwrap();
        assert_eq!(expected.shape(), [2, 3, 5]);
        for (dy, stored) in [&dy, &dy_bf16].into_iter().flat_map(|dy| PRECISIONS.map(|s| (dy, s))) {
            let dx = linear_backward_input(precision, dy, &weight, stored).unwrap();
            check(&dx, stored, &expected);
        }
        let f = Activation::Gelu;
        let before = both(&[2, 3, 5], 6);
        let expected = activation_backward(&expected, &before[0], f).unwrap();
        for dy in [&dy, &dy_bf16] {
            for (before, stored) in before.iter().zip(PRECISIONS) {
                let found = linear_backward_activation(precision, dy, &weight, before, f).unwrap();
                check(&found, stored, &expected);
            }
        }
    }
}

#[test]
fn a_weight_in_the_order_of_the_kernels_reads_and_writes_as_before() {
    let (weight, [x, dy]) = (f32(&[7, 5], 2), [f32(&[6, 5], 1), f32(&[6, 7], 4)]);
    let mut packed = weight.clone();
    assert!(pack(&mut packed, Precision::F32).unwrap().is_none());
    assert!(packed.packed(5, 7).is_some() && weight.packed(5, 7).is_none() && !packed.is(&weight));
    let shared = packed.clone();
    assert!(shared.is(&packed) && !shared.is(&weight));
    check(&packed, Precision::F32, &weight);
    let dx = |weight| linear_backward_input(Precision::F32, &dy, weight, Precision::F32).unwrap();
    check(&dx(&packed), Precision::F32, &dx(&weight));
    check(&packed, Precision::F32, &weight);
    let reshaped = packed.clone().reshape(&[5, 7]).unwrap();
    let turned = weight.clone().reshape(&[5, 7]).unwrap();
    check(&reshaped, Precision::F32, &turned);
    let y = |tensor| {
        let weight = Weight { tensor, precision: Precision::F32, packed: None };
        linear(&dy, weight, None, Precision::F32).unwrap()
    };
    check(&y(&reshaped), Precision::F32, &y(&turned));

    packed.make_mut()[3] = 9.0;
    check(&shared, Precision::F32, &weight);
    let mut changed = weight.clone();
    changed.make_mut()[3] = 9.0;
    check(&packed, Precision::F32, &changed);
    let y = |tensor| {
        let weight = Weight { tensor, precision: Precision::F32, packed: None };
        linear(&x, weight, None, Precision::F32).unwrap()
    };
    check(&y(&packed), Precision::F32, &y(&changed));
    check(&y(&shared), Precision::F32, &y(&weight));
}

#[test]
fn gradients_of_parameters_are_f32_and_add_up() {
    let ([x, x_bf16], [dy, dy_bf16]) = (both(&[6, 5], 1), both(&[6, 7], 4));
    for precision in PRECISIONS {
        let gradients = |dy: &Tensor, x: &Tensor| {
            let (mut weight, mut bias) = (None, None);
            for _ in 0..2 {
                linear_backward_weight(precision, dy, x, &[7, 5], &mut weight).unwrap();
                linear_backward_bias(dy, &mut bias).unwrap();
            }
            [weight.unwrap(), bias.unwrap()]
        };
        let expected = gradients(&dy, &x);
        for (dy, x) in [(&dy, &x_bf16), (&dy_bf16, &x), (&dy_bf16, &x_bf16)] {
            let found = gradients(dy, x);
            found.iter().zip(&expected).for_each(|(f, e)| check(f, Precision::F32, e));
        }
    }
}

/// In bf16 the activation takes the argument that the backward pass will find.
#[test]
fn an_activation_behind_a_product_equals_the_activation_of_what_is_kept() {
    let (weight, bias) = (f32(&[7, 5], 2), f32(&[7], 3));
    let f = Activation::Gelu;
    for precision in PRECISIONS {
        let weight = Weight { tensor: &weight, precision, packed: None };
        let [x, x_bf16] = both(&[2, 3, 5], 1);
        let expected = linear(&x, weight, Some(&bias), Precision::F32).unwrap();
        for x in [x, x_bf16] {
            let (pre, y) = linear_activation(&x, weight, Some(&bias), f).unwrap();
            check(&pre, precision, &expected);
            assert_eq!(y.shape(), [2, 3, 7]);
            check(&y, precision, &activation(&pre, f).unwrap());
            check(&linear_activation_alone(&x, weight, Some(&bias), f).unwrap(), precision, &y);
        }
    }
}

#[test]
fn activations_and_gathers_are_stored_as_their_input() {
    let ([x, x_bf16], [dy, dy_bf16]) = (both(&[2, 4, 9], 1), both(&[2, 4, 9], 2));
    for f in [Activation::Gelu, Activation::Silu] {
        let (y, dx) = (activation(&x, f).unwrap(), activation_backward(&dy, &x, f).unwrap());
        check(&activation(&x_bf16, f).unwrap(), Precision::Bf16, &y);
        check(&activation_backward(&dy_bf16, &x, f).unwrap(), Precision::F32, &dx);
        for dy in [&dy, &dy_bf16] {
            check(&activation_backward(dy, &x_bf16, f).unwrap(), Precision::Bf16, &dx);
        }
    }
    let ids = Indices::from_slice(&Device::cpu(), &[2, 3], &[3, 0, 2, 1, 2, 3]).unwrap();
    let y = gather(&x, &ids).unwrap();
    assert_eq!(y.shape(), [2, 3, 9]);
    let y_bf16 = gather(&x_bf16, &ids).unwrap();
    check(&y_bf16, Precision::Bf16, &y);
    let dx = gather_backward(&y, &ids, 4).unwrap();
    assert_eq!(dx.shape(), [2, 4, 9]);
    check(&gather_backward(&y_bf16, &ids, 4).unwrap(), Precision::Bf16, &dx);
}

#[test]
fn attention_is_stored_in_its_precision_and_reads_any_mixture() {
    let (heads, dropout) = (2, Dropout { rate: 0.25, stream: Stream::new(1, "attention", 0, 0) });
    let ([qkv, qkv_bf16], [dout, dout_bf16]) = (both(&[2, 5, 48], 1), both(&[2, 5, 16], 2));
    for (precision, dropout) in
        PRECISIONS.into_iter().flat_map(|p| [(p, None), (p, Some(&dropout))])
    {
        let expected = attention(&qkv, heads, precision, dropout).unwrap();
        assert_eq!((expected.out.shape(), expected.out.stored()), (&[2, 5, 16][..], precision));
        let p = attention_probabilities(&qkv, &expected, heads).unwrap();
        let dqkv = attention_backward(&dout, &qkv, &expected, heads, dropout).unwrap();
        assert_eq!((dqkv.shape(), dqkv.stored()), (&[2, 5, 48][..], precision));
        for qkv in [&qkv, &qkv_bf16] {
            let found = attention(qkv, heads, precision, dropout).unwrap();
            check(&found.out, precision, &expected.out);
            check(&found.lse, Precision::F32, &expected.lse);
            check(&attention_probabilities(qkv, &found, heads).unwrap(), Precision::F32, &p);
            for dout in [&dout, &dout_bf16] {
                let found = attention_backward(dout, qkv, &found, heads, dropout).unwrap();
                check(&found, precision, &dqkv);
            }
        }
    }
}

#[test]
fn a_norm_is_stored_as_asked_and_its_gradients_are_f32() {
    let ([x, x_bf16], [dy, dy_bf16]) = (both(&[2, 3, 9], 1), both(&[2, 3, 9], 2));
    let (weight, bias, [residual, residual_bf16]) =
        (f32(&[9], 3), f32(&[9], 4), both(&[2, 3, 9], 5));
    let expected = layer_norm(&x, &weight, &bias, 1e-6, Precision::F32).unwrap();
    for (x, stored) in [&x, &x_bf16].into_iter().flat_map(|x| PRECISIONS.map(|s| (x, s))) {
        let found = layer_norm(x, &weight, &bias, 1e-6, stored).unwrap();
        check(&found.y, stored, &expected.y);
        check(&found.mean, Precision::F32, &expected.mean);
        check(&found.rstd, Precision::F32, &expected.rstd);
    }
    let saved = (&expected.mean, &expected.rstd);
    let backward = |dy: &Tensor, x: &Tensor, residual: &Tensor| {
        let (mut dw, mut db) = (None, None);
        let (slot_w, slot_b) = (&mut dw, &mut db);
        let dx = layer_norm_backward(dy, x, &weight, saved, Some(residual), slot_w, slot_b);
        [dx.unwrap(), dw.unwrap(), db.unwrap()]
    };
    let expected = backward(&dy, &x, &residual);
    for (dy, x, residual) in [
        (&dy_bf16, &x, &residual),
        (&dy, &x_bf16, &residual_bf16),
        (&dy_bf16, &x_bf16, &residual_bf16),
    ] {
        let found = backward(dy, x, residual);
        found.iter().zip(&expected).for_each(|(f, e)| check(f, Precision::F32, e));
    }
}

#[test]
fn the_end_of_a_half_block_adds_in_f32() {
    let ([x, x_bf16], [residual, residual_bf16]) = (both(&[2, 3, 5], 1), both(&[2, 3, 9], 2));
    let (weight, bias) = (f32(&[9, 5], 3), f32(&[9], 4));
    let norm = (&f32(&[9], 5), &f32(&[9], 6));
    for precision in PRECISIONS {
        let weight = Weight { tensor: &weight, precision, packed: None };
        let sum = linear_residual(&x, weight, Some(&bias), &residual).unwrap();
        let y = layer_norm(&sum, norm.0, norm.1, 1e-6, Precision::F32).unwrap().y;
        for (x, residual) in [(&x, &residual_bf16), (&x_bf16, &residual), (&x_bf16, &residual_bf16)]
        {
            let found = linear_residual(x, weight, Some(&bias), residual).unwrap();
            check(&found, Precision::F32, &sum);
            for stored in PRECISIONS {
                let (of, norm) = ((weight, &bias), norm);
                let (found, normalised) =
                    linear_residual_norm(x, of, residual, norm, 1e-6, stored).unwrap();
                check(&found, Precision::F32, &sum);
                check(&normalised.y, stored, &y);
            }
        }
    }
}

/// What reads no bf16 takes such a tensor in f32.
#[test]
fn other_operations_take_bf16_and_give_f32() {
    let ([a, a_bf16], [b, b_bf16]) = (both(&[2, 3, 9], 1), both(&[2, 3, 9], 2));
    let noise = Dropout { rate: 0.25, stream: Stream::new(1, "hidden", 0, 0) };
    let operations = |a: &Tensor, b: &Tensor| {
        let rows = a.clone().reshape(&[6, 9]).unwrap();
        [
            add(a, b),
            dropout(a, None, &noise),
            dropout(a, Some(b), &noise),
            dropout_backward(a, &noise),
            drop_path(a, Some(b), &noise),
            drop_path_backward(a, &noise),
            mean_tokens(a, 1),
            mean_tokens_backward(&rows, 4, 1),
        ]
        .map(Result::unwrap)
    };
    let expected = operations(&a, &b);
    for (a, b) in [(&a_bf16, &b), (&a, &b_bf16), (&a_bf16, &b_bf16)] {
        let found = operations(a, b);
        found.iter().zip(&expected).for_each(|(f, e)| check(f, Precision::F32, e));
    }
}
