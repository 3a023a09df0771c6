//! What becomes of the sums of a product: where they are added up, the epilogue, and how they get into `C`.

use super::{Epilogue, STRIP};
use crate::activation::{self, Activation};
use crate::bf16;
use crate::parallel::SharedMut;
use crate::values::{Bf16, SharedValues, Values, ValuesMut};
use std::ops::Range;

/// A `C` and its epilogue, for tasks that share them.
pub(super) struct Output<'a> {
    c: SharedValues,
    n: usize,
    bias: Option<&'a [f32]>,
    activation: Option<Activation>,
    pre: Option<SharedValues>,
    derivative: Option<(Activation, Values<'a>)>,
    residual: Option<&'a [f32]>,
}

/// Where a block of a product is added up: row i starts at `i · stride`.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    pub(super) data: SharedMut,
    pub(super) stride: usize,
}

impl Sums {
    /// # Safety
    /// The calling task alone has this row.
    pub(super) unsafe fn row<'a>(self, row: usize, cols: usize) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { self.data.slice(row * self.stride, cols) }
    }
}

impl<'a> Output<'a> {
    /// # Panics
    /// If a length does not fit a `C` of `n` columns.
    pub(super) fn new(c: ValuesMut<'a>, epilogue: Epilogue<'a>, n: usize) -> Self {
        let Epilogue { bias, activation, pre, derivative, residual } = epilogue;
        assert!(bias.is_none_or(|bias| bias.len() == n), "gemm: bias");
        assert!(residual.is_none_or(|residual| residual.len() == c.len()), "gemm: residual");
        let fits = derivative.is_none_or(|(_, arguments)| arguments.len() == c.len());
        assert!(fits, "gemm: arguments of the derivative");
        if let Some(pre) = &pre {
            let same = matches!(
                (pre, &c),
                (ValuesMut::F32(_), ValuesMut::F32(_)) | (ValuesMut::Bf16(_), ValuesMut::Bf16(_))
            );
            assert!(same && pre.len() == c.len(), "gemm: argument of the activation");
        }
        let pre = pre.map(SharedValues::new);
        Self { c: SharedValues::new(c), n, bias, activation, pre, derivative, residual }
    }

    /// Whether sums are added up in `C`, where they can wait.
    pub(super) fn is_f32(&self) -> bool {
        matches!(self.c, SharedValues::F32(_))
    }

    /// Words of the memory for [`Output::sums`] of so many rows.
    pub(super) fn sums_len(&self, rows: usize) -> usize {
        self.c.buffer_len(rows * STRIP)
    }

    /// Words of the memory for [`Output::finish`].
    pub(super) const SPARE: usize = 3 * STRIP;

    /// Columns of a task, as many at a time as its sums are to be finished together.
    pub(super) fn strips(&self, cols: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let width = match self.c {
            SharedValues::F32(_) => cols.len().max(1),
            SharedValues::Bf16(_) => STRIP,
        };
        cols.clone().step_by(width).map(move |col| col..(col + width).min(cols.end))
    }

    /// Where the products of some rows and a strip are added up: in `C` itself if it is f32.
    pub(super) fn sums(&self, rows: Range<usize>, strip: Range<usize>, beside: &mut [f32]) -> Sums {
        match self.c {
            SharedValues::F32(c) => {
                Sums { data: c.after(rows.start * self.n + strip.start), stride: self.n }
            }
            SharedValues::Bf16(_) => Sums { data: SharedMut::new(beside), stride: STRIP },
        }
    }

    /// Applies the epilogue and, unless the sums are there already, fills `C`.
    ///
    /// # Safety
    /// The calling task alone has these rows and columns of `C`, and their sums.
    ///
    /// # Panics
    /// If `spare` is shorter than [`Output::SPARE`].
    pub(super) unsafe fn finish(
        &self,
        sums: Sums,
        rows: Range<usize>,
        strip: Range<usize>,
        spare: &mut [f32],
    ) {
        for (i, row) in rows.enumerate() {
            // SAFETY: the caller's promise.
            let c = unsafe { sums.row(i, strip.len()) };
            let offset = row * self.n + strip.start;
            if let Some(bias) = self.bias {
                c.iter_mut().zip(&bias[strip.clone()]).for_each(|(c, b)| *c += b);
            }
            if let Some(activation) = self.activation {
                // SAFETY: the caller's promise.
                unsafe { self.activate(activation, c, offset, spare) };
            }
            if let Some((activation, arguments)) = self.derivative {
                derive(activation, arguments.range(offset..offset + c.len()), c, spare);
            }
            if let Some(residual) = self.residual {
                c.iter_mut().zip(&residual[offset..]).for_each(|(c, r)| *c += r);
            }
            if let SharedValues::Bf16(out) = self.c {
                // SAFETY: the caller's promise.
                bf16::narrow(c, unsafe { out.slice(offset, c.len()) });
            }
        }
    }

    /// # Safety
    /// The calling task alone has these places of the kept arguments.
    unsafe fn activate(
        &self,
        activation: Activation,
        c: &mut [f32],
        offset: usize,
        spare: &mut [f32],
    ) {
        match (self.c, self.pre) {
            (SharedValues::F32(_), Some(SharedValues::F32(pre))) => {
                // SAFETY: the caller's promise.
                let pre = unsafe { pre.slice(offset, c.len()) };
                pre.copy_from_slice(c);
                activation::forward_slice(activation, pre, c);
            }
            (SharedValues::Bf16(_), pre) => {
                // The backward pass computes the activation again, from the rounded argument.
                let (arguments, rest) = spare.split_at_mut(STRIP);
                let rounded: &mut [Bf16] = match pre {
                    // SAFETY: the caller's promise.
                    Some(SharedValues::Bf16(pre)) => unsafe { pre.slice(offset, c.len()) },
                    _ => &mut bytemuck::cast_slice_mut(rest)[..c.len()],
                };
                let arguments = &mut arguments[..c.len()];
                bf16::narrow(c, rounded);
                bf16::widen(rounded, arguments);
                activation::forward_slice(activation, arguments, c);
            }
            _ => activation::forward_in_place(activation, c),
        }
    }
}

/// Multiplies values by the derivative of an activation.
fn derive(activation: Activation, arguments: Values, values: &mut [f32], spare: &mut [f32]) {
    let (before, wide) = spare.split_at_mut(STRIP);
    for (part, values) in values.chunks_mut(STRIP).enumerate() {
        let range = part * STRIP..part * STRIP + values.len();
        let before = &mut before[..values.len()];
        before.copy_from_slice(values);
        activation::backward_slice(activation, arguments.widened(range, wide), before, values);
    }
}
