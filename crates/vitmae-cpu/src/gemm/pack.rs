//! Packing: copies a block of a strided matrix into the panels the micro-kernel reads in order.

use super::{MatRef, Tile};

/// Length of packed `A`: exactly its elements, since the last panel is as high as its rows.
pub(crate) fn packed_a_len(k: usize, rows: usize) -> usize {
    k * rows
}

/// Length of packed `B`: full panels, the last one padded with zeros.
pub(crate) fn packed_b_len(tile: &Tile, k: usize, cols: usize) -> usize {
    cols.div_ceil(tile.nr) * tile.nr * k
}

/// Packs `rows × k` of `A` into panels of `mr` rows: for each k the values of the panel's rows.
pub(crate) fn pack_a(
    tile: &Tile,
    a: &MatRef,
    row_start: usize,
    rows: usize,
    k_start: usize,
    k: usize,
    packed: &mut [f32],
) {
    if k == 0 {
        return;
    }
    for row in (0..rows).step_by(tile.mr) {
        let height = tile.mr.min(rows - row);
        let panel = &mut packed[row * k..(row + height) * k];
        let source = &a.data[(row_start + row) * a.row_stride + k_start * a.col_stride..];
        pack_panel(source, a.row_stride, a.col_stride, height, height, k, panel);
    }
}

/// Packs `k × cols` of `B` into panels of `nr` columns: for each k the values of the panel's columns.
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
    for (panel, col) in packed.chunks_exact_mut(tile.nr * k).zip((0..cols).step_by(tile.nr)) {
        let width = tile.nr.min(cols - col);
        let source = &b.data[k_start * b.row_stride + (col_start + col) * b.col_stride..];
        pack_panel(source, b.col_stride, b.row_stride, width, tile.nr, k, panel);
    }
}

/// `panel[p · pitch + i] = source[i · across + p · along]` for `i < count`, zero for the rest.
fn pack_panel(
    source: &[f32],
    across: usize,
    along: usize,
    count: usize,
    pitch: usize,
    k: usize,
    panel: &mut [f32],
) {
    if across == 1 {
        for (p, out) in panel.chunks_exact_mut(pitch).enumerate() {
            out[..count].copy_from_slice(&source[p * along..][..count]);
            out[count..].fill(0.0);
        }
    } else if along == 1 {
        // Transposes 8 values of each line at a time, so that each cache line is read once.
        if count < pitch {
            panel.fill(0.0);
        }
        let mut p = 0;
        while p + 8 <= k {
            for i in 0..count {
                let line: &[f32; 8] = source[i * across + p..][..8].try_into().unwrap_or(&[0.0; 8]);
                for (q, value) in line.iter().enumerate() {
                    panel[(p + q) * pitch + i] = *value;
                }
            }
            p += 8;
        }
        for p in p..k {
            for i in 0..count {
                panel[p * pitch + i] = source[i * across + p];
            }
        }
    } else {
        for (p, out) in panel.chunks_exact_mut(pitch).enumerate() {
            for (i, out) in out.iter_mut().enumerate() {
                *out = if i < count { source[i * across + p * along] } else { 0.0 };
            }
        }
    }
}
