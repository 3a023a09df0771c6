//! Parallel loops on the current Rayon pool, split at places that do not depend on its size.

use rayon::prelude::*;

/// Elements a task handles in element-wise kernels: large enough to hide the cost of a task, small
/// enough to keep every core busy.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Runs `task(i)` for every `i` in `0..count`, in any order.
pub(crate) fn for_each(count: usize, task: impl Fn(usize) + Sync + Send) {
    if count == 1 {
        task(0);
    } else {
        (0..count).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// Rows a task handles so that it covers about [`CHUNK`] elements.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// A pointer that tasks may share because they write disjoint places.
pub(crate) struct SharedMut<T = f32>(*mut T);

impl<T> Clone for SharedMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SharedMut<T> {}
// SAFETY: the pointer is only dereferenced through `slice`, whose caller promises disjointness.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    pub(crate) fn at(self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }

    /// The same elements from `offset` on.
    pub(crate) fn after(self, offset: usize) -> Self {
        Self(self.at(offset))
    }

    /// The `len` elements from `offset`.
    ///
    /// # Safety
    /// The range lies inside the slice given to [`SharedMut::new`], that slice outlives the use, and
    /// no other task touches the range meanwhile.
    pub(crate) unsafe fn slice<'a>(self, offset: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(offset), len) }
    }
}
