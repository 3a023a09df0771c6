//! What an image file may ask for before anything large is allocated.

use crate::ImageError;

/// Bounds on one image file, checked from its header.
///
/// The defaults are far above photographs and far below what would stop a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// `width · height`.
    pub pixels: u64,
    /// Width and height, each.
    pub side: u64,
    /// Bytes that decoding may need, estimated from the header.
    pub decode_bytes: u64,
    /// Scans of a progressive JPEG.
    pub scans: u64,
}

impl Default for Limits {
    /// 64 MiB a file, 89,478,485 pixels (Pillow's `MAX_IMAGE_PIXELS`), 32,768 a side, 512 MiB to
    /// decode, 100 scans.
    fn default() -> Self {
        Limits {
            file_bytes: 64 << 20,
            pixels: 89_478_485,
            side: 32_768,
            decode_bytes: 512 << 20,
            scans: 100,
        }
    }
}

impl Limits {
    pub(super) fn check_file(&self, file: &str, bytes: u64) -> Result<(), ImageError> {
        check(file, "a size in bytes of", bytes, self.file_bytes)
    }

    /// Checks the size in a header; `bytes_per_pixel` is what decoding needs at its worst.
    pub(super) fn check_frame(
        &self,
        file: &str,
        width: u64,
        height: u64,
        bytes_per_pixel: u64,
    ) -> Result<(), ImageError> {
        check(file, "a width in pixels of", width, self.side)?;
        check(file, "a height in pixels of", height, self.side)?;
        check(file, "a pixel count of", width.saturating_mul(height), self.pixels)?;
        let bytes = width.saturating_mul(height).saturating_mul(bytes_per_pixel);
        check(file, "a memory need in bytes of", bytes, self.decode_bytes)
    }
}

fn check(file: &str, what: &'static str, found: u64, limit: u64) -> Result<(), ImageError> {
    if found > limit {
        return Err(ImageError::Limit { file: file.to_owned(), what, found, limit });
    }
    Ok(())
}
