//! The right-hand matrix of a product: packed by each call, or once for many of them.

use super::{MatRef, Method, Precision, TASK_WORDS};
use crate::parallel::{self, SharedMut};
use crate::scratch;
use std::ops::Range;

/// Memory that holds the panels of a [`PackedB`].
pub trait Panels: AsRef<[f32]> + AsMut<[f32]> + Send + Sync {}

impl<M: AsRef<[f32]> + AsMut<[f32]> + Send + Sync> Panels for M {}

/// A matrix `B: [k, n]` in the precision and the order of this machine's kernels.
///
/// For weights that many products read before they change: inference, or a step over several batches.
pub struct PackedB {
    pub(super) method: Method,
    k: usize,
    n: usize,
    panels: Box<dyn Panels>,
}

impl PackedB {
    /// Packs a matrix.
    pub fn new(precision: Precision, b: MatRef) -> Self {
        Self::in_memory(precision, b, scratch::Kept::new)
    }

    /// Packs a matrix into what `memory` returns for a number of floats; its contents do not matter. Products are fastest if it
    /// starts at a cache line.
    ///
    /// # Panics
    /// If it holds fewer floats than asked for.
    pub fn in_memory<M: Panels + 'static>(
        precision: Precision,
        b: MatRef,
        memory: impl FnOnce(usize) -> M,
    ) -> Self {
        Self::by(Method::of(precision), b, memory)
    }

    /// [`PackedB::in_memory`] for a certain method.
    pub(super) fn by<M: Panels + 'static>(
        method: Method,
        b: MatRef,
        memory: impl FnOnce(usize) -> M,
    ) -> Self {
        let (k, n, nr) = (b.rows, b.cols, method.nr());
        let words = method.words(k);
        let len = n.next_multiple_of(nr) * words;
        let mut panels = Box::new(memory(len));
        let task_cols = (TASK_WORDS / words.max(1)).max(1).next_multiple_of(nr);
        let out = SharedMut::new(&mut panels.as_mut().as_mut()[..len]);
        parallel::for_each(n.div_ceil(task_cols), |task| {
            let cols = task * task_cols..((task + 1) * task_cols).min(n);
            let len = cols.len().next_multiple_of(nr) * words;
            // SAFETY: tasks own disjoint panels.
            let panels = unsafe { out.slice(cols.start * words, len) };
            method.pack_b(&b, cols, panels);
        });
        Self { method, k, n, panels }
    }

    /// The values again, column after column, as a weight `[n, k]` has them.
    ///
    /// # Panics
    /// If they were packed in bf16, which rounded them, or if `values` does not have n · k elements.
    pub fn unpack(&self, values: &mut [f32]) {
        let (method, k, n, nr) = (self.method, self.k, self.n, self.method.nr());
        assert!(method.keeps_values(), "gemm: values in bf16 are not unpacked");
        assert_eq!(values.len(), n * k, "gemm: a matrix of {k}x{n}");
        if k == 0 {
            return;
        }
        // Where packing takes each value, as found by packing their places: that of value p of column i is k · i + p + 1.
        let len = method.words(k) * nr;
        let places: Vec<f32> = (1..=(k * nr) as u32).map(f32::from_bits).collect();
        let mut order = scratch::take(len);
        method.pack_b(&MatRef::row_major(&places, nr, k).transposed(), 0..nr, &mut order);
        let panels = &(*self.panels).as_ref()[..n.div_ceil(nr) * len];
        let out = SharedMut::new(values);
        parallel::for_each(n.div_ceil(nr), |panel| {
            let first = panel * nr;
            // SAFETY: tasks own the values of disjoint columns.
            let values = unsafe { out.slice(first * k, nr.min(n - first) * k) };
            for (place, value) in order.iter().zip(&panels[panel * len..]) {
                // Filling has place 0, and the columns behind the last have none here.
                let place = (place.to_bits() as usize).wrapping_sub(1);
                if let Some(out) = values.get_mut(place) {
                    *out = *value;
                }
            }
        });
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
        Self { k: b.k, n: b.n, source: Source::Packed((*b.panels).as_ref()) }
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
