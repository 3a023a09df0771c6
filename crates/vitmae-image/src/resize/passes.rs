//! The two passes on u8 with 22-bit weights.

use std::ops::Range;

use super::{Filter, weights};
use crate::Image;
use weights::{BITS, Weights};

/// Half a unit of the result, so that the final shift rounds.
const HALF: i32 = 1 << (BITS - 1);

/// [`HALF`] for the sums of two rows in one number.
const HALF_OF_BOTH: i64 = (HALF as i64) << 32 | HALF as i64;

/// Resamples an image of `C` channels; the area lies in the image.
pub(super) fn resize<const C: usize>(
    image: &Image,
    (width, height): (usize, usize),
    [left, top, right, bottom]: [f32; 4],
    filter: Filter,
) -> Image {
    let across = (width != image.width || left != 0.0 || right != width as f32)
        .then(|| Weights::new(image.width, (left, right), width, filter));
    let down = (height != image.height || top != 0.0 || bottom != height as f32)
        .then(|| Weights::new(image.height, (top, bottom), height, filter));
    let (line, whole) = (image.width * C, 0..image.height);

    let data = match (&across, &down) {
        (None, None) => image.data.clone(),
        (Some(across), None) => horizontal::<C>(&image.data, image.width, 0, across),
        (None, Some(down)) => vertical(&image.data, line, 0..line, whole.start, down),
        (Some(across), Some(down)) if vertical_first(image, width, height) => {
            let columns = across.reach();
            let bytes = columns.start * C..columns.end * C;
            let flat = vertical(&image.data, line, bytes, 0, down);
            horizontal::<C>(&flat, columns.len(), columns.start, across)
        }
        (Some(across), Some(down)) => {
            let rows = down.reach();
            let source = &image.data[rows.start * line..rows.end * line];
            let narrow = horizontal::<C>(source, image.width, 0, across);
            vertical(&narrow, width * C, 0..width * C, rows.start, down)
        }
    };
    Image { width, height, channels: C, data }
}

/// Whether the vertical pass comes first, which changes the rounding of what lies between.
///
/// Up to Pillow 12.3 the horizontal pass always came first. Pillow 13.0 begins with the vertical
/// pass where the height loses more than twice the pixels that the width loses; the rule was found
/// by trying both orders on sizes around it, and counts the image, not the box.
fn vertical_first(image: &Image, width: usize, height: usize) -> bool {
    image.height.saturating_sub(height) > 2 * image.width.saturating_sub(width)
}

/// Resamples every row of `source: [rows, width, C]`, whose first column is column `offset` of the
/// image.
///
/// Two rows go together, one in each half of an `i64`: a weighted sum fits 32 bits, so one
/// multiplication serves both.
fn horizontal<const C: usize>(
    source: &[u8],
    width: usize,
    offset: usize,
    weights: &Weights,
) -> Vec<u8> {
    let (from, to) = (width * C, weights.len() * C);
    let mut out = vec![0; source.len() / from * to];
    let mut pair = vec![[0; C]; width];
    for (rows, out) in source.chunks(2 * from).zip(out.chunks_mut(2 * to)) {
        // An odd last row is paired with itself.
        let (upper, lower) = (&rows[..from], &rows[rows.len() - from..]);
        let pixels = upper.as_chunks::<C>().0.iter().zip(lower.as_chunks::<C>().0);
        for (pair, (upper, lower)) in pair.iter_mut().zip(pixels) {
            *pair = std::array::from_fn(|c| i64::from(upper[c]) | i64::from(lower[c]) << 32);
        }
        let (upper, lower) = out.split_at_mut(to);
        let mut lower = lower.as_chunks_mut::<C>().0.iter_mut();
        for (i, upper) in upper.as_chunks_mut::<C>().0.iter_mut().enumerate() {
            let (first, weights) = weights.at(i);
            let mut sums = [HALF_OF_BOTH; C];
            for (tap, &weight) in pair[first - offset..].iter().zip(weights) {
                for c in 0..C {
                    sums[c] += tap[c] * i64::from(weight);
                }
            }
            *upper = sums.map(|sum| clip(sum as i32));
            if let Some(lower) = lower.next() {
                // What the low half borrowed from the high one is given back.
                *lower = sums.map(|sum| clip(((sum - i64::from(sum as i32)) >> 32) as i32));
            }
        }
    }
    out
}

/// Resamples the bytes `columns` of every row of `source: [rows, line]`, whose first row is row
/// `offset` of the image.
fn vertical(
    source: &[u8],
    line: usize,
    columns: Range<usize>,
    offset: usize,
    weights: &Weights,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(weights.len() * columns.len());
    let mut sums = vec![HALF; columns.len()];
    for i in 0..weights.len() {
        let (first, weights) = weights.at(i);
        let rows = source[(first - offset) * line..].chunks_exact(line);
        sums.fill(HALF);
        for (row, &weight) in rows.zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(&row[columns.clone()]) {
                *sum += i32::from(value) * weight;
            }
        }
        out.extend(sums.iter().copied().map(clip));
    }
    out
}

/// Drops the fraction and clips to a byte.
fn clip(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}
