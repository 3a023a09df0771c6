//! The two passes on u8 with 22-bit weights.

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
    let moves_x = width != image.width || left != 0.0 || right != width as f32;
    let moves_y = height != image.height || top != 0.0 || bottom != height as f32;
    let vertical = Weights::new(image.height, (top, bottom), height, filter);
    // The spans move forward, so the first and last tell which rows are read.
    let first = if moves_y { vertical.spans[0].0 } else { 0 };
    let last = if moves_y { vertical.spans[height - 1] } else { (image.height, 0) };
    let rows = first..last.0 + last.1;

    let source = &image.data[rows.start * image.width * C..rows.end * image.width * C];
    let narrowed;
    let source = if moves_x {
        let weights = Weights::new(image.width, (left, right), width, filter);
        narrowed = horizontal::<C>(source, image.width, &weights);
        &narrowed
    } else {
        source
    };
    let data =
        if moves_y { vertically(source, width * C, first, &vertical) } else { source.to_vec() };
    Image { width, height, channels: C, data }
}

/// Resamples every row of `source: [rows, width, C]`.
fn horizontal<const C: usize>(source: &[u8], width: usize, weights: &Weights) -> Vec<u8> {
    let rows = source.len() / (width * C);
    let mut out = Vec::with_capacity(rows * weights.spans.len() * C);
    for row in source.chunks_exact(width * C) {
        for i in 0..weights.spans.len() {
            let (first, weights) = weights.at(i);
            let pixels = &row[first * C..(first + weights.len()) * C];
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

/// Resamples every column of `source: [rows, line]`, whose first row is row `offset` of the image.
fn vertically(source: &[u8], line: usize, offset: usize, weights: &Weights) -> Vec<u8> {
    let mut out = Vec::with_capacity(weights.spans.len() * line);
    let mut sums = vec![HALF; line];
    for i in 0..weights.spans.len() {
        let (first, weights) = weights.at(i);
        let rows = source[(first - offset) * line..].chunks_exact(line);
        sums.fill(HALF);
        for (row, &weight) in rows.zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
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
