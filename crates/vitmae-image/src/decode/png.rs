//! PNG: every colour type and depth, interlaced or not; the first frame of an animation.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, DecodingError, Transformations};

use super::{Limits, damaged};
use crate::{Image, ImageError};

/// Decodes the samples as stored and spreads them as Pillow does (table in [`crate::decode`]).
pub(super) fn decode(file: &str, bytes: &[u8], limits: &Limits) -> Result<Image, ImageError> {
    let failed = |source: DecodingError| translate(file, source, limits);
    let budget = png::Limits { bytes: usize::try_from(limits.decode_bytes).unwrap_or(usize::MAX) };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), budget);
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);

    let header = decoder.read_header_info().map_err(failed)?;
    let (width, height) = (header.width, header.height);
    let (color, depth) = (header.color_type, header.bit_depth);
    let stored = color.samples() as u64 * if depth == BitDepth::Sixteen { 2 } else { 1 };
    let given = channels(color, depth) as u64;
    limits.check_frame(file, width.into(), height.into(), stored + given)?;

    let mut reader = decoder.read_info().map_err(failed)?;
    let size = reader.output_buffer_size().ok_or(()).map_err(|()| overflow(file, limits))?;
    let mut samples = vec![0; size];
    reader.next_frame(&mut samples).map_err(failed)?;
    let palette = reader.info().palette.as_deref().unwrap_or(&[]);

    let line = reader.output_line_size(width).ok_or(()).map_err(|()| overflow(file, limits))?;
    let data = spread(samples, line, width as usize, (color, depth), palette);
    Image::new(width as usize, height as usize, channels(color, depth), data)
}

/// Channels of the decoded image.
fn channels(color: ColorType, depth: BitDepth) -> usize {
    match (color, depth) {
        (ColorType::Grayscale, _) => 1,
        // Pillow has no 16-bit mode with grey and alpha, and opens it as RGBA.
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => 4,
        (ColorType::GrayscaleAlpha, _) => 2,
        (ColorType::Rgb | ColorType::Indexed, _) => 3,
        (ColorType::Rgba, _) => 4,
    }
}

/// Makes 8-bit channels of the stored samples; `line` is the length of a stored row in bytes.
fn spread(
    samples: Vec<u8>,
    line: usize,
    width: usize,
    (color, depth): (ColorType, BitDepth),
    palette: &[u8],
) -> Vec<u8> {
    let bits = depth as u8;
    let words = || samples.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]]));
    match (color, depth) {
        (ColorType::Grayscale, BitDepth::Sixteen) => {
            words().map(|value| value.min(255) as u8).collect()
        }
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => {
            (samples.chunks_exact(4)).flat_map(|p| [p[0], p[0], p[0], p[2]]).collect()
        }
        (_, BitDepth::Sixteen) => words().map(|value| (value >> 8) as u8).collect(),
        (ColorType::Grayscale, _) if bits < 8 => {
            // 1 bit is worth 255, 2 bits 85 a step, 4 bits 17 a step.
            let step = 255 / ((1 << bits) - 1) as u8;
            unpack(&samples, line, width, bits).map(|value| value * step).collect()
        }
        (ColorType::Indexed, _) => {
            (unpack(&samples, line, width, bits)).flat_map(|index| entry(palette, index)).collect()
        }
        _ => samples,
    }
}

/// Samples of 1, 2, 4 or 8 bits, first the highest bits of a byte; rows start on a byte.
fn unpack(samples: &[u8], line: usize, width: usize, bits: u8) -> impl Iterator<Item = u8> + '_ {
    let per_byte = usize::from(8 / bits);
    let mask = (((1u16 << bits) - 1) & 0xFF) as u8;
    samples.chunks_exact(line.max(1)).flat_map(move |row| {
        (0..width).map(move |x| {
            let shift = 8 - bits - (x % per_byte) as u8 * bits;
            (row[x / per_byte] >> shift) & mask
        })
    })
}

/// The colour of a palette entry; an index beyond the palette is black, as in Pillow.
fn entry(palette: &[u8], index: u8) -> [u8; 3] {
    let start = usize::from(index) * 3;
    match palette.get(start..start + 3) {
        Some(rgb) => [rgb[0], rgb[1], rgb[2]],
        None => [0; 3],
    }
}

fn overflow(file: &str, limits: &Limits) -> ImageError {
    let what = "a memory need in bytes of";
    ImageError::Limit { file: file.to_owned(), what, found: u64::MAX, limit: limits.decode_bytes }
}

fn translate(file: &str, source: DecodingError, limits: &Limits) -> ImageError {
    match source {
        DecodingError::LimitsExceeded => overflow(file, limits),
        source => damaged(file, "PNG", source),
    }
}
