//! Decoding of JPEG, PNG and WebP files to an 8-bit [`Image`], chosen by content.
//!
//! What is decoded equals Pillow 13, byte for byte. Where Pillow has modes that an [`Image`]
//! lacks, the result is that of `Image.open(file)` followed by `convert("RGB")`:
//!
//! | file | result |
//! |---|---|
//! | grey of 1, 2, 4 bits | 1 channel, spread to 0..=255 |
//! | PNG grey of 16 bits | 1 channel, **values above 255 become 255** (Pillow clips mode `I;16`) |
//! | PNG of 16 bits with colour or alpha | the high byte; grey with alpha becomes RGBA |
//! | PNG palette | RGB; transparency (`tRNS`) of any PNG is dropped |
//! | JPEG CMYK and YCCK | RGB, inks taken as inverted (Adobe's convention) whatever the file says |
//! | animated PNG or WebP | the first frame |
//!
//! EXIF orientation and colour profiles are not applied, as Pillow applies none by itself.
//! Truncated data are an error, never a half-grey image.

mod jpeg;
mod limits;
mod png;
mod webp;

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

pub use limits::Limits;

use crate::{Image, ImageError};

/// Where the bytes of an image are.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A file.
    Path(&'a Path),
    /// The whole file in memory.
    Bytes(&'a [u8]),
}

/// Decodes a file or the bytes of one.
///
/// Takes a path (`&Path`, `&PathBuf`, `&str`) or bytes (`&[u8]`, `&[u8; N]`,
/// `&Vec<u8>`).
///
/// # Errors
/// [`ImageError::Read`], [`UnknownFormat`](ImageError::UnknownFormat),
/// [`Limit`](ImageError::Limit), [`Damaged`](ImageError::Damaged),
/// [`Unsupported`](ImageError::Unsupported) or [`DecoderBug`](ImageError::DecoderBug). A decoder's
/// panic is caught and returned as the last; the process's panic hook still sees it.
pub fn decode<'a>(source: impl Into<Source<'a>>, limits: &Limits) -> Result<Image, ImageError> {
    match source.into() {
        Source::Bytes(bytes) => decode_bytes("<memory>", bytes, limits),
        Source::Path(path) => {
            let name = path.display().to_string();
            let bytes = read(path, &name, limits)?;
            decode_bytes(&name, &bytes, limits)
        }
    }
}

impl<'a> From<&'a Path> for Source<'a> {
    fn from(path: &'a Path) -> Self {
        Source::Path(path)
    }
}

impl<'a> From<&'a PathBuf> for Source<'a> {
    fn from(path: &'a PathBuf) -> Self {
        Source::Path(path)
    }
}

impl<'a> From<&'a str> for Source<'a> {
    fn from(path: &'a str) -> Self {
        Source::Path(Path::new(path))
    }
}

impl<'a> From<&'a [u8]> for Source<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Source::Bytes(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Source<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Source::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Source<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Source::Bytes(bytes)
    }
}

/// A decoder: file name for messages, bytes, limits.
type Decoder = fn(&str, &[u8], &Limits) -> Result<Image, ImageError>;

/// Reads at most one byte more than the limit, so that a pipe or a growing file cannot fill memory.
fn read(path: &Path, name: &str, limits: &Limits) -> Result<Vec<u8>, ImageError> {
    let failed = |source| ImageError::Read { file: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    limits.check_file(name, file.metadata().map_err(failed)?.len())?;
    let mut bytes = Vec::new();
    file.take(limits.file_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// [`decode`] of bytes that come from a place called `name`, for messages.
///
/// # Errors
/// As [`decode`].
pub fn decode_named(name: &str, bytes: &[u8], limits: &Limits) -> Result<Image, ImageError> {
    decode_bytes(name, bytes, limits)
}

fn decode_bytes(file: &str, bytes: &[u8], limits: &Limits) -> Result<Image, ImageError> {
    limits.check_file(file, bytes.len() as u64)?;
    let (format, decoder): (&'static str, Decoder) = match bytes {
        [0xFF, 0xD8, 0xFF, ..] => ("JPEG", jpeg::decode),
        [0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A, ..] => ("PNG", png::decode),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => ("WebP", webp::decode),
        _ => {
            let found: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
            return Err(ImageError::UnknownFormat {
                file: file.to_owned(),
                found: found.join(" "),
            });
        }
    };
    guard(file, format, || decoder(file, bytes, limits))
}

/// Turns a panic of `decoder` into an error.
fn guard(
    file: &str,
    format: &'static str,
    decoder: impl FnOnce() -> Result<Image, ImageError>,
) -> Result<Image, ImageError> {
    // Unwind safe: the closure borrows bytes and limits only to read them.
    catch_unwind(AssertUnwindSafe(decoder)).unwrap_or_else(|panic| {
        let message = (panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        Err(ImageError::DecoderBug { file: file.to_owned(), format, message })
    })
}

/// An error of a decoder about the bytes it was given.
fn damaged(
    file: &str,
    format: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> ImageError {
    ImageError::Damaged { file: file.to_owned(), format, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_that_names_a_bug() {
        let error = guard("a.png", "PNG", || panic!("index {} out of range", 7)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "image `a.png` made the PNG decoder panic: index 7 out of range\n\
             help: this is a bug in the decoder; please report it together with the file"
        );
    }

    #[test]
    fn unknown_content_and_missing_files_are_named() {
        let error = decode(b"GIF89a\x01\x00\x01", &Limits::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "image `<memory>` starts with [47 49 46 38 39 61 01 00], which is not JPEG, PNG or \
             WebP\nhelp: convert it to one of these formats; the file name's extension is not \
             looked at"
        );
        let error = decode("no/such/file.png", &Limits::default()).unwrap_err();
        assert_eq!(error.to_string(), "cannot read image `no/such/file.png`");
        assert!(decode(&Vec::new(), &Limits::default()).is_err());
    }
}
