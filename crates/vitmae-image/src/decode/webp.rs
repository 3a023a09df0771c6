//! WebP: lossy, lossless, with alpha; the first frame of an animation.

use std::io::Cursor;

use image_webp::{DecodingError, WebPDecoder};

use super::{Limits, damaged};
use crate::{Image, ImageError};

/// Bytes a pixel that decoding needs at most: output and the decoder's ARGB, YUV and alpha planes.
const BYTES_PER_PIXEL: u64 = 12;

/// Decodes as libwebp does with its default (fancy) chroma upsampling.
pub(super) fn decode(file: &str, bytes: &[u8], limits: &Limits) -> Result<Image, ImageError> {
    check_container(file, bytes, limits)?;
    let failed = |source: DecodingError| damaged(file, "WebP", source);
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(failed)?;
    let (width, height) = decoder.dimensions();
    limits.check_frame(file, width.into(), height.into(), BYTES_PER_PIXEL)?;
    decoder.set_memory_limit(usize::try_from(limits.decode_bytes).unwrap_or(usize::MAX));
    let channels = if decoder.has_alpha() { 4 } else { 3 };
    let mut data = vec![0; width as usize * height as usize * channels];
    decoder.read_image(&mut data).map_err(failed)?;
    Image::new(width as usize, height as usize, channels, data)
}

/// Checks what the decoder does not: that the file is as long as it says, and that the sizes
/// inside the frames, which it allocates before comparing them with the canvas, are allowed.
fn check_container(file: &str, bytes: &[u8], limits: &Limits) -> Result<(), ImageError> {
    let announced = u64::from(u32_at(bytes, 4)) + 8;
    if announced > bytes.len() as u64 {
        let found = bytes.len();
        return Err(damaged(file, "WebP", format!("{found} bytes, the header says {announced}")));
    }
    check_chunks(file, &bytes[12..], limits, true)
}

fn check_chunks(file: &str, mut rest: &[u8], limits: &Limits, top: bool) -> Result<(), ImageError> {
    while let Some((name, body)) = rest.get(..8).map(|head| (&head[..4], &rest[8..])) {
        let length = u32_at(rest, 4) as usize;
        let end = length.min(body.len());
        let frame = &body[..end];
        let size = match name {
            // A key frame: 3 bytes tag, 3 bytes start code, then 14 bits each.
            b"VP8 " if end >= 10 => {
                let side = |at| u64::from(u16::from_le_bytes([frame[at], frame[at + 1]]) & 0x3FFF);
                Some((side(6), side(8)))
            }
            // One signature byte, then 14 bits each, less one.
            b"VP8L" if end >= 5 => {
                let packed = u32_at(frame, 1);
                Some((u64::from(packed & 0x3FFF) + 1, u64::from((packed >> 14) & 0x3FFF) + 1))
            }
            // Flags, then 24 bits each, less one.
            b"VP8X" if end >= 10 => Some((side_at(frame, 4), side_at(frame, 7))),
            b"ANMF" if top && end >= 16 => {
                check_chunks(file, &frame[16..], limits, false)?;
                Some((side_at(frame, 6), side_at(frame, 9)))
            }
            _ => None,
        };
        if let Some((width, height)) = size {
            limits.check_frame(file, width, height, BYTES_PER_PIXEL)?;
        }
        // Chunks are padded to an even length.
        rest = body.get(end + length % 2..).unwrap_or(&[]);
    }
    Ok(())
}

/// A side of 24 bits, stored less one; the callers know that it is there.
fn side_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], 0])) + 1
}

/// The four bytes at `at`, little-endian; the callers know that they are there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
