//! Hostile and damaged files: refused from the header, or with an error; never a panic and never
//! half an image.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::path::PathBuf;
use std::time::Instant;

use proptest::prelude::*;
use vitmae_image::{ImageError, Limits, decode};

#[test]
fn a_truncated_file_is_an_error_or_complete() {
    for (name, bytes) in files() {
        let whole = decode(&bytes, &Limits::default()).unwrap();
        let mut lengths: Vec<usize> = (0..bytes.len()).step_by(bytes.len() / 60 + 1).collect();
        lengths.extend(bytes.len() - 64..bytes.len());
        let mut refused = 0;
        for length in lengths {
            match decode(&bytes[..length], &Limits::default()) {
                Err(ImageError::DecoderBug { message, .. }) => panic!("{name} {length}: {message}"),
                Err(_) => refused += 1,
                // Only the end mark or the later frames are missing.
                Ok(image) => assert_eq!(image, whole, "{name} cut to {length}"),
            }
        }
        assert!(refused >= 25, "{name}: {refused}");
    }
}

#[test]
fn bytes_after_the_end_are_ignored() {
    for (name, mut bytes) in files() {
        let whole = decode(&bytes, &Limits::default()).unwrap();
        bytes.extend(b"\xFF\xD8\xFF\xE0 appended by a phone");
        assert_eq!(decode(&bytes, &Limits::default()).unwrap(), whole, "{name}");
    }
}

#[test]
fn half_a_file_names_what_is_wrong() {
    for (name, format) in [("rgb.png", "PNG"), ("coffee.webp", "WebP"), ("chelsea-420.jpg", "JPEG")]
    {
        let bytes = file(name);
        let error = decode(&bytes[..bytes.len() / 2], &Limits::default()).unwrap_err();
        let expected = format!("image `<memory>` is damaged or truncated {format}");
        assert_eq!(error.to_string(), expected);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(!cause.is_empty());
    }
}

#[test]
fn huge_headers_are_refused_at_once() {
    let png = {
        let mut bytes = file("rgb.png");
        bytes[16..20].copy_from_slice(&50_000u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&50_000u32.to_be_bytes());
        sign(&mut bytes);
        bytes
    };
    let pixels = {
        let mut bytes = png.clone();
        bytes[16..20].copy_from_slice(&30_000u32.to_be_bytes());
        bytes[20..24].copy_from_slice(&30_000u32.to_be_bytes());
        sign(&mut bytes);
        bytes
    };
    let jpeg = {
        let mut bytes = file("chelsea-420.jpg");
        let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]);
        bytes
    };
    let lossless = {
        let mut bytes = file("chelsea-lossless.webp");
        assert_eq!(&bytes[12..16], b"VP8L");
        // 14 bits width and height, less one, behind the signature byte.
        bytes[21..25].copy_from_slice(&0x0FFF_FFFFu32.to_le_bytes());
        bytes
    };
    let canvas = {
        let mut bytes = file("alpha.webp");
        assert_eq!(&bytes[12..16], b"VP8X");
        bytes[24..30].fill(0xFF);
        bytes
    };
    let inner = {
        // The canvas stays small, the frame inside claims 16383 x 16383.
        let mut bytes = file("alpha.webp");
        let frame = bytes.windows(4).position(|name| name == b"VP8 ").unwrap() + 8;
        bytes[frame + 6..frame + 10].copy_from_slice(&[0xFF, 0x3F, 0xFF, 0x3F]);
        bytes
    };
    for (name, bytes, expected) in [
        ("png", png, "image `<memory>` has a width in pixels of 50000, the limit is 32768"),
        (
            "pixels",
            pixels,
            "image `<memory>` has a pixel count of 900000000, the limit is 89478485",
        ),
        ("jpeg", jpeg, "image `<memory>` has a width in pixels of 65500, the limit is 32768"),
        ("lossless", lossless, "has a pixel count of 268435456, the limit is 89478485"),
        ("canvas", canvas, "has a width in pixels of 16777216, the limit is 32768"),
        ("inner", inner, "has a pixel count of 268402689, the limit is 89478485"),
    ] {
        let start = Instant::now();
        let message = decode(&bytes, &Limits::default()).unwrap_err().to_string();
        assert!(message.contains(expected), "{name}: {message}");
        assert!(
            message
                .ends_with("help: if the file can be trusted, make it smaller or raise `Limits`")
        );
        assert!(start.elapsed().as_millis() < 100, "{name}: {:?}", start.elapsed());
    }
}

#[test]
fn each_limit_holds() {
    let base = Limits::default();
    let message =
        |name: &str, limits: &Limits| decode(&file(name), limits).unwrap_err().to_string();
    for name in ["rgb.png", "coffee.webp", "chelsea-420.jpg"] {
        let found = file(name).len();
        let few = Limits { file_bytes: found as u64 - 1, ..base.clone() };
        assert!(
            message(name, &few).contains(&format!("has a size in bytes of {found}, the limit"))
        );
        let path = folder().join(name);
        let error = decode(&path, &few).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("size in bytes"), "{error}");
        let few = Limits { side: 60, ..base.clone() };
        assert!(message(name, &few).contains("has a width in pixels of"));
        let few = Limits { pixels: 2866, ..base.clone() };
        assert!(message(name, &few).contains("has a pixel count of"));
        let few = Limits { decode_bytes: 10_000, ..base.clone() };
        assert!(message(name, &few).contains("has a memory need in bytes of"), "{name}");
        let enough = Limits { file_bytes: found as u64, ..base.clone() };
        assert!(decode(&file(name), &enough).is_ok());
    }
}

#[test]
fn progressive_scans_are_counted() {
    let bytes = file("rocket-progressive.jpg");
    let last = bytes.windows(2).rposition(|pair| pair == [0xFF, 0xDA]).unwrap();
    let (scan, end) = (&bytes[last..bytes.len() - 2], &bytes[bytes.len() - 2..]);
    let bomb = [&bytes[..last], &scan.repeat(3000), end].concat();
    let message = decode(&bomb, &Limits::default()).unwrap_err().to_string();
    assert!(message.contains("has a number of progressive scans of"), "{message}");
    assert!(message.contains("the limit is 100"), "{message}");
}

#[test]
fn what_is_not_read_is_named() {
    let mut bytes = file("chelsea-420.jpg");
    let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    bytes[frame + 1] = 0xC1;
    bytes[frame + 4] = 12;
    assert_eq!(
        decode(&bytes, &Limits::default()).unwrap_err().to_string(),
        "image `<memory>` is JPEG with 12-bit samples, expected 8-bit samples\n\
         help: convert it to 8-bit grey or RGB"
    );

    // A subsampled fourth component makes the decoder panic; it is refused before.
    let mut bytes = file("chelsea-cmyk.jpg");
    let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    assert_eq!(bytes[frame + 9..frame + 12], [4, b'C', 0x11]);
    bytes[frame + 11] = 0x22;
    assert_eq!(
        decode(&bytes, &Limits::default()).unwrap_err().to_string(),
        "image `<memory>` is JPEG with 4 components of unusual sampling, expected 1x1, or 2nd and \
         3rd component halved\nhelp: convert it to 8-bit grey or RGB"
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("MUTANTS").map_or(1500, |cases| cases.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn mutants_give_an_error_or_an_image(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..12),
        (signed, only_headers) in any::<(bool, bool)>(),
    ) {
        let all = files();
        let (name, mut bytes) = all[which.index(all.len())].clone();
        for (at, value, kind) in edits {
            let at = at.index(if only_headers { 640.min(bytes.len()) } else { bytes.len() });
            match kind {
                0 => bytes[at] = value,
                1 => bytes[at] ^= 1 << (value % 8),
                2 => { bytes.remove(at); }
                _ => bytes.insert(at, value),
            }
        }
        if signed && name.ends_with("png") {
            sign(&mut bytes);
        }
        // Small, so that a header that claims much costs little time.
        let limits = Limits { pixels: 1 << 20, decode_bytes: 16 << 20, ..Limits::default() };
        match decode(&bytes, &limits) {
            Ok(image) => prop_assert_eq!(image.data.len(), image.width * image.height * image.channels),
            Err(ImageError::DecoderBug { message, .. }) => prop_assert!(false, "{name}: {message}"),
            Err(error) => prop_assert!(error.to_string().contains("<memory>")),
        }
    }
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/images"))
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

/// Name and bytes of every image fixture.
fn files() -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> = (std::fs::read_dir(folder()).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| [".jpg", ".png", ".webp"].iter().any(|end| name.ends_with(end)))
        .collect();
    names.sort();
    assert!(names.len() >= 40, "{} images", names.len());
    names.into_iter().map(|name| (name.clone(), file(&name))).collect()
}

/// Recomputes the checksum of every whole PNG chunk.
fn sign(bytes: &mut [u8]) {
    let mut at = 8;
    while at + 12 <= bytes.len() {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let Some(end) = at.checked_add(8 + length).filter(|end| end + 4 <= bytes.len()) else {
            return;
        };
        let crc = !bytes[at + 4..end].iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1))
            })
        });
        bytes[end..end + 4].copy_from_slice(&crc.to_be_bytes());
        at = end + 4;
    }
}
