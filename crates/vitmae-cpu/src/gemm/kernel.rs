//! The micro-kernels: a tile of `C` held in registers while `k` outer products are added to it.

use crate::simd::{Level, level};

/// Rows of `A` as a micro-kernel reads them: element (i, p) is `data[i · row + p · k]`.
///
/// One of the strides is 1: `row` in a packed panel and in a transposed matrix, `k` in a plain one.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) data: *const f32,
    pub(crate) row: usize,
    pub(crate) k: usize,
}

/// The part of `C` that one call of a micro-kernel writes.
#[derive(Clone, Copy)]
pub(crate) struct Corner {
    pub(crate) data: *mut f32,
    /// Distance of two rows.
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// Lines of a matrix to be packed: value p of line i is `data[i · stride + p]`.
#[derive(Clone, Copy)]
pub(crate) struct Lines {
    pub(crate) data: *const f32,
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

/// Arguments: k, rows of `A`, packed panel of `B`, the part of `C`, whether to add to it.
type Kernel = unsafe fn(usize, Rows, *const f32, Corner, bool);

/// A micro-kernel and the size of its tile; `nr` is a multiple of [`crate::simd::LANES`].
#[derive(Debug)]
pub(crate) struct Tile {
    pub(crate) mr: usize,
    pub(crate) nr: usize,
    /// # Safety
    /// `A` holds `rows × k` values, `B` holds `k · nr`, `C` has `rows` in `1..=mr` rows of `cols` in
    /// `1..=nr` writable values, and the CPU has the instructions of the tile's level.
    pub(crate) kernel: Kernel,
    /// Writes value p of line i to `panel[p · pitch + i]`: lines, k, panel, pitch.
    ///
    /// Values between the number of lines and `pitch` are left, or become 0.
    ///
    /// # Safety
    /// Each line holds k values, the panel `k · pitch`, `pitch` is at least the number of lines, and the
    /// CPU has the instructions of the tile's level.
    pub(crate) transpose: unsafe fn(Lines, usize, *mut f32, usize),
}

/// The tile for this machine.
pub(crate) fn tile() -> &'static Tile {
    tile_of(level())
}

/// Those of every instruction set that this machine has.
#[cfg(test)]
pub(super) fn tiles() -> Vec<&'static Tile> {
    let all = [Level::Avx512, Level::Avx2, Level::Portable];
    all.into_iter().skip_while(|&one| one != level()).map(tile_of).collect()
}

/// The tile of one instruction set.
fn tile_of(level: Level) -> &'static Tile {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            use super::{avx2, avx512};
            &Tile { mr: 14, nr: 32, kernel: avx512::kernel, transpose: avx2::transpose }
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            use super::avx2;
            &Tile { mr: 6, nr: 16, kernel: avx2::kernel, transpose: avx2::transpose }
        }
        _ => &Tile { mr: 4, nr: 16, kernel: portable, transpose },
    }
}

/// Calls the kernel for exactly the number of rows of the corner, and for the stride of `A` that is 1.
#[cfg(target_arch = "x86_64")]
macro_rules! by_rows {
    ($kernel:ident, $k:expr, $a:expr, $b:expr, $c:expr, $accumulate:expr, $($n:literal)*) => {
        match ($c.rows, $a.row) {
            $(($n, 1) => $kernel::<$n, true>($k, $a, $b, $c, $accumulate),
              ($n, _) => $kernel::<$n, false>($k, $a, $b, $c, $accumulate),)*
            _ => unreachable!("rows of a tile"),
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use by_rows;

/// Plain Rust; the compiler vectorises the inner loop over the sixteen columns.
unsafe fn portable(k: usize, a: Rows, b: *const f32, c: Corner, accumulate: bool) {
    // SAFETY: the contract of `Tile::kernel`.
    let b = unsafe { std::slice::from_raw_parts(b, k * 16) };
    let mut acc = [[0.0f32; 16]; 4];
    for (p, b) in b.chunks_exact(16).enumerate() {
        for (i, acc) in acc.iter_mut().enumerate().take(c.rows) {
            // SAFETY: element (i, p) of the rows of A.
            let a = unsafe { *a.data.add(i * a.row + p * a.k) };
            for (acc, b) in acc.iter_mut().zip(b) {
                *acc += a * b;
            }
        }
    }
    for (i, acc) in acc.iter().enumerate().take(c.rows) {
        // SAFETY: row i of C has `cols` writable values.
        let c = unsafe { std::slice::from_raw_parts_mut(c.data.add(i * c.stride), c.cols) };
        for (c, acc) in c.iter_mut().zip(acc) {
            *c = if accumulate { *c + acc } else { *acc };
        }
    }
}

/// Plain Rust.
unsafe fn transpose(lines: Lines, k: usize, panel: *mut f32, pitch: usize) {
    for p in 0..k {
        for i in 0..lines.count {
            // SAFETY: the contract of `Tile::transpose`.
            unsafe { *panel.add(p * pitch + i) = *lines.data.add(i * lines.stride + p) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(count: usize, seed: u32) -> Vec<f32> {
        let draw = |i: usize| crate::random::philox4x32([seed, 0], [i as u32, 0, 0, 0])[0];
        (0..count).map(|i| draw(i) as f32 / u32::MAX as f32 - 0.5).collect()
    }

    /// Runs one corner at `strides` of A; what lies around the corner must stay.
    fn check(tile: &Tile, rows: usize, cols: usize, k: usize, strides: (usize, usize), add: bool) {
        let (row, along) = strides;
        let a = draws(rows * row + k * along, 1);
        let mut b = draws(k * tile.nr, 2);
        for row in b.chunks_mut(tile.nr) {
            row[cols..].fill(0.0);
        }
        let stride = tile.nr + 3;
        let before = draws(tile.mr * stride + 1, 3);
        let mut c = before.clone();
        let corner = Corner { data: c.as_mut_ptr(), stride, rows, cols };
        let view = Rows { data: a.as_ptr(), row, k: along };
        // SAFETY: the buffers above are as long as the tile demands.
        unsafe { (tile.kernel)(k, view, b.as_ptr(), corner, add) };
        for (index, (&found, &before)) in c.iter().zip(&before).enumerate() {
            let (i, j) = (index / stride, index % stride);
            if i >= rows || j >= cols {
                assert_eq!(found, before, "{rows}x{cols}x{k} wrote at ({i}, {j})");
                continue;
            }
            let term = |p: usize| a[i * row + p * along] as f64 * b[p * tile.nr + j] as f64;
            let expected = (0..k).map(term).sum::<f64>() + if add { before as f64 } else { 0.0 };
            let error = (found as f64 - expected).abs();
            assert!(error < 2e-6 * (1.0 + k as f64).sqrt(), "{rows}x{cols}x{k} at ({i}, {j})");
        }
    }

    #[test]
    fn every_micro_kernel_writes_its_corner_and_nothing_else() {
        for tile in tiles() {
            for rows in 1..=tile.mr {
                for cols in 1..=tile.nr {
                    for k in [0, 1, 5, 33] {
                        for strides in [(1, rows), (1, 41), (40, 1)] {
                            check(tile, rows, cols, k, strides, false);
                            check(tile, rows, cols, k, strides, true);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_transposition_writes_its_panel_and_nothing_else() {
        for tile in tiles() {
            for (count, pitch) in (1..=16).flat_map(|count| [(count, count), (count, 16)]) {
                for k in [1, 7, 8, 9, 16, 33] {
                    let (stride, end) = (k + 2, k * pitch);
                    let source = draws(count * stride, 4);
                    let mut panel = vec![0.0; end + 16];
                    panel[end..].fill(7.0);
                    let lines = Lines { data: source.as_ptr(), stride, count };
                    // SAFETY: the buffers above are as long as the tile demands.
                    unsafe { (tile.transpose)(lines, k, panel.as_mut_ptr(), pitch) };
                    for (index, found) in panel[..end].iter().enumerate() {
                        let (p, i) = (index / pitch, index % pitch);
                        let expected = if i < count { source[i * stride + p] } else { 0.0 };
                        assert_eq!(*found, expected, "{count} lines, pitch {pitch}, ({p}, {i})");
                    }
                    assert!(panel[end..].iter().all(|&v| v == 7.0), "{count} lines, k {k}");
                }
            }
        }
    }
}
