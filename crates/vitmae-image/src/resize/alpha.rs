//! Alpha, the last channel, multiplied into the colours and divided out again.

use crate::Image;

/// `colour · alpha / 255`, rounded.
pub(super) fn multiply(image: &Image) -> Image {
    per_pixel(image, |colour, alpha| {
        let product = u32::from(colour) * u32::from(alpha) + 128;
        (((product >> 8) + product) >> 8) as u8
    })
}

/// `colour · 255 / alpha`, rounded down and clipped; unchanged where alpha is 0 or 255.
pub(super) fn divide(image: &Image) -> Image {
    per_pixel(image, |colour, alpha| match alpha {
        0 | 255 => colour,
        _ => (u32::from(colour) * 255 / u32::from(alpha)).min(255) as u8,
    })
}

fn per_pixel(image: &Image, change: impl Fn(u8, u8) -> u8) -> Image {
    let mut out = image.clone();
    for pixel in out.data.chunks_exact_mut(image.channels) {
        if let Some((&mut alpha, colours)) = pixel.split_last_mut() {
            colours.iter_mut().for_each(|colour| *colour = change(*colour, alpha));
        }
    }
    out
}
