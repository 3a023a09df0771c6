//! Packing: copies a block of a strided matrix into the panels the micro-kernel reads in order.

use super::MatRef;
use super::kernel::{Lines, Tile};

/// Packs `rows × k` of `A` into panels of `mr` rows, the last one as high as its rows: for each k the values of the
/// panel's rows.
pub(crate) fn pack_a(
    tile: &Tile,
    a: &MatRef,
    row_start: usize,
    rows: usize,
    k_start: usize,
    k: usize,
    packed: &mut [f32],
) {
    if k * rows == 0 {
        return;
    }
    let source = &a.f32()[row_start * a.row_stride + k_start * a.col_stride..];
    if a.row_stride == 1 {
        return spread_rows(source, a.col_stride, tile.mr, rows, k, packed);
    }
    for row in (0..rows).step_by(tile.mr) {
        let height = tile.mr.min(rows - row);
        let panel = &mut packed[row * k..(row + height) * k];
        let source = &source[row * a.row_stride..];
        pack_panel(tile, source, [a.row_stride, a.col_stride], height, height, k, panel);
    }
}

/// Packs `k × cols` of `B` into panels of `nr` columns, the last one filled with zeros: for each k the values of
/// the panel's columns.
pub(crate) fn pack_b(
    tile: &Tile,
    b: &MatRef,
    k_start: usize,
    k: usize,
    col_start: usize,
    cols: usize,
    packed: &mut [f32],
) {
    if k == 0 {
        return;
    }
    let data = b.f32();
    // Rows are read as far as they go, a few at a time; columns one panel after the other.
    let step = if b.col_stride == 1 { 16 } else { k };
    for first in (0..k).step_by(step) {
        let len = step.min(k - first);
        for (panel, col) in packed.chunks_exact_mut(tile.nr * k).zip((0..cols).step_by(tile.nr)) {
            let width = tile.nr.min(cols - col);
            let start = (k_start + first) * b.row_stride + (col_start + col) * b.col_stride;
            let panel = &mut panel[first * tile.nr..][..len * tile.nr];
            let strides = [b.col_stride, b.row_stride];
            pack_panel(tile, &data[start..], strides, width, tile.nr, len, panel);
        }
    }
}

/// `panel[p · pitch + i] = source[i · across + p · along]` for `i < count`, zero for the rest.
fn pack_panel(
    tile: &Tile,
    source: &[f32],
    [across, along]: [usize; 2],
    count: usize,
    pitch: usize,
    k: usize,
    panel: &mut [f32],
) {
    if across == 1 {
        copy_rows(source, along, count, pitch, panel);
        return;
    }
    if count < pitch {
        panel.fill(0.0);
    }
    if along == 1 {
        assert!(source.len() > (count - 1) * across + k - 1 && panel.len() >= k * pitch);
        let lines = Lines { data: source.as_ptr(), stride: across, count };
        // SAFETY: `source` holds k values behind the start of every line, `panel` holds k · pitch.
        unsafe { (tile.transpose)(lines, k, panel.as_mut_ptr(), pitch) };
        return;
    }
    for (p, out) in panel.chunks_exact_mut(pitch).enumerate() {
        for (i, out) in out.iter_mut().enumerate().take(count) {
            *out = source[i * across + p * along];
        }
    }
}

/// Copies `count` values of each row; vectors of a known size where a panel is full.
fn copy_rows(source: &[f32], along: usize, count: usize, pitch: usize, panel: &mut [f32]) {
    let rows = panel.chunks_exact_mut(pitch).enumerate();
    if count == pitch && pitch.is_multiple_of(16) {
        for (p, out) in rows {
            let source = &source[p * along..][..count];
            for (out, source) in out.as_chunks_mut::<16>().0.iter_mut().zip(source.as_chunks().0) {
                *out = *source;
            }
        }
    } else {
        for (p, out) in rows {
            out[..count].copy_from_slice(&source[p * along..][..count]);
            out[count..].fill(0.0);
        }
    }
}

/// Packs `A` whose rows are neighbours: each line of the source is read once and spread over the panels.
fn spread_rows(source: &[f32], along: usize, mr: usize, rows: usize, k: usize, packed: &mut [f32]) {
    // What a copy of `wide` values writes too much is written again by the next lines.
    let wide = mr.next_multiple_of(8);
    for p in 0..k {
        let line = &source[p * along..][..rows];
        let mut row = 0;
        if p + wide.div_ceil(mr) <= k {
            while row + wide <= rows {
                let out = &mut packed[row * k + p * mr..][..wide];
                let line = &line[row..row + wide];
                for (out, line) in out.as_chunks_mut::<8>().0.iter_mut().zip(line.as_chunks().0) {
                    *out = *line;
                }
                row += mr;
            }
        }
        while row < rows {
            let height = mr.min(rows - row);
            packed[row * k + p * height..][..height].copy_from_slice(&line[row..row + height]);
            row += height;
        }
    }
}
