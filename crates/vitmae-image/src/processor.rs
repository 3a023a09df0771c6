//! `ViTImageProcessor`: from an image to the model's pixels and back.
//!
//!   resize (Pillow, u8)  →  x · rescale_factor  →  (x − mean) / std  →  [C, H, W]
//!
//! The product with the factor is taken in f64 and rounded to f32; mean and std are rounded to
//! f32, and the rest is f32. This is what `ViTImageProcessor` of transformers 4.57.6 (the "slow"
//! class on Pillow) computes; the "fast" class differs by fused constants and another resize.

mod config;

use std::borrow::Cow;

use crate::{Filter, Image, ImageError, resize};

/// The target of the resize step (`size` in `preprocessor_config.json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Exactly this size; the aspect ratio is not kept.
    Exact {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
    },
    /// The shorter side gets this length, the longer one keeps the aspect ratio (rounded down).
    ShortestEdge(usize),
}

/// One number for all channels, or one for each (`image_mean`, `image_std`).
#[derive(Clone, Debug, PartialEq)]
pub enum PerChannel {
    /// The same for any number of channels.
    All(f64),
    /// One a channel; an image with another number of channels is refused.
    Each(Vec<f64>),
}

/// Resizes, rescales and normalises images as transformers' `ViTImageProcessor` does on Pillow.
///
/// `preprocessor_config.json` is read by [`from_json`](Self::from_json) and written by
/// [`to_json`](Self::to_json); [`Default`] is the class's own default (224x224, bilinear, mean and
/// std 0.5).
#[derive(Clone, Debug, PartialEq)]
pub struct VitImageProcessor {
    /// Whether to resize.
    pub do_resize: bool,
    /// Size after resizing.
    pub size: Size,
    /// Filter of the resize.
    pub resample: Filter,
    /// Whether to multiply by [`rescale_factor`](Self::rescale_factor).
    pub do_rescale: bool,
    /// Usually 1/255.
    pub rescale_factor: f64,
    /// Whether to subtract the mean and divide by the standard deviation.
    pub do_normalize: bool,
    /// Mean of the rescaled values.
    pub image_mean: PerChannel,
    /// Standard deviation of the rescaled values.
    pub image_std: PerChannel,
    /// Whether to convert to RGB first; `None` (not in the file) means no.
    pub do_convert_rgb: Option<bool>,
    /// Keys that this crate does not know, kept for [`to_json`](Self::to_json).
    pub unknown: serde_json::Map<String, serde_json::Value>,
}

impl Default for VitImageProcessor {
    fn default() -> Self {
        VitImageProcessor {
            do_resize: true,
            size: Size::Exact { height: 224, width: 224 },
            resample: Filter::Bilinear,
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: PerChannel::Each(vec![0.5; 3]),
            image_std: PerChannel::Each(vec![0.5; 3]),
            do_convert_rgb: None,
            unknown: serde_json::Map::new(),
        }
    }
}

impl VitImageProcessor {
    /// The model's pixels of one image.
    ///
    /// # Shapes
    /// `[H, W, C]` u8 → `[C, H', W']` f32 with `(H', W')` of [`output_size`](Self::output_size).
    /// `C` is 3 with [`do_convert_rgb`](Self::do_convert_rgb), else the image's.
    ///
    /// # Errors
    /// [`ImageError::Channels`] if mean or std are lists of another length than `C`, and those of
    /// [`resize`] and [`validate`](Self::validate).
    ///
    /// Source: transformers 4.57.6, `models/vit/image_processing_vit.py`.
    pub fn preprocess(&self, image: &Image) -> Result<Vec<f32>, ImageError> {
        self.validate()?;
        image.check("preprocess")?;
        let mut image = Cow::Borrowed(image);
        if self.do_convert_rgb == Some(true) && image.channels != 3 {
            image = Cow::Owned(image.to_rgb());
        }
        self.check_channels(image.channels)?;
        if self.do_resize {
            let (height, width) = self.output_size(image.height, image.width);
            image = Cow::Owned(resize(&image, (width, height), None, self.resample)?);
        }
        self.normalise(&image)
    }

    /// Height and width of the pixels made from an image of `height` and `width`.
    #[must_use]
    pub fn output_size(&self, height: usize, width: usize) -> (usize, usize) {
        if !self.do_resize {
            return (height, width);
        }
        match self.size {
            Size::Exact { height, width } => (height, width),
            Size::ShortestEdge(edge) => {
                let long = |long: usize, short: usize| edge * long / short.max(1);
                if height <= width {
                    (edge, long(width, height))
                } else {
                    (long(height, width), edge)
                }
            }
        }
    }

    /// The last two steps alone, on an image that has its size already.
    ///
    /// # Shapes
    /// `[H, W, C]` u8 → `[C, H, W]` f32
    ///
    /// # Errors
    /// [`ImageError::Channels`] if mean or std are lists of another length than `C`.
    pub fn normalise(&self, image: &Image) -> Result<Vec<f32>, ImageError> {
        image.check("normalise")?;
        self.check_channels(image.channels)?;
        let mut pixels = Vec::with_capacity(image.data.len());
        for channel in 0..image.channels {
            // A byte has 256 values, so the whole arithmetic is a table.
            let table: [f32; 256] =
                std::array::from_fn(|value| self.normalised(value as u8, channel));
            let values = image.data.chunks_exact(image.channels).map(|pixel| pixel[channel]);
            pixels.extend(values.map(|value| table[usize::from(value)]));
        }
        Ok(pixels)
    }

    /// The inverse of [`normalise`](Self::normalise), for display: rounds to the nearest of
    /// 0..=255 and clips.
    ///
    /// # Shapes
    /// `[C, H, W]` f32 → `[H, W, C]` u8
    ///
    /// # Errors
    /// [`ImageError::Values`] if `pixels` are not `C·H·W` values, and those of [`Image::new`] and
    /// [`normalise`](Self::normalise).
    pub fn denormalise(
        &self,
        pixels: &[f32],
        [channels, height, width]: [usize; 3],
    ) -> Result<Image, ImageError> {
        let planes = self.display_planes(pixels, [channels, height, width])?;
        let plane = height * width;
        let data =
            (0..plane).flat_map(|at| planes.iter().skip(at).step_by(plane).copied()).collect();
        Image::new(width, height, channels, data)
    }

    /// As [`denormalise`](Self::denormalise) for any number of channels, `[C, H, W]` u8.
    pub(crate) fn display_planes(
        &self,
        pixels: &[f32],
        [channels, height, width]: [usize; 3],
    ) -> Result<Vec<u8>, ImageError> {
        let plane = height.saturating_mul(width);
        let (found, expected) = (pixels.len(), plane.saturating_mul(channels));
        if found != expected {
            return Err(ImageError::Values { what: "pixels to display", found, expected });
        }
        self.check_channels(channels)?;
        let planes = pixels.chunks_exact(plane.max(1)).enumerate();
        Ok(planes
            .flat_map(|(channel, values)| {
                values.iter().map(move |&value| self.displayed(value, channel))
            })
            .collect())
    }

    /// Colour values in 0..=1 of normalised pixels, clipped but not rounded, for numbers about images.
    ///
    /// # Shapes
    /// `[C, H, W]` → `[C, H, W]`
    ///
    /// # Errors
    /// As [`denormalise`](Self::denormalise).
    pub fn colour_planes(&self, pixels: &[f32], sizes: [usize; 3]) -> Result<Vec<f32>, ImageError> {
        let (found, expected) = (pixels.len(), sizes.iter().product());
        if found != expected {
            return Err(ImageError::Values { what: "pixels to compare", found, expected });
        }
        self.check_channels(sizes[0])?;
        let plane = (sizes[1] * sizes[2]).max(1);
        let colour = |(at, &value): (usize, &f32)| {
            (self.grey_value(value, at / plane) / 255.0).clamp(0.0, 1.0) as f32
        };
        Ok(pixels.iter().enumerate().map(colour).collect())
    }

    fn normalised(&self, value: u8, channel: usize) -> f32 {
        let mut value = f32::from(value);
        if self.do_rescale {
            value = (f64::from(value) * self.rescale_factor) as f32;
        }
        if self.do_normalize {
            let (mean, std) = (self.image_mean.of(channel), self.image_std.of(channel));
            value = (value - mean as f32) / std as f32;
        }
        value
    }

    fn displayed(&self, value: f32, channel: usize) -> u8 {
        // The cast clips, and takes NaN to 0.
        self.grey_value(value, channel).round() as u8
    }

    /// A normalised value as one of 0..=255, neither rounded nor clipped.
    fn grey_value(&self, value: f32, channel: usize) -> f64 {
        let mut value = f64::from(value);
        if self.do_normalize {
            value = value * self.image_std.of(channel) + self.image_mean.of(channel);
        }
        if self.do_rescale {
            value /= self.rescale_factor;
        }
        value
    }

    fn check_channels(&self, found: usize) -> Result<(), ImageError> {
        if !self.do_normalize {
            return Ok(());
        }
        for (what, values) in [("image_mean", &self.image_mean), ("image_std", &self.image_std)] {
            if let PerChannel::Each(list) = values
                && list.len() != found
            {
                let expected = format!("{} as in `{what}`", list.len());
                return Err(ImageError::Channels { what: "image processor", found, expected });
            }
        }
        Ok(())
    }
}

impl PerChannel {
    /// The number of `channel`; the lengths were checked before.
    fn of(&self, channel: usize) -> f64 {
        match self {
            PerChannel::All(value) => *value,
            PerChannel::Each(values) => values[channel],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imagenet() -> VitImageProcessor {
        VitImageProcessor {
            image_mean: PerChannel::Each(vec![0.485, 0.456, 0.406]),
            image_std: PerChannel::Each(vec![0.229, 0.224, 0.225]),
            ..VitImageProcessor::default()
        }
    }

    #[test]
    fn display_inverts_normalise() {
        let data: Vec<u8> = (0..=255).flat_map(|v| [v, 255 - v, v / 2]).collect();
        let image = Image::new(16, 16, 3, data).unwrap();
        for (do_rescale, do_normalize) in
            [(true, true), (true, false), (false, true), (false, false)]
        {
            let processor = VitImageProcessor { do_rescale, do_normalize, ..imagenet() };
            let pixels = processor.normalise(&image).unwrap();
            assert_eq!(processor.denormalise(&pixels, [3, 16, 16]).unwrap(), image);
        }
    }

    #[test]
    fn display_clips_and_survives_nan() {
        let pixels = [1e9, -1e9, f32::NAN];
        let image = imagenet().denormalise(&pixels, [3, 1, 1]).unwrap();
        assert_eq!(image.data, [255, 0, 0]);
    }

    #[test]
    fn the_shorter_edge_keeps_the_aspect() {
        let processor =
            VitImageProcessor { size: Size::ShortestEdge(224), ..VitImageProcessor::default() };
        assert_eq!(processor.output_size(480, 640), (224, 298));
        assert_eq!(processor.output_size(640, 480), (298, 224));
        let image = Image::new(64, 48, 3, vec![9; 64 * 48 * 3]).unwrap();
        assert_eq!(processor.preprocess(&image).unwrap().len(), 3 * 224 * 298);
    }

    #[test]
    fn channels_must_fit_the_lists() {
        let grey = Image::new(4, 4, 1, vec![10; 16]).unwrap();
        assert_eq!(
            imagenet().preprocess(&grey).unwrap_err().to_string(),
            "image processor: the image has 1 channels, expected 3 as in `image_mean`\n\
             help: `Image::to_rgb` or `\"do_convert_rgb\": true` makes 3 channels of any image"
        );
        let rgb = VitImageProcessor { do_convert_rgb: Some(true), ..imagenet() };
        assert_eq!(rgb.preprocess(&grey).unwrap().len(), 3 * 224 * 224);
        let single = VitImageProcessor {
            image_mean: PerChannel::Each(vec![0.5]),
            image_std: PerChannel::All(0.25),
            ..VitImageProcessor::default()
        };
        assert_eq!(single.preprocess(&grey).unwrap().len(), 224 * 224);
        let short = imagenet().denormalise(&[0.0; 5], [3, 1, 2]).unwrap_err().to_string();
        assert_eq!(short, "pixels to display: found 5 values, expected 6");
    }
}
