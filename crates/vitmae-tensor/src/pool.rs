//! Reused memory: a buffer that is dropped serves the next tensor of about its size.
//!
//! A training step asks for the same sizes every time, so after the first one nothing is allocated
//! and no page is touched for the first time. What lies idle never exceeds what was once in use.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// One cache line of floats: keeps every buffer 64-byte aligned.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Memory that returns to the pool when dropped; the contents of a reused one are whatever it held.
#[derive(Debug)]
pub(crate) struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Bytes held by the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// In tensors that are alive.
    pub in_use: usize,
    /// The most that was ever in use.
    pub peak: usize,
    /// Waiting to be reused.
    pub idle: usize,
    /// Buffers ever taken from the system.
    pub allocations: u64,
}

#[derive(Default)]
struct Pool {
    idle: BTreeMap<usize, Vec<Vec<Line>>>,
    memory: MemoryUse,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

/// What the pool holds now.
pub fn memory_use() -> MemoryUse {
    with_pool(|pool| pool.memory)
}

fn with_pool<R>(f: impl FnOnce(&mut Pool) -> R) -> R {
    // A panic elsewhere leaves the lists whole: every change of them is a single call.
    let mut pool = POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    f(pool.get_or_insert_default())
}

impl Buffer {
    /// `len` floats with unspecified contents.
    pub(crate) fn take(len: usize) -> Self {
        let lines = size_class(len.div_ceil(16));
        let found = with_pool(|pool| pool.take(lines));
        let lines = found.unwrap_or_else(|| bytemuck::zeroed_vec(lines));
        Self { lines, len }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        // What the pool does not keep is freed outside its lock.
        let surplus = with_pool(|pool| pool.give(lines));
        drop(surplus);
    }
}

impl Pool {
    fn take(&mut self, lines: usize) -> Option<Vec<Line>> {
        let bytes = lines * size_of::<Line>();
        let found = self.idle.get_mut(&lines).and_then(Vec::pop);
        match found {
            Some(_) => self.memory.idle -= bytes,
            None => self.memory.allocations += 1,
        }
        self.memory.in_use += bytes;
        self.memory.peak = self.memory.peak.max(self.memory.in_use);
        found
    }

    /// Keeps the buffer and returns what must go so that all memory stays within the peak.
    fn give(&mut self, lines: Vec<Line>) -> Vec<Vec<Line>> {
        let bytes = lines.len() * size_of::<Line>();
        self.memory.in_use -= bytes;
        self.memory.idle += bytes;
        self.idle.entry(lines.len()).or_default().push(lines);
        let mut surplus = Vec::new();
        while self.memory.in_use + self.memory.idle > self.limit() {
            // The largest one first: it frees the most and is the least likely to fit again.
            let Some(mut entry) = self.idle.last_entry() else { break };
            match entry.get_mut().pop() {
                Some(lines) => {
                    self.memory.idle -= lines.len() * size_of::<Line>();
                    surplus.push(lines);
                }
                None => {
                    entry.remove();
                }
            }
        }
        surplus
    }

    /// Room for the different sizes of one step beside each other: a quarter above the peak.
    fn limit(&self) -> usize {
        self.memory.peak + self.memory.peak / 4
    }
}

/// The size actually allocated: up to an eighth more, so that close sizes share their memory.
fn size_class(lines: usize) -> usize {
    if lines <= 8 {
        return lines;
    }
    let step = lines.next_power_of_two() / 16;
    lines.div_ceil(step.max(1)) * step.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_hold_what_is_asked_and_little_more() {
        for lines in (0..5000).chain([1 << 20, (1 << 20) + 1]) {
            let class = size_class(lines);
            assert!(class >= lines && class <= lines + lines / 8, "{lines} {class}");
            assert_eq!(size_class(class), class);
        }
    }

    #[test]
    fn buffers_are_aligned_and_reused() {
        // A size that no other test takes.
        let len = 16 * 12_345;
        let first = Buffer::take(len).as_slice().as_ptr();
        assert_eq!(first as usize % 64, 0);
        let mut pool = Pool::default();
        let taken = pool.take(100);
        assert!(taken.is_none());
        assert!(pool.give(bytemuck::zeroed_vec(100)).is_empty());
        assert!(pool.take(100).is_some());
        assert_eq!(pool.memory.allocations, 1);
    }

    #[test]
    fn idle_memory_stays_near_the_peak() {
        let mut pool = Pool::default();
        for lines in (1000..2000).step_by(100) {
            let _ = pool.take(lines);
            pool.give(bytemuck::zeroed_vec(lines));
        }
        let held = pool.memory.idle + pool.memory.in_use;
        assert!(held <= pool.limit(), "{held} {}", pool.limit());
        assert_eq!(pool.memory.in_use, 0);
    }
}
