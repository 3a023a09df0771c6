use super::*;

#[test]
fn a_clone_is_independent_once_written() {
    let device = Device::cpu();
    let mut a = Tensor::from_vec(&device, &[2], vec![1.0, 2.0]).unwrap();
    let b = a.clone();
    a.set(&[3.0, 4.0]).unwrap();
    assert_eq!((a.to_vec().unwrap(), b.to_vec().unwrap()), (vec![3.0, 4.0], vec![1.0, 2.0]));
}

#[test]
fn bf16_is_read_as_it_is_or_in_f32_and_written_in_f32() {
    let device = Device::cpu();
    let write = |out: ValuesMut| match out {
        ValuesMut::Bf16(out) => out.copy_from_slice(&[Bf16::ONE, Bf16::MIN, Bf16::NEG_ONE]),
        ValuesMut::F32(_) => unreachable!("asked for bf16"),
    };
    let mut a = Tensor::written_as(&device, &[3], Precision::Bf16, write).unwrap();
    let (b, values) = (a.clone(), [1.0, Bf16::MIN.to_f32(), -1.0]);
    assert!(matches!(a.values(), Values::Bf16(values) if values[2] == Bf16::NEG_ONE));
    assert_eq!((a.to_vec().unwrap(), b.is(&a)), (values.to_vec(), true));
    a.make_mut()[0] = 2.0;
    assert_eq!((a.stored(), b.stored()), (Precision::F32, Precision::Bf16));
    assert_eq!((a.as_slice()[..2].to_vec(), b.as_slice()), (vec![2.0, values[1]], &values[..]));
}

#[test]
fn wrong_lengths_and_absurd_shapes_are_errors() {
    let device = Device::cpu();
    let error = Tensor::from_vec(&device, &[2, 3], vec![0.0; 5]).unwrap_err().to_string();
    assert_eq!(error, "tensor: 5 values do not fill the shape [2, 3], expected 6");
    let error = Tensor::zeros(&device, &[usize::MAX, 2]).unwrap_err();
    assert!(matches!(error, TensorError::TooLarge { .. }), "{error}");
    let x = Tensor::zeros(&device, &[2, 3]).unwrap();
    assert_eq!(x.clone().reshape(&[6]).unwrap().shape(), [6]);
    assert!(x.reshape(&[5]).is_err());
}

#[test]
fn a_slot_is_filled_then_added_to() {
    let (device, mut slot) = (Device::cpu(), None);
    let write = |out: &mut [f32], add: bool| {
        out.iter_mut().for_each(|x| *x = if add { *x + 1.0 } else { 1.0 });
    };
    for expected in [1.0, 2.0, 3.0] {
        into_slot(&mut slot, &device, &[2], write).unwrap();
        assert_eq!(slot.as_ref().unwrap().to_vec().unwrap(), [expected; 2]);
    }
    assert!(into_slot(&mut slot, &device, &[3], write).is_err());
}
