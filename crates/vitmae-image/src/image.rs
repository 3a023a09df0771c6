//! The 8-bit image that every step of this crate takes or gives.

use crate::ImageError;

/// An 8-bit image in memory, row by row, channels last.
///
/// # Shapes
/// `data: [height, width, channels]`, values in 0..=255; 1 channel is grey, 2 grey and alpha,
/// 3 RGB, 4 RGB and alpha (not premultiplied).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Channels, 1 to 4.
    pub channels: usize,
    /// The pixels.
    pub data: Vec<u8>,
}

impl Image {
    /// Makes an image of `data: [height, width, channels]`.
    ///
    /// # Errors
    /// [`ImageError::Buffer`] if the sizes do not fit, [`ImageError::Channels`] if `channels` is
    /// not 1 to 4, [`ImageError::TargetSize`] if a side is zero.
    pub fn new(
        width: usize,
        height: usize,
        channels: usize,
        data: Vec<u8>,
    ) -> Result<Image, ImageError> {
        let image = Image { width, height, channels, data };
        image.check("image")?;
        Ok(image)
    }

    /// Gives the image with 3 channels, as Pillow's `convert("RGB")` does: grey is repeated,
    /// alpha is dropped without blending.
    #[must_use]
    pub fn to_rgb(&self) -> Image {
        let mut data = Vec::with_capacity(self.width * self.height * 3);
        match self.channels {
            3 => data.extend_from_slice(&self.data),
            1 => self.data.iter().for_each(|&grey| data.extend_from_slice(&[grey; 3])),
            2 => self.data.chunks_exact(2).for_each(|p| data.extend_from_slice(&[p[0]; 3])),
            n => self.data.chunks_exact(n).for_each(|p| data.extend_from_slice(&p[..3])),
        }
        Image { width: self.width, height: self.height, channels: 3, data }
    }

    /// Refuses an image whose public fields contradict each other.
    pub(crate) fn check(&self, what: &'static str) -> Result<(), ImageError> {
        let Image { width, height, channels, ref data } = *self;
        if !(1..=4).contains(&channels) {
            let expected = "1 to 4".to_owned();
            return Err(ImageError::Channels { what, found: channels, expected });
        }
        if width == 0 || height == 0 {
            return Err(ImageError::TargetSize { what, width, height });
        }
        let expected = width.saturating_mul(height).saturating_mul(channels);
        if data.len() != expected {
            let found = data.len();
            return Err(ImageError::Buffer { found, expected, width, height, channels });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_rgb_repeats_grey_and_drops_alpha() {
        let rgb = |channels, data: &[u8]| {
            Image::new(2, 1, channels, data.to_vec()).unwrap().to_rgb().data
        };
        assert_eq!(rgb(1, &[7, 9]), [7, 7, 7, 9, 9, 9]);
        assert_eq!(rgb(2, &[7, 0, 9, 255]), [7, 7, 7, 9, 9, 9]);
        assert_eq!(rgb(3, &[1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(rgb(4, &[1, 2, 3, 0, 4, 5, 6, 128]), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn sizes_must_fit() {
        let message = |w, h, c, n| Image::new(w, h, c, vec![0; n]).unwrap_err().to_string();
        assert_eq!(
            message(2, 3, 3, 17),
            "image buffer holds 17 bytes, expected 18 for 2x3 with 3 channels"
        );
        assert!(message(2, 3, 5, 30).starts_with("image: the image has 5 channels, expected 1 to"));
        assert!(message(0, 3, 1, 0).starts_with("image: size 0x3 is not possible"));
    }
}
