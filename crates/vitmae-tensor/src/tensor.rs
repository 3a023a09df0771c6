//! A contiguous array of numbers.

use std::sync::Arc;

#[cfg(feature = "gpu")]
use vitmae_kernels::{Array, Client, Dtype};

use vitmae_cpu::gemm::{PackedB, Precision};
use vitmae_cpu::values::{Bf16, Values, ValuesMut};

use crate::pool::Buffer;
use crate::storage::{Packed, Rounded};
use crate::{Device, TensorError};

/// A row-major array of `f32` on a device. Cloning shares the memory. What operations in bf16 hand to each other
/// ([`ops`](crate::ops) says which) is kept in bf16, by a GPU if it rounds so itself.
///
/// ```
/// use vitmae_tensor::{Device, Tensor};
/// let x = Tensor::from_vec(&Device::cpu(), &[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
/// assert_eq!((x.shape(), x.to_vec()?[4]), (&[2, 3][..], 5.0));
/// # Ok::<(), vitmae_tensor::TensorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tensor {
    device: Device,
    shape: Vec<usize>,
    storage: Storage,
}

#[derive(Clone, Debug)]
enum Storage {
    Cpu(Arc<Buffer>),
    CpuBf16(Arc<Rounded>),
    CpuPacked(Arc<Packed>),
    #[cfg(feature = "gpu")]
    Gpu(Arc<Array>),
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
        #[cfg(feature = "gpu")]
        if let Some(client) = device.client() {
            gpu_elements(shape)?;
            let storage = Storage::Gpu(Arc::new(Array::from_f32(client, values)));
            return Ok(Self { device: device.clone(), shape: shape.to_vec(), storage });
        }
        Self::written(device, shape, |out| out.copy_from_slice(values))
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// [`TensorError::TooLarge`] if the shape has more elements than memory can address.
    pub fn zeros(device: &Device, shape: &[usize]) -> Result<Self, TensorError> {
        #[cfg(feature = "gpu")]
        if device.gpu().is_some() {
            return Self::from_slice(device, shape, &vec![0.0; elements(shape)?]);
        }
        Self::written(device, shape, |out| out.fill(0.0))
    }

    /// A tensor with unspecified values.
    pub(crate) fn empty(device: &Device, shape: &[usize]) -> Result<Self, TensorError> {
        #[cfg(feature = "gpu")]
        if let Some(client) = device.client() {
            return Self::empty_as(device, client, shape, Dtype::F32);
        }
        Self::written(device, shape, |_| {})
    }

    /// The same on a GPU, for values of a type.
    #[cfg(feature = "gpu")]
    pub(crate) fn empty_as(
        device: &Device,
        client: &Client,
        shape: &[usize],
        dtype: Dtype,
    ) -> Result<Self, TensorError> {
        let array = Array::empty(client, gpu_elements(shape)?, dtype);
        let storage = Storage::Gpu(Arc::new(array));
        Ok(Self { device: device.clone(), shape: shape.to_vec(), storage })
    }

    /// A tensor of the CPU that `write` fills in full.
    pub(crate) fn written(
        device: &Device,
        shape: &[usize],
        write: impl FnOnce(&mut [f32]),
    ) -> Result<Self, TensorError> {
        let mut buffer = Buffer::take(elements(shape)?);
        write(buffer.as_mut_slice());
        let storage = Storage::Cpu(Arc::new(buffer));
        Ok(Self { device: device.clone(), shape: shape.to_vec(), storage })
    }

    /// A tensor of the CPU for what reads its values in `stored`, which `write` fills in full.
    pub(crate) fn written_as(
        device: &Device,
        shape: &[usize],
        stored: Precision,
        write: impl FnOnce(ValuesMut),
    ) -> Result<Self, TensorError> {
        if stored == Precision::F32 {
            return Self::written(device, shape, |out| write(out.into()));
        }
        let len = elements(shape)?;
        let mut words = Buffer::take(len.div_ceil(2));
        let values: &mut [Bf16] = bytemuck::cast_slice_mut(words.as_mut_slice());
        write((&mut values[..len]).into());
        let storage = Storage::CpuBf16(Arc::new(Rounded::new(words, len)));
        Ok(Self { device: device.clone(), shape: shape.to_vec(), storage })
    }

    /// The precision in which a tensor of the CPU keeps its values.
    pub(crate) fn stored(&self) -> Precision {
        match &self.storage {
            Storage::CpuBf16(_) => Precision::Bf16,
            _ => Precision::F32,
        }
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

    /// A copy of the values in row-major order; waits for the operations that they come from.
    ///
    /// # Errors
    /// [`TensorError::DeviceFailed`] if one of them, or the transfer, failed.
    pub fn to_vec(&self) -> Result<Vec<f32>, TensorError> {
        match &self.storage {
            Storage::Cpu(buffer) => Ok(buffer.as_slice().to_vec()),
            Storage::CpuBf16(_) | Storage::CpuPacked(_) => {
                let mut values = vec![0.0; self.len()];
                self.write_f32(&mut values);
                Ok(values)
            }
            #[cfg(feature = "gpu")]
            Storage::Gpu(array) => {
                let client = self.device.client();
                let client = client.unwrap_or_else(|| unreachable!("an array has a GPU"));
                array.to_f32(client).map_err(|error| self.device.failed(error))
            }
        }
    }

    /// The only value; waits as [`to_vec`](Self::to_vec) does.
    ///
    /// # Errors
    /// [`TensorError::NotOne`] if there is not exactly one, and those of [`to_vec`](Self::to_vec).
    pub fn item(&self) -> Result<f32, TensorError> {
        match self.to_vec()?[..] {
            [value] => Ok(value),
            ref values => {
                Err(TensorError::NotOne { shape: self.shape.clone(), actual: values.len() })
            }
        }
    }

    /// Waits until the values are there.
    ///
    /// # Errors
    /// [`TensorError::DeviceFailed`] if an operation that they come from failed.
    pub fn wait(&self) -> Result<(), TensorError> {
        #[cfg(feature = "gpu")]
        if let (Storage::Gpu(array), Some(client)) = (&self.storage, self.device.client()) {
            return array.wait(client).map_err(|error| self.device.failed(error));
        }
        Ok(())
    }

    /// The same values on another device.
    ///
    /// # Errors
    /// [`TensorError::DeviceFailed`] if a transfer fails.
    pub fn to_device(&self, device: &Device) -> Result<Self, TensorError> {
        if device == &self.device {
            return Ok(self.clone());
        }
        Self::from_slice(device, &self.shape, &self.to_vec()?)
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
        #[cfg(feature = "gpu")]
        if self.device.gpu().is_some() {
            *self = Self::from_slice(&self.device, &self.shape, values)?;
            return Ok(());
        }
        self.make_mut().copy_from_slice(values);
        Ok(())
    }

    /// Whether both are one memory, which no write has parted since the one was cloned from the other.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.storage, &other.storage) {
            (Storage::Cpu(a), Storage::Cpu(b)) => Arc::ptr_eq(a, b),
            (Storage::CpuBf16(a), Storage::CpuBf16(b)) => Arc::ptr_eq(a, b),
            (Storage::CpuPacked(a), Storage::CpuPacked(b)) => Arc::ptr_eq(a, b),
            #[cfg(feature = "gpu")]
            (Storage::Gpu(a), Storage::Gpu(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// The values of a tensor of the CPU as they are kept; operations check that their tensors share a device.
    pub(crate) fn values(&self) -> Values<'_> {
        match &self.storage {
            Storage::CpuBf16(rounded) => rounded.values().into(),
            _ => self.as_slice().into(),
        }
    }

    /// The same in f32.
    pub(crate) fn as_slice(&self) -> &[f32] {
        match &self.storage {
            Storage::Cpu(buffer) => buffer.as_slice(),
            Storage::CpuBf16(rounded) => rounded.wide(),
            Storage::CpuPacked(packed) => packed.unpacked(),
            #[cfg(feature = "gpu")]
            Storage::Gpu(_) => unreachable!("a tensor of a GPU in an operation of the CPU"),
        }
    }

    /// The same, copied.
    fn write_f32(&self, values: &mut [f32]) {
        match &self.storage {
            Storage::CpuPacked(packed) => packed.write(values),
            _ => self.values().write_f32(values),
        }
    }

    /// Keeps the values of a weight on the CPU, of so many inputs and outputs, in the order of the kernels' products in f32,
    /// and nothing else: who reads them otherwise unpacks them.
    pub(crate) fn pack(&mut self, inputs: usize, outputs: usize) {
        match &self.storage {
            Storage::CpuPacked(packed) if packed.is_alone(inputs, outputs) => {}
            _ => {
                let packed = Packed::new(self.as_slice(), inputs, outputs);
                self.storage = Storage::CpuPacked(Arc::new(packed));
            }
        }
    }

    /// Undoes [`pack`](Self::pack).
    pub(crate) fn unpack(&mut self) {
        if let Storage::CpuPacked(_) = &self.storage {
            self.make_mut();
        }
    }

    /// The values in that order, if they are kept so for these sides.
    pub(crate) fn packed(&self, inputs: usize, outputs: usize) -> Option<&PackedB> {
        match &self.storage {
            Storage::CpuPacked(packed) => packed.panels(inputs, outputs),
            _ => None,
        }
    }

    /// The values of a tensor of the CPU for writing in place, in f32; shared memory is copied first.
    pub(crate) fn make_mut(&mut self) -> &mut [f32] {
        let is_own = match &mut self.storage {
            Storage::Cpu(buffer) => Arc::get_mut(buffer).is_some(),
            _ => false,
        };
        if !is_own {
            let mut own = Buffer::take(self.len());
            self.write_f32(own.as_mut_slice());
            self.storage = Storage::Cpu(Arc::new(own));
        }
        match &mut self.storage {
            Storage::Cpu(buffer) => match Arc::get_mut(buffer) {
                Some(buffer) => buffer.as_mut_slice(),
                None => unreachable!("the buffer was just made"),
            },
            _ => unreachable!("the storage was just made"),
        }
    }

    /// The values of a tensor of a GPU.
    #[cfg(feature = "gpu")]
    pub(crate) fn array(&self) -> &Array {
        match &self.storage {
            Storage::Gpu(array) => array,
            _ => unreachable!("a tensor of the CPU in an operation of a GPU"),
        }
    }

    /// A tensor of this shape with other values.
    #[cfg(feature = "gpu")]
    pub(crate) fn with_array(&self, array: Array) -> Self {
        debug_assert_eq!(array.len, self.len());
        let storage = Storage::Gpu(Arc::new(array));
        Self { device: self.device.clone(), shape: self.shape.clone(), storage }
    }

    /// The values of a tensor of a GPU for writing in place; shared memory is copied first.
    #[cfg(feature = "gpu")]
    pub(crate) fn array_mut(&mut self) -> Result<&Array, TensorError> {
        use vitmae_kernels::activation::{self, Activation};
        let is_shared = match &self.storage {
            Storage::Gpu(array) => Arc::strong_count(array) > 1,
            _ => unreachable!("a tensor of the CPU in an operation of a GPU"),
        };
        if let Some(client) = self.device.client().filter(|_| is_shared) {
            let own = Self::empty_as(&self.device, client, &self.shape, self.array().dtype)?;
            activation::forward(client, Activation::Linear, self.array(), own.array());
            *self = own;
        }
        Ok(self.array())
    }

    /// Checks that all tensors of an operation are on one device.
    pub(crate) fn expect_together(op: &'static str, tensors: &[&Self]) -> Result<(), TensorError> {
        let [first, others @ ..] = tensors else { return Ok(()) };
        match others.iter().find(|other| other.device != first.device) {
            None => Ok(()),
            Some(other) => {
                let (first, second) = (first.device.to_string(), other.device.to_string());
                Err(TensorError::Devices { op, first, second })
            }
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

/// Memory of a gradient's slot on a GPU, made if the slot is empty, and whether to add to what is there.
#[cfg(feature = "gpu")]
pub(crate) fn slot_array(
    slot: &mut Option<Tensor>,
    device: &Device,
    shape: &[usize],
) -> Result<(Array, bool), TensorError> {
    let accumulate = slot.is_some();
    let gradient = match slot {
        Some(gradient) => {
            gradient.expect("gradient", "gradient", shape)?;
            if &gradient.device != device {
                let (first, second) = (device.to_string(), gradient.device.to_string());
                return Err(TensorError::Devices { op: "gradient", first, second });
            }
            gradient
        }
        None => slot.insert(Tensor::empty(device, shape)?),
    };
    Ok((gradient.array_mut()?.clone(), accumulate))
}

/// Adds to a gradient's slot of the CPU, or fills it: `write(values, accumulate)` gets the slot's memory, and
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

/// The same for a GPU, whose kernels count elements in 32 bits, SPIR-V's with a sign.
#[cfg(feature = "gpu")]
fn gpu_elements(shape: &[usize]) -> Result<usize, TensorError> {
    let count = elements(shape)?;
    if count > i32::MAX as usize {
        return Err(TensorError::TooLarge { shape: shape.to_vec() });
    }
    Ok(count)
}

pub(crate) fn check_length(shape: &[usize], actual: usize) -> Result<(), TensorError> {
    let expected = elements(shape)?;
    if actual == expected {
        return Ok(());
    }
    Err(TensorError::Length { shape: shape.to_vec(), actual, expected })
}

#[cfg(test)]
mod tests;
