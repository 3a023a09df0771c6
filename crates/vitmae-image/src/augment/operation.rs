//! The fifteen operations of RandAugment, equal to Pillow's bit for bit on 8-bit RGB.
//!
//! Source: timm's "increasing" set (`_RAND_INCREASING_TRANSFORMS` in `timm/data/auto_augment.py`) for names, levels and
//! signs; Pillow's `ImageOps`, `ImageEnhance` and `Image.transform` for what they do. Vectors:
//! `tests/fixtures/augment/operations.csv`.

use super::affine::{self, Affine};
use crate::{Image, ImageError};

/// One operation; how strong it is, is a level from 0 to 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Stretches each channel to 0..=255.
    AutoContrast,
    /// Flattens each channel's histogram.
    Equalize,
    /// 255 − value.
    Invert,
    /// Turns by up to 30 degrees about the middle.
    Rotate,
    /// Keeps 4 bits at level 0, none at level 10 (black, as Pillow had it until it refused 0 bits).
    Posterize,
    /// Inverts values from 256 (level 0) or from 0 (level 10) on.
    Solarize,
    /// Adds up to 110 to values below 128.
    SolarizeAdd,
    /// Away from grey, or towards it.
    Color,
    /// Away from the mean grey, or towards it.
    Contrast,
    /// Away from black, or towards it.
    Brightness,
    /// Away from a smoothed image, or towards it.
    Sharpness,
    /// Shifts rows by up to 0.3 of their number.
    ShearX,
    /// Shifts columns by up to 0.3 of their number.
    ShearY,
    /// Shifts sideways by up to 0.45 of the width.
    TranslateX,
    /// Shifts up or down by up to 0.45 of the height.
    TranslateY,
}

impl Operation {
    /// All of them, with timm's names, in timm's order.
    pub const ALL: [(&'static str, Operation); 15] = [
        ("AutoContrast", Operation::AutoContrast),
        ("Equalize", Operation::Equalize),
        ("Invert", Operation::Invert),
        ("Rotate", Operation::Rotate),
        ("PosterizeIncreasing", Operation::Posterize),
        ("SolarizeIncreasing", Operation::Solarize),
        ("SolarizeAdd", Operation::SolarizeAdd),
        ("ColorIncreasing", Operation::Color),
        ("ContrastIncreasing", Operation::Contrast),
        ("BrightnessIncreasing", Operation::Brightness),
        ("SharpnessIncreasing", Operation::Sharpness),
        ("ShearX", Operation::ShearX),
        ("ShearY", Operation::ShearY),
        ("TranslateXRel", Operation::TranslateX),
        ("TranslateYRel", Operation::TranslateY),
    ];

    /// Applies the operation at `level`, which is clamped to 0..=10; `turned` takes the other direction where there are two.
    /// Pixels that come from outside the image become `fill`.
    ///
    /// # Shapes
    /// `[H, W, 3]` u8 → `[H, W, 3]` u8
    ///
    /// # Errors
    /// [`ImageError::Channels`] if the image is not RGB.
    pub fn apply(
        self,
        image: &Image,
        level: f64,
        turned: bool,
        fill: [u8; 3],
    ) -> Result<Image, ImageError> {
        image.check("RandAugment")?;
        if image.channels != 3 {
            let (found, expected) = (image.channels, "3".to_owned());
            return Err(ImageError::Channels { what: "RandAugment", found, expected });
        }
        let share = level.clamp(0.0, 10.0) / 10.0;
        let signed = |value: f64| if turned { -value } else { value };
        // Only the enhancements ask, and for them 1 is the image itself.
        let factor = (1.0 + signed(share * 0.9)).max(0.1) as f32;
        let (width, height) = (image.width as f64, image.height as f64);
        let moved = |a: Affine| affine::transform(image, a, fill);
        let (shear, shift) = (signed(share * 0.3), signed(share * 0.45));
        Ok(match self {
            Operation::AutoContrast => channelwise(image, stretched),
            Operation::Equalize => channelwise(image, flattened),
            Operation::Invert => table(image, |value| 255 - value),
            Operation::Posterize => {
                let bits = 4 - (share * 4.0) as u32;
                let kept = !(0xFF_u32 >> bits) as u8;
                table(image, |value| value & kept)
            }
            Operation::Solarize => {
                let from = 256 - ((share * 256.0) as u16).min(256);
                table(image, |value| if u16::from(value) < from { value } else { 255 - value })
            }
            Operation::SolarizeAdd => {
                let more = ((share * 110.0) as u8).min(128);
                table(image, |value| if value < 128 { value.saturating_add(more) } else { value })
            }
            Operation::Color => blend(&luma_rgb(image), image, factor),
            Operation::Contrast => blend(&vec![mean_luma(image); image.data.len()], image, factor),
            Operation::Brightness => blend(&vec![0; image.data.len()], image, factor),
            Operation::Sharpness => blend(&smoothed(image), image, factor),
            Operation::Rotate => match affine::rotation(signed(share * 30.0), width, height) {
                Some(rotation) => moved(rotation),
                None => image.clone(),
            },
            Operation::ShearX => moved([1.0, shear, 0.0, 0.0, 1.0, 0.0]),
            Operation::ShearY => moved([1.0, 0.0, 0.0, shear, 1.0, 0.0]),
            Operation::TranslateX => moved([1.0, 0.0, shift * width, 0.0, 1.0, 0.0]),
            Operation::TranslateY => moved([1.0, 0.0, 0.0, 0.0, 1.0, shift * height]),
        })
    }
}

fn table(image: &Image, value: impl Fn(u8) -> u8) -> Image {
    Image { data: image.data.iter().map(|&v| value(v)).collect(), ..*image }
}

/// Replaces values by a table that a channel's histogram gives.
fn channelwise(image: &Image, of: impl Fn(&[usize; 256]) -> [u8; 256]) -> Image {
    let mut histograms = [[0; 256]; 3];
    for pixel in image.data.as_chunks::<3>().0 {
        for (histogram, &value) in histograms.iter_mut().zip(pixel) {
            histogram[usize::from(value)] += 1;
        }
    }
    let tables = histograms.map(|histogram| of(&histogram));
    let mut data = image.data.clone();
    for pixel in data.as_chunks_mut::<3>().0 {
        for (table, value) in tables.iter().zip(pixel) {
            *value = table[usize::from(*value)];
        }
    }
    Image { data, ..*image }
}

fn stretched(histogram: &[usize; 256]) -> [u8; 256] {
    let low = histogram.iter().position(|&count| count > 0).unwrap_or(0);
    let high = histogram.iter().rposition(|&count| count > 0).unwrap_or(0);
    if high <= low {
        return std::array::from_fn(|value| value as u8);
    }
    let scale = 255.0 / (high - low) as f64;
    let offset = -(low as f64) * scale;
    // `as` cuts towards zero and clamps, as Pillow does in two steps.
    std::array::from_fn(|value| (value as f64 * scale + offset) as u8)
}

fn flattened(histogram: &[usize; 256]) -> [u8; 256] {
    let last = histogram.iter().rev().find(|&&count| count > 0).copied().unwrap_or(0);
    let step = (histogram.iter().sum::<usize>() - last) / 255;
    if step == 0 {
        return std::array::from_fn(|value| value as u8);
    }
    let mut below = step / 2;
    std::array::from_fn(|value| {
        let new = (below / step).min(255) as u8;
        below += histogram[value];
        new
    })
}

/// Pillow's grey in 16-bit fixed point.
fn luma(&[red, green, blue]: &[u8; 3]) -> u8 {
    let sum = u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471;
    ((sum + 0x8000) >> 16) as u8
}

fn luma_rgb(image: &Image) -> Vec<u8> {
    image.data.as_chunks::<3>().0.iter().flat_map(|pixel| [luma(pixel); 3]).collect()
}

fn mean_luma(image: &Image) -> u8 {
    let pixels = image.data.as_chunks::<3>().0;
    let sum: u64 = pixels.iter().map(|pixel| u64::from(luma(pixel))).sum();
    (sum as f64 / pixels.len() as f64 + 0.5) as u8
}

/// The mean of nine neighbours, the middle one five times; the border stays as it is.
fn smoothed(image: &Image) -> Vec<u8> {
    let mut data = image.data.clone();
    let line = image.width * 3;
    for y in 1..image.height.saturating_sub(1) {
        let inner = (y * line + 3)..((y + 1) * line).saturating_sub(3);
        for (at, value) in data.iter_mut().enumerate().take(inner.end).skip(inner.start) {
            let row = |start: usize| -> u32 {
                [start - 3, start, start + 3].iter().map(|&i| u32::from(image.data[i])).sum()
            };
            let sum = row(at - line) + row(at) + row(at + line) + 4 * u32::from(image.data[at]);
            // Half up; a sum over 13 never lies on a half, so Pillow's f32 gives the same.
            *value = ((2 * sum + 13) / 26) as u8;
        }
    }
    data
}

/// `from + factor · (image − from)`, in f32, cut towards zero and clamped.
fn blend(from: &[u8], image: &Image, factor: f32) -> Image {
    let value = |(&from, &to): (&u8, &u8)| {
        (f32::from(from) + factor * (f32::from(to) - f32::from(from))) as u8
    };
    Image { data: from.iter().zip(&image.data).map(value).collect(), ..*image }
}
