//! Numbers in memory: f32, or bf16 where operations hand each other what the next product rounds anyway.
//!
//! Kernels compute in f32. They read bf16 through a buffer, row by row, and write it through one; the matrix product
//! packs it as it is, or reads it in place.

use crate::bf16;
use crate::parallel::SharedMut;
use std::ops::Range;

pub use half::bf16 as Bf16;

/// Values that go through a buffer at a time: it stays in the first-level cache.
const BUFFER: usize = 2048;

/// How many of some rows go through a buffer at a time, or all of them if they do not.
fn rows_together(is_buffered: bool, rows: usize, width: usize) -> usize {
    let together = if is_buffered { rows.min(BUFFER / width.max(1)) } else { rows };
    together.max(1)
}

/// Values to be read.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// Rounded to 8 bits of precision.
    Bf16(&'a [Bf16]),
}

impl<'a> Values<'a> {
    /// Their number.
    pub fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Some of them.
    pub(crate) fn range(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[range]),
            Self::Bf16(values) => Self::Bf16(&values[range]),
        }
    }

    /// How many of some rows are read at a time.
    pub(crate) fn rows_together(self, rows: usize, width: usize) -> usize {
        rows_together(matches!(self, Self::Bf16(_)), rows, width)
    }

    /// Writes them in f32.
    ///
    /// # Panics
    /// If there are not as many places.
    pub fn write_f32(self, out: &mut [f32]) {
        match self {
            Self::F32(values) => out.copy_from_slice(values),
            Self::Bf16(values) => bf16::widen(values, out),
        }
    }

    /// The length of a buffer for [`Values::widened`] of so many values.
    pub(crate) fn buffer_len(self, len: usize) -> usize {
        match self {
            Self::F32(_) => 0,
            Self::Bf16(_) => len,
        }
    }

    /// Some of them in f32: as they lie, or by way of a buffer of at least [`buffer_len`](Self::buffer_len).
    pub(crate) fn widened<'b>(self, range: Range<usize>, buffer: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Self::F32(values) => &values[range],
            Self::Bf16(values) => {
                let buffer = &mut buffer[..range.len()];
                bf16::widen(&values[range], buffer);
                buffer
            }
        }
    }
}

/// Values to be written.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// As they are.
    F32(&'a mut [f32]),
    /// Rounded to nearest, ties to even; NaN stays NaN. Denormal numbers may become 0.
    Bf16(&'a mut [Bf16]),
}

impl ValuesMut<'_> {
    /// Their number.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Values that tasks may share because they write disjoint places.
#[derive(Clone, Copy)]
pub(crate) enum SharedValues {
    F32(SharedMut<f32>),
    Bf16(SharedMut<Bf16>),
}

impl SharedValues {
    pub(crate) fn new(values: ValuesMut) -> Self {
        match values {
            ValuesMut::F32(values) => Self::F32(SharedMut::new(values)),
            ValuesMut::Bf16(values) => Self::Bf16(SharedMut::new(values)),
        }
    }

    /// How many of some rows are written at a time.
    pub(crate) fn rows_together(self, rows: usize, width: usize) -> usize {
        rows_together(matches!(self, Self::Bf16(_)), rows, width)
    }

    /// The length of a buffer for [`SharedValues::write`] of so many values.
    pub(crate) fn buffer_len(self, len: usize) -> usize {
        match self {
            Self::F32(_) => 0,
            Self::Bf16(_) => len,
        }
    }

    /// Lets `fill` write `len` values from `offset`: in place, or into a buffer of at least
    /// [`buffer_len`](Self::buffer_len), from which they are rounded.
    ///
    /// # Safety
    /// As [`SharedMut::slice`].
    pub(crate) unsafe fn write(
        self,
        offset: usize,
        len: usize,
        buffer: &mut [f32],
        fill: impl FnOnce(&mut [f32]),
    ) {
        match self {
            // SAFETY: the caller's promise.
            Self::F32(values) => fill(unsafe { values.slice(offset, len) }),
            Self::Bf16(values) => {
                let buffer = &mut buffer[..len];
                fill(buffer);
                // SAFETY: the caller's promise.
                bf16::narrow(buffer, unsafe { values.slice(offset, len) });
            }
        }
    }
}

macro_rules! from_slices {
    ($($value:ty => $kind:ident),*) => {$(
        impl<'a> From<&'a [$value]> for Values<'a> {
            fn from(values: &'a [$value]) -> Self {
                Self::$kind(values)
            }
        }
        impl<'a> From<&'a Vec<$value>> for Values<'a> {
            fn from(values: &'a Vec<$value>) -> Self {
                Self::$kind(values)
            }
        }
        impl<'a, const N: usize> From<&'a [$value; N]> for Values<'a> {
            fn from(values: &'a [$value; N]) -> Self {
                Self::$kind(values)
            }
        }
        impl<'a> From<&'a mut [$value]> for ValuesMut<'a> {
            fn from(values: &'a mut [$value]) -> Self {
                Self::$kind(values)
            }
        }
        impl<'a> From<&'a mut Vec<$value>> for ValuesMut<'a> {
            fn from(values: &'a mut Vec<$value>) -> Self {
                Self::$kind(values)
            }
        }
        impl<'a, const N: usize> From<&'a mut [$value; N]> for ValuesMut<'a> {
            fn from(values: &'a mut [$value; N]) -> Self {
                Self::$kind(values)
            }
        }
    )*};
}
from_slices!(f32 => F32, Bf16 => Bf16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_goes_through_a_buffer_and_f32_does_not() {
        let source = [1.0f32, -2.5, 3.145];
        let mut stored = [Bf16::ZERO; 3];
        let mut buffer = [0.0; 3];
        let shared = SharedValues::new(ValuesMut::from(&mut stored));
        assert_eq!(shared.buffer_len(3), 3);
        // SAFETY: nobody else has these values.
        unsafe { shared.write(0, 3, &mut buffer, |out| out.copy_from_slice(&source)) };
        let read = Values::from(&stored).widened(1..3, &mut buffer);
        assert_eq!(read, [-2.5, 3.140_625]);
        let values = Values::from(&source);
        assert_eq!((values.buffer_len(3), values.widened(0..2, &mut [])), (0, &source[..2]));
    }
}
