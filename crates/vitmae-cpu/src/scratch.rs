//! Reusable aligned scratch memory, so that a kernel allocates nothing once it has run.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

/// One cache line of floats: the unit that keeps scratch buffers 64-byte aligned.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([f32; 16]);

static FREE: Mutex<Vec<Vec<Line>>> = Mutex::new(Vec::new());

/// A scratch buffer of `len` floats with unspecified contents; returned to the pool when dropped.
pub(crate) struct Scratch {
    lines: Vec<Line>,
    len: usize,
}

/// Takes a buffer of `len` floats from the pool, or allocates one.
pub(crate) fn take(len: usize) -> Scratch {
    if len == 0 {
        return Scratch { lines: Vec::new(), len };
    }
    let needed = len.div_ceil(16);
    let mut free = FREE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // The smallest buffer that fits; else the largest one, which is grown.
    let fitting =
        (0..free.len()).filter(|&i| free[i].len() >= needed).min_by_key(|&i| free[i].len());
    let found = fitting.or_else(|| (0..free.len()).max_by_key(|&i| free[i].len()));
    let mut lines = found.map(|i| free.swap_remove(i)).unwrap_or_default();
    drop(free);
    if lines.len() < needed {
        lines.clear();
        lines.resize(needed, Line([0.0; 16]));
    }
    Scratch { lines, len }
}

/// Zeros on cache lines, for at least `len` floats that somebody keeps.
pub(crate) fn kept(len: usize) -> Box<[Line]> {
    vec![Line([0.0; 16]); len.div_ceil(16)].into()
}

/// The same as floats.
pub(crate) struct Kept(Box<[Line]>);

impl Kept {
    /// See [`kept`].
    pub(crate) fn new(len: usize) -> Self {
        Self(kept(len))
    }
}

impl AsRef<[f32]> for Kept {
    fn as_ref(&self) -> &[f32] {
        bytemuck::cast_slice(&self.0)
    }
}

impl AsMut<[f32]> for Kept {
    fn as_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// Length of a buffer that holds parts of these lengths, each on its own cache lines.
pub(crate) fn total<const N: usize>(lens: [usize; N]) -> usize {
    lens.iter().map(|len| len.next_multiple_of(16)).sum()
}

/// Cuts a buffer of [`total`] floats into its parts.
pub(crate) fn split<const N: usize>(buffer: &mut [f32], lens: [usize; N]) -> [&mut [f32]; N] {
    let mut rest = buffer;
    lens.map(|len| {
        let (part, tail) = std::mem::take(&mut rest).split_at_mut(len.next_multiple_of(16));
        rest = tail;
        &mut part[..len]
    })
}

impl Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if lines.is_empty() {
            return;
        }
        FREE.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_and_as_long_as_asked() {
        let lens = [3, 16, 0, 17];
        assert_eq!(total(lens), 64);
        let mut buffer = take(total(lens));
        let parts = split(&mut buffer, lens);
        assert_eq!(parts.each_ref().map(|part| part.len()), lens);
        assert!(parts.iter().all(|part| part.as_ptr().addr().is_multiple_of(64)));
    }
}
