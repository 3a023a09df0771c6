//! How a tensor of the CPU keeps its values where they are not f32 in row-major order.

use std::fmt;
use std::sync::OnceLock;

use vitmae_cpu::gemm::{PackedB, Precision};
use vitmae_cpu::linear;
use vitmae_cpu::values::{Bf16, Values};

use crate::pool::Buffer;

/// Values in bf16.
#[derive(Debug)]
pub(crate) struct Rounded {
    /// Two values a word.
    words: Buffer,
    len: usize,
    /// The same in f32, for the first operation that reads no bf16.
    wide: OnceLock<Buffer>,
}

impl Rounded {
    pub(crate) fn new(words: Buffer, len: usize) -> Self {
        Self { words, len, wide: OnceLock::new() }
    }

    pub(crate) fn values(&self) -> &[Bf16] {
        &bytemuck::cast_slice(self.words.as_slice())[..self.len]
    }

    pub(crate) fn wide(&self) -> &[f32] {
        let widen = || {
            let mut wide = Buffer::take(self.len);
            Values::from(self.values()).write_f32(wide.as_mut_slice());
            wide
        };
        self.wide.get_or_init(widen).as_slice()
    }
}

/// A weight `[out, in]` in the order of the kernels.
pub(crate) struct Packed {
    panels: PackedB,
    inputs: usize,
    outputs: usize,
    /// The same in row-major order, for the first operation that reads it so.
    unpacked: OnceLock<Buffer>,
}

impl Packed {
    pub(crate) fn new(weight: &[f32], inputs: usize, outputs: usize) -> Self {
        let panels = linear::pack(Precision::F32, weight, inputs, outputs, Buffer::take);
        Self { panels, inputs, outputs, unpacked: OnceLock::new() }
    }

    /// For products with a weight of these sides, if it is one.
    pub(crate) fn panels(&self, inputs: usize, outputs: usize) -> Option<&PackedB> {
        (self.inputs == inputs && self.outputs == outputs).then_some(&self.panels)
    }

    /// Copies the values in row-major order.
    pub(crate) fn write(&self, values: &mut [f32]) {
        match self.unpacked.get() {
            Some(unpacked) => values.copy_from_slice(unpacked.as_slice()),
            None => self.panels.unpack(values),
        }
    }

    /// Whether this is the order of a weight with these sides, and the values are not kept in row-major order beside it.
    pub(crate) fn is_alone(&self, inputs: usize, outputs: usize) -> bool {
        self.panels(inputs, outputs).is_some() && self.unpacked.get().is_none()
    }

    pub(crate) fn unpacked(&self) -> &[f32] {
        if let Some(values) = self.unpacked.get() {
            return values.as_slice();
        }
        // Not inside `get_or_init`: unpacking waits for other threads, whose work may come here too. The first is kept.
        let mut values = Buffer::take(self.inputs * self.outputs);
        self.panels.unpack(values.as_mut_slice());
        self.unpacked.get_or_init(|| values).as_slice()
    }
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inputs, outputs, .. } = self;
        write!(f, "Packed([{outputs}, {inputs}])")
    }
}
