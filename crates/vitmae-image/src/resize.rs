//! Resampling that equals Pillow's `Image.resize` bit for bit.
//!
//! A horizontal and a vertical pass, each rounding to u8. With `scale = (right − left) / out`
//! and `r = max(scale, 1)`, output pixel `i` is centred at `c = left + (i + ½)·scale` and
//!
//!   out[i] = Σₓ w[x] · in[x],   w[x] = filter((x + ½ − c) / r), divided by their sum,
//!
//! over the pixels within `r · support` of `c`, the weights being rounded to 22-bit fixed point.
//! The horizontal pass comes first unless the height loses more than twice the pixels that the
//! width loses (the rule of Pillow 13; up to 12.3 it always comes first). A pass that would change
//! nothing is skipped, and only what the second pass reads is computed. The box is rounded to f32
//! first. Images with alpha are premultiplied, resampled and divided again, except for
//! [`Filter::Nearest`].
//!
//! Source: Pillow's documentation ("Concepts, filters") and its observed results; the fixtures in
//! `tests/fixtures/images/resize.csv` are made by Pillow.

mod alpha;
mod filter;
mod nearest;
mod passes;
mod weights;

pub use filter::Filter;

use crate::{Image, ImageError};

/// The longest side of a result in pixels.
const MAX_SIDE: usize = 32_768;

/// Resizes `image`, or its part inside `crop_box`, to `(width, height)`.
///
/// `crop_box` is `[left, top, right, bottom]` in pixels and may be fractional. Pixels outside the
/// box still contribute at its edges, as in Pillow; use [`crop`](crate::crop) first where they
/// must not.
///
/// # Errors
/// [`ImageError::TargetSize`] if a side is zero or above 32,768, [`ImageError::CropBox`] if the
/// box is empty or not inside the image, and those of [`Image::new`].
pub fn resize(
    image: &Image,
    (width, height): (usize, usize),
    crop_box: Option<[f64; 4]>,
    filter: Filter,
) -> Result<Image, ImageError> {
    image.check("resize")?;
    if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
        return Err(ImageError::TargetSize { what: "resize", width, height });
    }
    let whole = [0.0, 0.0, image.width as f64, image.height as f64];
    let area = check_box(crop_box.unwrap_or(whole), image)?;
    if (width, height) == (image.width, image.height) && crop_box.unwrap_or(whole) == whole {
        return Ok(image.clone());
    }
    if filter == Filter::Nearest {
        return Ok(nearest::resize(image, (width, height), area));
    }
    Ok(match image.channels {
        1 => passes::resize::<1>(image, (width, height), area, filter),
        2 => alpha::divide(&passes::resize::<2>(
            &alpha::multiply(image),
            (width, height),
            area,
            filter,
        )),
        3 => passes::resize::<3>(image, (width, height), area, filter),
        _ => alpha::divide(&passes::resize::<4>(
            &alpha::multiply(image),
            (width, height),
            area,
            filter,
        )),
    })
}

/// Rounds the box to f32 and refuses one that is empty, not finite or outside the image.
fn check_box(found: [f64; 4], image: &Image) -> Result<[f32; 4], ImageError> {
    let [left, top, right, bottom] = found.map(|side| side as f32);
    let fits = left >= 0.0
        && top >= 0.0
        && right <= image.width as f32
        && bottom <= image.height as f32
        && left < right
        && top < bottom;
    if !fits {
        return Err(ImageError::CropBox { found, width: image.width, height: image.height });
    }
    Ok([left, top, right, bottom])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(width: usize, height: usize, channels: usize) -> Image {
        let data = (0..width * height * channels).map(|i| (i * 37 % 256) as u8).collect();
        Image::new(width, height, channels, data).unwrap()
    }

    #[test]
    fn a_constant_image_stays_constant() {
        for filter in Filter::ALL {
            let image = Image::new(31, 17, 3, [200, 0, 255].repeat(31 * 17)).unwrap();
            let resized = resize(&image, (7, 50), Some([0.5, 1.25, 30.0, 16.5]), filter).unwrap();
            assert_eq!(resized.data, [200, 0, 255].repeat(7 * 50), "{filter:?}");
        }
    }

    #[test]
    fn the_same_size_is_the_same_image() {
        for channels in 1..=4 {
            let image = ramp(13, 9, channels);
            let whole = Some([0.0, 0.0, 13.0, 9.0]);
            for filter in Filter::ALL {
                assert_eq!(resize(&image, (13, 9), None, filter).unwrap(), image);
                assert_eq!(resize(&image, (13, 9), whole, filter).unwrap(), image);
            }
        }
    }

    #[test]
    fn impossible_sizes_and_boxes_are_refused() {
        let image = ramp(13, 9, 3);
        let message = |size, area: Option<[f64; 4]>| {
            resize(&image, size, area, Filter::Bicubic).unwrap_err().to_string()
        };
        assert_eq!(
            message((0, 5), None),
            "resize: size 0x5 is not possible, expected 1x1 to 32768x32768"
        );
        assert!(message((5, 40_000), None).starts_with("resize: size 5x40000"));
        for area in [
            [0.0, 0.0, 13.5, 9.0],
            [-1.0, 0.0, 13.0, 9.0],
            [5.0, 0.0, 5.0, 9.0],
            [0.0, f64::NAN, 13.0, 9.0],
        ] {
            assert!(message((5, 5), Some(area)).contains("does not lie in the image of 13x9"));
        }
    }
}
