//! The right-hand matrix of a product: packed by each call, or once for many of them.

use super::{MatRef, Method, Precision, TASK_WORDS};
use crate::parallel::{self, SharedMut};
use crate::scratch::{self, Line};
use std::ops::Range;

/// A matrix `B: [k, n]` in the precision and the order of this machine's kernels.
///
/// For weights that many products read before they change: inference, or a step over several batches.
pub struct PackedB {
    pub(super) method: Method,
    k: usize,
    n: usize,
    panels: Box<[Line]>,
}

impl PackedB {
    /// Packs a matrix.
    pub fn new(precision: Precision, b: MatRef) -> Self {
        let method = Method::of(precision);
        let (k, n, nr) = (b.rows, b.cols, method.nr());
        let words = method.words(k);
        let mut panels = scratch::kept(n.next_multiple_of(nr) * words);
        let task_cols = (TASK_WORDS / words.max(1)).next_multiple_of(nr);
        let out = SharedMut::new(bytemuck::cast_slice_mut(&mut panels));
        parallel::for_each(n.div_ceil(task_cols), |task| {
            let cols = task * task_cols..((task + 1) * task_cols).min(n);
            let len = cols.len().next_multiple_of(nr) * words;
            // SAFETY: tasks own disjoint panels.
            let panels = unsafe { out.slice(cols.start * words, len) };
            method.pack_b(&b, cols, panels);
        });
        Self { method, k, n, panels }
    }
}

/// The `B: [k, n]` of one call.
pub(super) struct Right<'a> {
    pub(super) k: usize,
    pub(super) n: usize,
    source: Source<'a>,
}

enum Source<'a> {
    Matrix(MatRef<'a>),
    Packed(&'a [f32]),
}

impl<'a> From<MatRef<'a>> for Right<'a> {
    fn from(b: MatRef<'a>) -> Self {
        Self { k: b.rows, n: b.cols, source: Source::Matrix(b) }
    }
}

impl<'a> From<&'a PackedB> for Right<'a> {
    fn from(b: &'a PackedB) -> Self {
        Self { k: b.k, n: b.n, source: Source::Packed(bytemuck::cast_slice(&b.panels)) }
    }
}

impl Right<'_> {
    /// Some rows, of a matrix that is not packed yet; otherwise all.
    pub(super) fn rows(&self, rows: Range<usize>) -> Self {
        match &self.source {
            Source::Matrix(b) => Self::from(b.transposed().columns(rows).transposed()),
            Source::Packed(panels) => Self { source: Source::Packed(panels), ..*self },
        }
    }

    /// Whether it was packed before.
    pub(super) fn is_packed(&self) -> bool {
        matches!(self.source, Source::Packed(_))
    }

    /// Words that [`Right::packed`] needs for so many columns.
    pub(super) fn scratch_len(&self, method: Method, cols: usize) -> usize {
        match self.source {
            Source::Matrix(_) => cols.next_multiple_of(method.nr()) * method.words(self.k),
            Source::Packed(_) => 0,
        }
    }

    /// The panels of some columns, which start at a panel.
    pub(super) fn packed<'b>(
        &'b self,
        method: Method,
        cols: Range<usize>,
        scratch: &'b mut [f32],
    ) -> &'b [f32] {
        match &self.source {
            Source::Matrix(b) => {
                method.pack_b(b, cols, scratch);
                scratch
            }
            Source::Packed(panels) => &panels[cols.start * method.words(self.k)..],
        }
    }
}
