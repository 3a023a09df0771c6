//! Affine transforms with Pillow's bicubic filter for RGB.
//!
//! Output pixel (x, y) reads the input at `(a·x' + b·y' + c, d·x' + e·y' + f)` with x' = x + ½, y' = y + ½. What lies
//! outside becomes the fill colour; inside, the 4x4 neighbours are clamped in x, and missing rows below repeat the last.
//! Source: Pillow's `Image.transform` and `Image.rotate`, by their observed results.

use crate::Image;

/// `[a, b, c, d, e, f]`
pub(super) type Affine = [f64; 6];

/// The transform that turns counter-clockwise by `degrees` about the middle; none for a full turn.
pub(super) fn rotation(degrees: f64, width: f64, height: f64) -> Option<Affine> {
    let degrees = degrees.rem_euclid(360.0);
    if degrees == 0.0 {
        return None;
    }
    let angle = -degrees.to_radians();
    let (cos, sin) = (rounded(angle.cos()), rounded(angle.sin()));
    let (x, y) = (width / 2.0, height / 2.0);
    let at = |a: f64, b: f64| a * -x + b * -y;
    Some([cos, sin, at(cos, sin) + x, -sin, cos, at(-sin, cos) + y])
}

/// To 15 decimals.
fn rounded(value: f64) -> f64 {
    format!("{value:.15}").parse().unwrap_or(value)
}

/// `image` seen through `affine`; it has three channels.
pub(super) fn transform(image: &Image, affine: Affine, fill: [u8; 3]) -> Image {
    let [a, b, c, d, e, f] = affine;
    let mut data = Vec::with_capacity(image.data.len());
    for row in 0..image.height {
        for column in 0..image.width {
            let (x, y) = (column as f64 + 0.5, row as f64 + 0.5);
            let from = (a * x + b * y + c, d * x + e * y + f);
            data.extend(bicubic(image, from).unwrap_or(fill));
        }
    }
    Image { data, ..*image }
}

/// The colour at a point, none outside of the image.
fn bicubic(image: &Image, (x, y): (f64, f64)) -> Option<[u8; 3]> {
    let (width, height) = (image.width as f64, image.height as f64);
    if !(x >= 0.0 && x < width && y >= 0.0 && y < height) {
        return None;
    }
    let (x, y) = (x - 0.5, y - 0.5);
    let (left, top) = (x.floor(), y.floor());
    let (dx, dy) = (x - left, y - top);
    let clamped = |at: i64, length: usize| at.clamp(0, length as i64 - 1) as usize;
    let columns: [usize; 4] =
        std::array::from_fn(|i| 3 * clamped(left as i64 - 1 + i as i64, image.width));
    let rows: [usize; 4] =
        std::array::from_fn(|i| clamped(top as i64 - 1 + i as i64, image.height));
    Some(std::array::from_fn(|channel| {
        let lines = rows.map(|row| {
            let start = row * image.width * 3 + channel;
            cubic(columns.map(|column| f64::from(image.data[start + column])), dx)
        });
        cubic(lines, dy) as u8
    }))
}

/// The cubic with a = −1 through four values, `d` of the way from the second to the third.
fn cubic([v1, v2, v3, v4]: [f64; 4], d: f64) -> f64 {
    let p2 = -v1 + v3;
    let p3 = 2.0 * (v1 - v2) + v3 - v4;
    let p4 = -v1 + v2 - v3 + v4;
    v2 + d * (p2 + d * (p3 + d * p4))
}
