//! The two passes on u8 with 22-bit weights.

use std::ops::Range;

use super::{Filter, weights};
use crate::Image;
use weights::{BITS, Weights};

/// Half a unit of the result, so that the final shift rounds.
const HALF: i32 = 1 << (BITS - 1);

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
fn horizontal<const C: usize>(
    source: &[u8],
    width: usize,
    offset: usize,
    weights: &Weights,
) -> Vec<u8> {
    let rows = source.len() / (width * C);
    let mut out = Vec::with_capacity(rows * weights.len() * C);
    for row in source.chunks_exact(width * C) {
        for i in 0..weights.len() {
            let (first, weights) = weights.at(i);
            let pixels = &row[(first - offset) * C..][..weights.len() * C];
            let mut sum = [HALF; C];
            for (pixel, weight) in pixels.chunks_exact(C).zip(weights) {
                for c in 0..C {
                    sum[c] += i32::from(pixel[c]) * weight;
                }
            }
            out.extend(sum.map(clip));
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
