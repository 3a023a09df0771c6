//! Sets of images in one file. A set is opened by the names of its files, so that each input becomes a file.

use std::fs;
use std::io::Write;

use vitmae_image::ImageError;
use vitmae_trainer::data::open;

use super::memory;

/// Images of a set that are read, from its first on.
const IMAGES: usize = 64;
/// Bytes that opening may take beside what the files hold.
const OPENING: usize = 4 << 20;
/// Two grey images of 3×2 pixels as an IDX file.
const TWO_IMAGES: [u8; 28] = [
    0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, // magic number and sizes
    0, 50, 100, 150, 200, 250, 5, 55, 105, 155, 205, 255,
];

/// A tar file.
pub fn tar(bytes: &[u8]) -> bool {
    read(&[("set.tar", bytes)], bytes.len())
}

/// A file of images, or of the labels of two.
pub fn idx(bytes: &[u8]) -> bool {
    let name = "a-images-idx3-ubyte";
    let labelled = [(name, &TWO_IMAGES[..]), ("a-labels-idx1-ubyte", bytes)];
    read(&[(name, bytes)], bytes.len()) | read(&labelled, bytes.len())
}

/// A compressed file of images, and the input compressed with a right checksum: damage to a whole one rarely gets that far.
pub fn idx_gz(bytes: &[u8]) -> bool {
    let name = "a-images-idx3-ubyte.gz";
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory can be written");
    let packed = encoder.finish().expect("memory can be written");
    read(&[(name, bytes)], bytes.len()) | read(&[(name, &packed)], bytes.len())
}

/// A batch of CIFAR-10, and of CIFAR-100.
pub fn cifar(bytes: &[u8]) -> bool {
    read(&[("data_batch_1.bin", bytes)], bytes.len()) | read(&[("train.bin", bytes)], bytes.len())
}

/// A packed set, with a right checksum of its index.
pub fn packed(bytes: &[u8]) -> bool {
    let mut bytes = bytes.to_vec();
    if let Some(trailer) = bytes.len().checked_sub(24) {
        let start = bytes[trailer..trailer + 8].iter().rev();
        let start = start.fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        if let Some(index) = usize::try_from(start).ok().and_then(|start| bytes.get(start..trailer))
        {
            let crc = crc32c::crc32c(index).to_le_bytes();
            bytes[trailer + 12..trailer + 16].copy_from_slice(&crc);
        }
    }
    read(&[("set.vmpack", &bytes)], bytes.len())
}

/// Writes the files, opens the first, whose contents have `size` bytes unpacked, and reads its images; true if all are whole.
fn read(files: &[(&str, &[u8])], size: usize) -> bool {
    // In memory where there is such a folder: a disk takes longer than all that is tried.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let folder = folder.expect("a temporary folder can be made");
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).expect("a temporary file can be written");
    }
    let path = folder.path().join(files[0].0);
    let (set, peak) = memory::peak_of(|| open(&path));
    let limit = 4 * size + OPENING;
    assert!(peak <= limit, "opening `{}` of {size} bytes took {peak}", files[0].0);
    let Ok(set) = set else { return false };
    assert!(!set.fingerprint().is_empty());
    let whole = (0..set.len().min(IMAGES)).filter(|&index| {
        assert!(!set.name(index).is_empty());
        let _ = set.class(index);
        let image = set.load(index);
        assert!(!matches!(image, Err(ImageError::DecoderBug { .. })), "{:?}", image.err());
        image.is_ok()
    });
    whole.count() == set.len().min(IMAGES)
}
