//! JPEG: baseline, extended and progressive, grey, RGB, YCbCr, CMYK and YCCK.

use libjpeg_turbo_rs::common::types::ComponentInfo;
use libjpeg_turbo_rs::{DecodeLimits, Decoder, JpegError, PixelFormat};

use super::{Limits, damaged};
use crate::{Image, ImageError};

/// Decodes as libjpeg-turbo does with its defaults (slow integer DCT, fancy upsampling).
pub(super) fn decode(file: &str, bytes: &[u8], limits: &Limits) -> Result<Image, ImageError> {
    let failed = |source| translate(file, source);
    let decoder = Decoder::new_with_limits(bytes, decoder_limits(limits)).map_err(failed)?;
    let header = decoder.header();
    let (width, height) = (header.width(), header.height());
    let layers = header.components.len();
    // Planes and output; a progressive file also keeps two bytes a coefficient, which the
    // decoder's own estimate (`max_memory`) adds.
    limits.check_frame(file, width as u64, height as u64, 2 * layers.max(1) as u64)?;
    let unsupported = |found: String, expected| {
        let file = file.to_owned();
        Err(ImageError::Unsupported { file, format: "JPEG", found, expected })
    };
    if header.precision != 8 {
        return unsupported(format!("{}-bit samples", header.precision), "8-bit samples");
    }
    let (format, channels) = match layers {
        1 => (PixelFormat::Grayscale, 1),
        3 => (PixelFormat::Rgb, 3),
        4 if !has_usual_sampling(&header.components) => {
            return unsupported(
                "4 components of unusual sampling".to_owned(),
                "1x1, or 2nd and 3rd component halved",
            );
        }
        4 => (PixelFormat::Cmyk, 4),
        n => return unsupported(format!("{n} components"), "1, 3 or 4 components"),
    };
    let decoded = decoder.with_output_format(format).decode_image().map_err(failed)?;
    let image = Image::new(decoded.width, decoded.height, channels, decoded.data)?;
    Ok(if channels == 4 { inverted_cmyk_to_rgb(&image) } else { image })
}

/// Whether the sampling of four components is one that the decoder is written for: it takes the
/// first and fourth as whole and upsamples the second and third alike, and panics on others.
fn has_usual_sampling(components: &[ComponentInfo]) -> bool {
    let sampling = |at: usize| {
        let component = &components[at];
        (component.horizontal_sampling, component.vertical_sampling)
    };
    let ((h, v), (chroma_h, chroma_v)) = (sampling(0), sampling(1));
    let halved = |whole: u8, part: u8| part > 0 && (whole == part || whole == 2 * part);
    sampling(3) == (h, v)
        && sampling(2) == (chroma_h, chroma_v)
        && halved(h, chroma_h)
        && halved(v, chroma_v)
}

/// `R = K − C·K/255` with the inks inverted in the file, rounded as Pillow's `convert("RGB")`.
fn inverted_cmyk_to_rgb(image: &Image) -> Image {
    let mut data = Vec::with_capacity(image.width * image.height * 3);
    for ink in image.data.chunks_exact(4) {
        // The file holds 255 − ink, so `white` is 255 − K and each colour's share of ink is
        // 255 − value.
        let white = u32::from(ink[3]);
        for &value in &ink[..3] {
            let product = (255 - u32::from(value)) * white + 128;
            let covered = (product + (product >> 8)) >> 8;
            data.push((white - covered) as u8);
        }
    }
    Image { width: image.width, height: image.height, channels: 3, data }
}

fn decoder_limits(limits: &Limits) -> DecodeLimits {
    let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    DecodeLimits {
        max_width: size(limits.side),
        max_height: size(limits.side),
        max_pixels: limits.pixels,
        max_scans: size(limits.scans),
        max_memory: Some(limits.decode_bytes),
    }
}

fn translate(file: &str, source: JpegError) -> ImageError {
    match source {
        JpegError::LimitExceeded { what, actual, limit } => {
            let what = if what.contains("scan") {
                "a number of progressive scans of"
            } else if what.contains("memory") {
                "a memory need in bytes of"
            } else {
                what
            };
            ImageError::Limit { file: file.to_owned(), what, found: actual, limit }
        }
        JpegError::Unsupported(found) => ImageError::Unsupported {
            file: file.to_owned(),
            format: "JPEG",
            found,
            expected: "a baseline or progressive JPEG",
        },
        source => damaged(file, "JPEG", source),
    }
}
