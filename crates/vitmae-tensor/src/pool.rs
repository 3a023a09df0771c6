//! Reused memory: tensors lie in a few large chunks, and what one gives back serves the next.
//!
//! A request takes the smallest gap that fits, and neighbouring gaps join, so gradients fit where activations
//! were. A training step asks for the same sizes in the same order every time: after the first ones nothing is
//! asked of the system and no page is touched for the first time, and the memory held is what was in use at
//! once, and a little for gaps.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Mutex;

/// Floats of a unit of allocation: a cache line, to which every buffer is aligned.
const LINE: usize = 16;
/// Lines of a chunk, unless a request is larger: 64 MiB.
const CHUNK: usize = 1 << 20;

/// Memory that returns to the pool when dropped; the contents are whatever was there before.
pub(crate) struct Buffer {
    start: NonNull<f32>,
    len: usize,
    place: Place,
}

// SAFETY: a buffer alone owns its floats until it is dropped.
unsafe impl Send for Buffer {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Buffer {}

/// Some lines of a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    chunk: usize,
    first: usize,
    lines: usize,
}

/// Bytes held by the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// In tensors and packed weights that are alive.
    pub in_use: usize,
    /// The most that was ever in use.
    pub peak: usize,
    /// Waiting to be reused, or never touched.
    pub idle: usize,
    /// Chunks ever taken from the system.
    pub allocations: u64,
}

/// Which lines of which chunk are free.
#[derive(Default)]
struct Gaps {
    /// By chunk: first line and number of lines of each gap. No two gaps touch.
    by_place: Vec<BTreeMap<usize, usize>>,
    /// The same, smallest first: lines, chunk, first line.
    by_size: BTreeSet<(usize, usize, usize)>,
}

struct Pool {
    gaps: Gaps,
    /// The start of each chunk. Chunks are never given back.
    chunks: Vec<NonNull<f32>>,
    memory: MemoryUse,
}

// SAFETY: the pool owns its chunks.
unsafe impl Send for Pool {}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    gaps: Gaps { by_place: Vec::new(), by_size: BTreeSet::new() },
    chunks: Vec::new(),
    memory: MemoryUse { in_use: 0, peak: 0, idle: 0, allocations: 0 },
});

/// What the pool holds now.
pub fn memory_use() -> MemoryUse {
    with_pool(|pool| pool.memory)
}

fn with_pool<R>(f: impl FnOnce(&mut Pool) -> R) -> R {
    // No code of ours panics between two changes that belong together.
    let mut pool = POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    f(&mut pool)
}

impl Buffer {
    /// `len` floats with unspecified contents.
    pub(crate) fn take(len: usize) -> Self {
        let lines = len.div_ceil(LINE);
        if lines == 0 {
            return Self { start: NonNull::dangling(), len, place: Place::default() };
        }
        let (start, place) = with_pool(|pool| pool.take(lines));
        Self { start, len, place }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: the place holds at least `len` floats, which were zeroed when the chunk was made.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and nobody else has this buffer.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[f32]> for Buffer {
    fn as_ref(&self) -> &[f32] {
        self.as_slice()
    }
}

impl AsMut<[f32]> for Buffer {
    fn as_mut(&mut self) -> &mut [f32] {
        self.as_mut_slice()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.place.lines > 0 {
            with_pool(|pool| pool.give(self.place));
        }
    }
}

impl Pool {
    fn take(&mut self, lines: usize) -> (NonNull<f32>, Place) {
        let place = self.gaps.take(lines).unwrap_or_else(|| {
            self.add_chunk(lines.max(CHUNK));
            self.gaps.take(lines).unwrap_or_else(|| unreachable!("the new chunk is large enough"))
        });
        let bytes = bytes(lines);
        self.memory.idle -= bytes;
        self.memory.in_use += bytes;
        self.memory.peak = self.memory.peak.max(self.memory.in_use);
        // SAFETY: the place lies inside its chunk.
        (unsafe { self.chunks[place.chunk].add(place.first * LINE) }, place)
    }

    fn give(&mut self, place: Place) {
        self.memory.in_use -= bytes(place.lines);
        self.memory.idle += bytes(place.lines);
        self.gaps.give(place);
    }

    /// Takes a chunk of zeros from the system, which gives pages only as they are touched.
    fn add_chunk(&mut self, lines: usize) {
        // With no more alignment than malloc's, so that the system gives its untouched pages as they are; one line
        // more, to start at a cache line.
        let layout = layout(lines + 1);
        // SAFETY: the layout is not empty.
        let start: *mut f32 = unsafe { alloc_zeroed(layout) }.cast();
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        // SAFETY: less than the line that was added.
        let start = unsafe { start.add(start.align_offset(LINE * size_of::<f32>())) };
        self.chunks.push(start);
        self.memory.allocations += 1;
        self.memory.idle += bytes(lines);
        let place = Place { chunk: self.gaps.by_place.len(), first: 0, lines };
        self.gaps.by_place.push(BTreeMap::new());
        self.gaps.insert(place);
    }
}

impl Gaps {
    /// The first lines of the smallest gap that fits.
    fn take(&mut self, lines: usize) -> Option<Place> {
        let &(size, chunk, first) = self.by_size.range((lines, 0, 0)..).next()?;
        self.remove(Place { chunk, first, lines: size });
        if size > lines {
            self.insert(Place { chunk, first: first + lines, lines: size - lines });
        }
        Some(Place { chunk, first, lines })
    }

    /// Adds a gap and joins it with those that it touches.
    fn give(&mut self, mut place: Place) {
        let chunk = &self.by_place[place.chunk];
        let before = chunk.range(..place.first).next_back().map(|(&first, &lines)| (first, lines));
        let after = chunk.get(&(place.first + place.lines)).copied();
        if let Some(lines) = after {
            let first = place.first + place.lines;
            self.remove(Place { first, lines, ..place });
            place.lines += lines;
        }
        if let Some((first, lines)) = before.filter(|(first, lines)| first + lines == place.first) {
            self.remove(Place { first, lines, ..place });
            place = Place { first, lines: place.lines + lines, ..place };
        }
        self.insert(place);
    }

    fn insert(&mut self, Place { chunk, first, lines }: Place) {
        self.by_place[chunk].insert(first, lines);
        self.by_size.insert((lines, chunk, first));
    }

    fn remove(&mut self, Place { chunk, first, lines }: Place) {
        self.by_place[chunk].remove(&first);
        self.by_size.remove(&(lines, chunk, first));
    }
}

fn bytes(lines: usize) -> usize {
    lines * LINE * size_of::<f32>()
}

fn layout(lines: usize) -> Layout {
    let size = lines.saturating_mul(LINE * size_of::<f32>());
    Layout::from_size_align(size, align_of::<f32>())
        .unwrap_or_else(|_| panic!("{lines} lines are more than memory can address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(lines: usize) -> Gaps {
        let mut gaps = Gaps { by_place: vec![BTreeMap::new()], by_size: BTreeSet::new() };
        gaps.insert(Place { chunk: 0, first: 0, lines });
        gaps
    }

    #[test]
    fn the_smallest_gap_is_taken_and_neighbours_join() {
        let mut gaps = gaps(100);
        let [a, b, c] = [10, 20, 30].map(|lines| gaps.take(lines).unwrap());
        assert_eq!([a.first, b.first, c.first], [0, 10, 30]);
        gaps.give(b);
        assert_eq!(gaps.take(15).unwrap().first, 10, "20 lines fit better than the last 40");
        assert_eq!(gaps.take(41), None);
        gaps.give(Place { first: 10, lines: 15, ..b });
        gaps.give(a);
        gaps.give(c);
        assert_eq!(gaps.by_place[0].iter().collect::<Vec<_>>(), [(&0, &100)]);
        assert_eq!(gaps.by_size.len(), 1);
    }

    #[test]
    fn buffers_never_overlap_and_all_memory_comes_back() {
        let mut gaps = gaps(1000);
        let mut held: Vec<Place> = Vec::new();
        let mut state = 1u32;
        for _ in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let draw = (state >> 8) as usize;
            if draw.is_multiple_of(2) && !held.is_empty() {
                gaps.give(held.swap_remove(draw / 2 % held.len()));
            } else if let Some(place) = gaps.take(1 + draw / 2 % 90) {
                let apart = |other: &Place| {
                    other.first + other.lines <= place.first
                        || place.first + place.lines <= other.first
                };
                assert!(held.iter().all(apart), "{place:?} in {held:?}");
                held.push(place);
            }
            let free: usize = gaps.by_place[0].values().sum();
            assert_eq!(free + held.iter().map(|place| place.lines).sum::<usize>(), 1000);
        }
        held.into_iter().for_each(|place| gaps.give(place));
        assert_eq!(gaps.by_place[0].iter().collect::<Vec<_>>(), [(&0, &1000)]);
    }

    #[test]
    fn a_repeated_sequence_takes_no_more_memory() {
        let mut pool =
            Pool { gaps: Gaps::default(), chunks: Vec::new(), memory: MemoryUse::default() };
        for _ in 0..3 {
            let places = [CHUNK / 2, 3, CHUNK / 2, CHUNK + 5].map(|lines| pool.take(lines).1);
            places.into_iter().for_each(|place| pool.give(place));
            assert_eq!((pool.memory.allocations, pool.memory.in_use), (3, 0));
        }
        assert_eq!(pool.memory.peak, bytes(2 * CHUNK + 8));
    }

    #[test]
    fn buffers_are_aligned_and_hold_what_is_written() {
        let mut buffers: Vec<Buffer> = (0..40).map(Buffer::take).collect();
        for (value, buffer) in buffers.iter_mut().enumerate() {
            buffer.as_mut_slice().fill(value as f32);
        }
        for (value, buffer) in buffers.iter().enumerate() {
            assert!(value == 0 || buffer.as_slice().as_ptr().addr().is_multiple_of(64));
            assert_eq!(buffer.as_slice(), vec![value as f32; value]);
        }
    }
}
