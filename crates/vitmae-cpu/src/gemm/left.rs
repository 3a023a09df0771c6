//! A block of rows of `A` as micro-kernels read it.

use super::{MatRef, Method};
use crate::values::{Bf16, Values};
use std::ops::Range;

/// Some rows of `A`: the first ones perhaps where they lie, the others packed.
pub(super) struct Left<'a> {
    /// Rows that are read where they lie, their values, and the distance of two rows.
    in_place: (usize, &'a [Bf16], usize),
    packed: &'a [f32],
}

/// A panel of them.
#[derive(Clone, Copy)]
pub(super) enum Panel<'a> {
    /// For every 16 words of k, those of each row.
    Packed(&'a [f32]),
    /// Rows of bf16, so many values apart.
    InPlace(&'a [Bf16], usize),
}

impl<'a> Left<'a> {
    /// Rows that were packed before.
    pub(super) fn packed(packed: &'a [f32]) -> Self {
        Self { in_place: (0, &[], 0), packed }
    }

    /// Words of the memory for [`Left::new`] of at most so many rows.
    pub(super) fn scratch_len(method: Method, a: &MatRef, rows: usize) -> usize {
        let rows = if method.reads_in_place(a) { rows.min(method.mr()) } else { rows };
        method.packed_a_len(rows, a.cols)
    }

    /// Some rows, of which those are packed that cannot be read as they lie.
    pub(super) fn new(
        method: Method,
        a: &MatRef<'a>,
        rows: Range<usize>,
        packed: &'a mut [f32],
    ) -> Self {
        let in_place = match a.data {
            Values::Bf16(data) if method.reads_in_place(a) => {
                let whole = rows.len() / method.mr() * method.mr();
                (whole, &data[rows.start * a.row_stride..], a.row_stride)
            }
            _ => (0, &[][..], 0),
        };
        method.pack_a(a, rows.start + in_place.0..rows.end, packed);
        Self { in_place, packed }
    }

    /// The panel of `height` rows from `row`, from term `k_start` on of rows of so many words.
    pub(super) fn panel(
        &self,
        method: Method,
        row: usize,
        height: usize,
        k_start: usize,
        words: usize,
    ) -> Panel<'a> {
        let (whole, data, stride) = self.in_place;
        if row < whole {
            Panel::InPlace(&data[row * stride + k_start..], stride)
        } else {
            let start = (row - whole) * words + method.packed_a_len(height, k_start);
            Panel::Packed(&self.packed[start..])
        }
    }
}
