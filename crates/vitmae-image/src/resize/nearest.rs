//! The pixel under each centre.

use crate::Image;

/// Picks pixels; positions are accumulated in f64 by adding the step, as Pillow does, which
/// decides ties.
pub(super) fn resize(
    image: &Image,
    (width, height): (usize, usize),
    [left, top, right, bottom]: [f32; 4],
) -> Image {
    let channels = image.channels;
    let columns = positions(left, right, width, image.width);
    let rows = positions(top, bottom, height, image.height);
    let mut data = Vec::with_capacity(width * height * channels);
    for y in rows {
        let row = &image.data[y * image.width * channels..][..image.width * channels];
        for &x in &columns {
            data.extend_from_slice(&row[x * channels..][..channels]);
        }
    }
    Image { width, height, channels, data }
}

/// The input position of every output position.
fn positions(start: f32, end: f32, output: usize, input: usize) -> Vec<usize> {
    let step = f64::from(end - start) / output as f64;
    let mut at = f64::from(start) + step * 0.5;
    let mut positions = Vec::with_capacity(output);
    for _ in 0..output {
        positions.push((at as usize).min(input - 1));
        at += step;
    }
    positions
}
