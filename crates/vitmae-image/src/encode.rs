//! PNG bytes of an image.

use crate::{Image, ImageError};

/// Encodes as an 8-bit PNG with the image's own channels.
///
/// # Errors
/// [`ImageError::Encode`] if the encoder fails, and those of [`Image::new`].
pub fn encode_png(image: &Image) -> Result<Vec<u8>, ImageError> {
    image.check("encode PNG")?;
    let side = |pixels| {
        u32::try_from(pixels).map_err(|_| ImageError::TargetSize {
            what: "encode PNG",
            width: image.width,
            height: image.height,
        })
    };
    let (width, height) = (side(image.width)?, side(image.height)?);
    let failed = |source| ImageError::Encode { source };
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_color(match image.channels {
        1 => png::ColorType::Grayscale,
        2 => png::ColorType::GrayscaleAlpha,
        3 => png::ColorType::Rgb,
        _ => png::ColorType::Rgba,
    });
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&image.data).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, decode};

    #[test]
    fn decoding_gives_the_image_back() {
        for channels in 1..=4 {
            let data = (0..5 * 7 * channels).map(|i| (i * 31 % 251) as u8).collect();
            let image = Image::new(5, 7, channels, data).unwrap();
            let png = encode_png(&image).unwrap();
            assert_eq!(decode(&png, &Limits::default()).unwrap(), image);
        }
    }

    #[test]
    fn a_wrong_buffer_is_refused() {
        let image = Image { width: 2, height: 2, channels: 3, data: vec![0; 11] };
        let message = encode_png(&image).unwrap_err().to_string();
        assert!(message.starts_with("image buffer holds 11 bytes, expected 12"));
    }
}
