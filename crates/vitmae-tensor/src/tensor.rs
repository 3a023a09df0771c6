//! A contiguous array of `f32`.

use std::sync::Arc;

use crate::pool::Buffer;
use crate::{Device, TensorError};

/// A row-major array of `f32` on a device. Cloning shares the memory.
///
/// ```
/// use vitmae_tensor::{Device, Tensor};
/// let x = Tensor::from_vec(&Device::cpu(), &[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!((x.shape(), x.to_vec()[4]), (&[2, 3][..], 5.0));
/// # Ok::<(), vitmae_tensor::TensorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tensor {
    device: Device,
    shape: Vec<usize>,
    buffer: Arc<Buffer>,
}

impl Tensor {
    /// The values in row-major order.
    ///
    /// # Errors
    /// [`TensorError::Length`] if their count is not that of the shape.
    pub fn from_vec(
        device: &Device,
        shape: &[usize],
        values: Vec<f32>,
    ) -> Result<Self, TensorError> {
        Self::from_slice(device, shape, &values)
    }

    /// As [`from_vec`](Self::from_vec), copying from a slice.
    ///
    /// # Errors
    /// [`TensorError::Length`] if the count of values is not that of the shape.
    pub fn from_slice(
        device: &Device,
        shape: &[usize],
        values: &[f32],
    ) -> Result<Self, TensorError> {
        check_length(shape, values.len())?;
        Self::written(device, shape, |out| out.copy_from_slice(values))
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] if the shape has more elements than memory can address.
    pub fn zeros(device: &Device, shape: &[usize]) -> Result<Self, TensorError> {
        Self::written(device, shape, |out| out.fill(0.0))
    }

    /// A tensor that `write` fills in full.
    pub(crate) fn written(
        device: &Device,
        shape: &[usize],
        write: impl FnOnce(&mut [f32]),
    ) -> Result<Self, TensorError> {
        let mut buffer = Buffer::take(elements(shape)?);
        write(buffer.as_mut_slice());
        Ok(Self { device: device.clone(), shape: shape.to_vec(), buffer: Arc::new(buffer) })
    }

    /// The device that holds it.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The sides.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the values in row-major order.
    pub fn to_vec(&self) -> Vec<f32> {
        self.as_slice().to_vec()
    }

    /// The same values under another shape.
    ///
    /// # Errors
    /// [`TensorError::Length`] if the new shape has another number of elements.
    pub fn reshape(mut self, shape: &[usize]) -> Result<Self, TensorError> {
        check_length(shape, self.len())?;
        self.shape = shape.to_vec();
        Ok(self)
    }

    /// Replaces all values.
    ///
    /// # Errors
    /// [`TensorError::Length`] if their count differs.
    pub fn set(&mut self, values: &[f32]) -> Result<(), TensorError> {
        check_length(&self.shape, values.len())?;
        self.make_mut().copy_from_slice(values);
        Ok(())
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        self.buffer.as_slice()
    }

    /// The values for writing in place; shared memory is copied first.
    pub(crate) fn make_mut(&mut self) -> &mut [f32] {
        if Arc::get_mut(&mut self.buffer).is_none() {
            let mut own = Buffer::take(self.len());
            own.as_mut_slice().copy_from_slice(self.buffer.as_slice());
            self.buffer = Arc::new(own);
        }
        match Arc::get_mut(&mut self.buffer) {
            Some(buffer) => buffer.as_mut_slice(),
            None => unreachable!("the buffer was just made"),
        }
    }

    /// The sides, if there are `N` of them.
    pub(crate) fn dims<const N: usize>(
        &self,
        op: &'static str,
        tensor: &'static str,
    ) -> Result<[usize; N], TensorError> {
        self.shape.as_slice().try_into().map_err(|_| TensorError::Rank {
            op,
            tensor,
            actual: self.shape.clone(),
            expected: N,
        })
    }

    /// Checks the sides.
    pub(crate) fn expect(
        &self,
        op: &'static str,
        tensor: &'static str,
        expected: &[usize],
    ) -> Result<(), TensorError> {
        if self.shape == expected {
            return Ok(());
        }
        let (actual, expected) = (self.shape.clone(), expected.to_vec());
        Err(TensorError::Shape { op, tensor, actual, expected })
    }

    /// The last side and the number of rows before it.
    pub(crate) fn rows(
        &self,
        op: &'static str,
        tensor: &'static str,
    ) -> Result<(usize, usize), TensorError> {
        let Some((&width, rows)) = self.shape.split_last() else {
            return Err(TensorError::Rank { op, tensor, actual: Vec::new(), expected: 1 });
        };
        Ok((rows.iter().product(), width))
    }
}

/// Adds to a gradient's slot, or fills it: `write(values, accumulate)` gets the slot's memory, and
/// whether to add to what is there.
pub(crate) fn into_slot(
    slot: &mut Option<Tensor>,
    device: &Device,
    shape: &[usize],
    write: impl FnOnce(&mut [f32], bool),
) -> Result<(), TensorError> {
    match slot {
        Some(gradient) => {
            gradient.expect("gradient", "gradient", shape)?;
            write(gradient.make_mut(), true);
        }
        None => *slot = Some(Tensor::written(device, shape, |out| write(out, false))?),
    }
    Ok(())
}

/// Number of elements of a shape.
fn elements(shape: &[usize]) -> Result<usize, TensorError> {
    let count = shape.iter().try_fold(1usize, |count, &side| count.checked_mul(side));
    // A byte count must fit `isize`, and buffers round up.
    let fits = |count: &usize| *count <= isize::MAX as usize / 8;
    count.filter(fits).ok_or_else(|| TensorError::TooLarge { shape: shape.to_vec() })
}

pub(crate) fn check_length(shape: &[usize], actual: usize) -> Result<(), TensorError> {
    let expected = elements(shape)?;
    if actual == expected {
        return Ok(());
    }
    Err(TensorError::Length { shape: shape.to_vec(), actual, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_independent_once_written() {
        let device = Device::cpu();
        let mut a = Tensor::from_vec(&device, &[2], vec![1.0, 2.0]).unwrap();
        let b = a.clone();
        a.set(&[3.0, 4.0]).unwrap();
        assert_eq!((a.to_vec(), b.to_vec()), (vec![3.0, 4.0], vec![1.0, 2.0]));
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
            assert_eq!(slot.as_ref().unwrap().to_vec(), [expected; 2]);
        }
        assert!(into_slot(&mut slot, &device, &[3], write).is_err());
    }
}
