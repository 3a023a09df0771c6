//! Training augmentations: random resized crop, horizontal flip, centre crop, RandAugment.
//!
//! Randomness is an argument: `draw` gives numbers in [0, 1), and the same draws give the same
//! pixels. Source of the geometry: torchvision's `RandomResizedCrop` with the settings of the MAE
//! recipe, scale (0.2, 1), ratio (3/4, 4/3), bicubic.

mod affine;
mod operation;
mod rand_augment;

pub use operation::Operation;
pub use rand_augment::RandAugment;

use crate::{Filter, Image, ImageError, VitImageProcessor, resize};

/// A rectangle of whole pixels inside an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// Left edge.
    pub left: usize,
    /// Top edge.
    pub top: usize,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
}

/// How a random crop is chosen and resized.
#[derive(Clone, Debug, PartialEq)]
pub struct RandomResizedCrop {
    /// Size of the result, (height, width) in pixels.
    pub size: (usize, usize),
    /// Smallest and largest share of the image's area.
    pub scale: (f64, f64),
    /// Smallest and largest width / height.
    pub ratio: (f64, f64),
    /// What to do about a crop that does not fit.
    pub fit: Fit,
    /// Filter of the resize.
    pub filter: Filter,
}

/// What to do about a random crop that is larger than its image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fit {
    /// Draw again, up to ten times: torchvision.
    #[default]
    Retry,
    /// Cut its sides down to the image's: TensorFlow's way, the original's linear probe.
    Clamp,
}

impl RandomResizedCrop {
    /// The crop of the MAE pre-training recipe, for results of (height, width) pixels.
    #[must_use]
    pub fn new(size: (usize, usize)) -> Self {
        let (scale, ratio) = ((0.2, 1.0), (3.0 / 4.0, 4.0 / 3.0));
        RandomResizedCrop { size, scale, ratio, fit: Fit::Retry, filter: Filter::Bicubic }
    }

    /// Chooses the crop of an image of (height, width) pixels.
    ///
    /// Up to ten times: area = U(scale)·H·W, ratio = exp U(ln ratio), sides rounded half to even;
    /// if they fit, the position is uniform over all that do. Otherwise the largest centred crop
    /// within the ratio range. Draws are used in the order area, ratio, top, left; an attempt that
    /// does not fit uses two. With [`Fit::Clamp`] the first one counts, its sides cut down to the image's.
    ///
    /// # Errors
    /// [`ImageError::RandomCrop`] if a range is not one or a draw is not in [0, 1).
    pub fn choose(
        &self,
        (height, width): (usize, usize),
        draw: &mut dyn FnMut() -> f64,
    ) -> Result<Crop, ImageError> {
        self.check()?;
        let mut draw = || checked("draw", draw(), "at least 0 and less than 1", |d| d < 1.0);
        let area = height as f64 * width as f64;
        let (log_low, log_high) = (self.ratio.0.ln(), self.ratio.1.ln());
        for _ in 0..10 {
            let target = area * (self.scale.0 + (self.scale.1 - self.scale.0) * draw()?);
            let ratio = (log_low + (log_high - log_low) * draw()?).exp();
            let w = (target * ratio).sqrt().round_ties_even() as usize;
            let h = (target / ratio).sqrt().round_ties_even() as usize;
            let (w, h) = match self.fit {
                Fit::Retry => (w, h),
                Fit::Clamp => (w.clamp(1, width), h.clamp(1, height)),
            };
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let top = (draw()? * (height - h + 1) as f64) as usize;
                let left = (draw()? * (width - w + 1) as f64) as usize;
                return Ok(Crop { left, top, width: w, height: h });
            }
        }
        Ok(self.central((height, width)))
    }

    /// The largest centred crop whose ratio is allowed.
    fn central(&self, (height, width): (usize, usize)) -> Crop {
        let ratio = width as f64 / height as f64;
        let (mut w, mut h) = (width, height);
        if ratio < self.ratio.0 {
            h = ((width as f64 / self.ratio.0).round_ties_even() as usize).clamp(1, height);
        } else if ratio > self.ratio.1 {
            w = ((height as f64 * self.ratio.1).round_ties_even() as usize).clamp(1, width);
        }
        Crop { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
    }

    fn check(&self) -> Result<(), ImageError> {
        let (low, high) = self.scale;
        checked("scale.0", low, "above 0", |low| low > 0.0)?;
        checked("scale.1", high, "from scale.0 to 1", |high| high >= low && high <= 1.0)?;
        let (low, high) = self.ratio;
        checked("ratio.0", low, "above 0", |low| low > 0.0)?;
        checked("ratio.1", high, "from ratio.0 up", |high| high >= low && high.is_finite())?;
        Ok(())
    }
}

/// Image → random crop → resize → flip with probability ½ → normalised pixels.
///
/// The resize filter is the crop's, not the processor's; of the processor, `do_convert_rgb`,
/// rescale and normalise are used. The draw for the flip comes after those of the crop.
///
/// # Shapes
/// `[H, W, C]` u8 → `[C, size.0, size.1]` f32
///
/// # Errors
/// Those of [`random_resized_crop`] and [`VitImageProcessor::normalise`].
pub fn augment(
    image: &Image,
    options: &RandomResizedCrop,
    processor: &VitImageProcessor,
    draw: &mut dyn FnMut() -> f64,
) -> Result<Vec<f32>, ImageError> {
    processor.validate()?;
    let mut augmented = random_resized_crop(image, options, draw)?;
    if checked("draw", draw(), "at least 0 and less than 1", |d| d < 1.0)? < 0.5 {
        augmented = horizontal_flip(&augmented);
    }
    if processor.do_convert_rgb == Some(true) && augmented.channels != 3 {
        augmented = augmented.to_rgb();
    }
    processor.normalise(&augmented)
}

/// Crops as [`RandomResizedCrop::choose`] says, then resizes the crop to `options.size`.
///
/// # Errors
/// [`ImageError::RandomCrop`] if a range or a draw is wrong, and those of [`resize`].
pub fn random_resized_crop(
    image: &Image,
    options: &RandomResizedCrop,
    draw: &mut dyn FnMut() -> f64,
) -> Result<Image, ImageError> {
    image.check("random crop")?;
    let chosen = options.choose((image.height, image.width), draw)?;
    let (height, width) = options.size;
    resize(&crop(image, chosen)?, (width, height), None, options.filter)
}

/// Cuts a rectangle out.
///
/// # Errors
/// [`ImageError::CropBox`] if it is empty or not inside the image.
pub fn crop(image: &Image, area: Crop) -> Result<Image, ImageError> {
    image.check("crop")?;
    let Crop { left, top, width, height } = area;
    let inside = |start: usize, length: usize, all: usize| {
        length > 0 && start.checked_add(length).is_some_and(|end| end <= all)
    };
    if !inside(left, width, image.width) || !inside(top, height, image.height) {
        let [l, t, w, h] = [left, top, width, height].map(|side| side as f64);
        let found = [l, t, l + w, t + h];
        return Err(ImageError::CropBox { found, width: image.width, height: image.height });
    }
    let line = image.width * image.channels;
    let columns = left * image.channels..(left + width) * image.channels;
    let mut data = Vec::with_capacity(height * columns.len());
    for row in image.data.chunks_exact(line).skip(top).take(height) {
        data.extend_from_slice(&row[columns.clone()]);
    }
    Image::new(width, height, image.channels, data)
}

/// Cuts (height, width) pixels out of the middle, half pixels rounded to even as torchvision does.
///
/// # Errors
/// [`ImageError::CropBox`] if the image is smaller; nothing is padded.
pub fn center_crop(image: &Image, (height, width): (usize, usize)) -> Result<Image, ImageError> {
    let middle = |all: usize, part: usize| {
        (all.saturating_sub(part) as f64 / 2.0).round_ties_even() as usize
    };
    let (left, top) = (middle(image.width, width), middle(image.height, height));
    crop(image, Crop { left, top, width, height })
}

/// Mirrors left and right.
#[must_use]
pub fn horizontal_flip(image: &Image) -> Image {
    let mut data = vec![0; image.data.len()];
    match image.channels {
        1 => mirror::<1>(image, &mut data),
        2 => mirror::<2>(image, &mut data),
        3 => mirror::<3>(image, &mut data),
        _ => mirror::<4>(image, &mut data),
    }
    Image { data, ..*image }
}

fn mirror<const C: usize>(image: &Image, out: &mut [u8]) {
    let line = (image.width * C).max(1);
    for (row, out) in image.data.chunks_exact(line).zip(out.chunks_exact_mut(line)) {
        let pixels = row.as_chunks::<C>().0.iter().rev();
        for (out, pixel) in out.as_chunks_mut::<C>().0.iter_mut().zip(pixels) {
            *out = *pixel;
        }
    }
}

fn checked(
    what: &'static str,
    found: f64,
    expected: &'static str,
    good: impl Fn(f64) -> bool,
) -> Result<f64, ImageError> {
    if found >= 0.0 && good(found) {
        return Ok(found);
    }
    Err(ImageError::RandomCrop { what, found, expected })
}
