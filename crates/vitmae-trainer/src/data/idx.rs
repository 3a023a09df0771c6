//! IDX files, in which MNIST and its relatives come: grey images in one file, their labels in another.
//!
//! Source: <http://yann.lecun.com/exdb/mnist/>, "the IDX file format".

use std::path::{Path, PathBuf};

use vitmae_image::{Image, ImageError};

use super::Dataset;
use super::positioned::Store;
use crate::TrainerError;

/// Unsigned bytes in three dimensions and in one.
const MAGIC: [[u8; 4]; 2] = [[0, 0, 8, 3], [0, 0, 8, 1]];
/// Bytes before the first image: the magic number and three sizes.
const HEADER: u64 = 16;
/// Bytes before the first label: the magic number and a size.
const LABELS_HEADER: u64 = 8;
/// Pixels of the largest image.
const MAX_PIXELS: u64 = 1 << 24;

/// The images of a file.
#[derive(Debug)]
pub struct Idx {
    images: Store,
    count: usize,
    height: usize,
    width: usize,
    labels: Option<Vec<u8>>,
}

impl Idx {
    /// Opens a file of images, also as `.gz`; labels are those of the file beside it whose name has `labels` for `images` and
    /// `idx1` for `idx3`.
    ///
    /// # Errors
    /// [`TrainerError::Io`], [`TrainerError::Container`] for another magic number, sizes that do not fit the file, or another number
    /// of labels. A compressed file is unpacked as far as its header tells.
    pub fn open(path: &Path) -> Result<Idx, TrainerError> {
        let mut sizes = [0; 3];
        let images = Store::open_told(path, HEADER, |header| {
            sizes = sizes_of(path, header, MAGIC[0])?;
            bytes_of(sizes).ok_or_else(|| {
                let [_, height, width] = sizes;
                broken(
                    path,
                    format!(
                        "{height}×{width} is no size of images, expected 1 to {MAX_PIXELS} pixels"
                    ),
                )
            })
        })?;
        if bytes_of(sizes) != Some(images.len()) {
            let ([count, height, width], bytes) = (sizes, images.len());
            let found = format!("{count} images of {height}×{width} do not fit its {bytes} bytes");
            return Err(broken(path, found));
        }
        let labels = labels_beside(path).map(|path| labels_of(&path, sizes[0])).transpose()?;
        let [count, height, width] = sizes.map(|size| size as usize);
        Ok(Idx { images, count, height, width, labels })
    }
}

/// The three sizes in the `header` of a file of images, of which one of labels has but the first.
fn sizes_of(path: &Path, header: &[u8], magic: [u8; 4]) -> Result<[u64; 3], TrainerError> {
    let expected = if magic == MAGIC[0] { HEADER } else { LABELS_HEADER };
    if !header.starts_with(&magic) {
        let hex = |bytes: &[u8]| {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            bytes.join(" ")
        };
        let found = &header[..header.len().min(4)];
        let found = format!("it starts with [{}], expected [{}]", hex(found), hex(&magic));
        return Err(broken(path, found));
    }
    if header.len() as u64 != expected {
        return Err(broken(path, format!("it has {} bytes, fewer than its header", header.len())));
    }
    let mut sizes = [0; 3];
    for (size, bytes) in sizes.iter_mut().zip(header[4..].chunks(4)) {
        *size = bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    }
    Ok(sizes)
}

/// The bytes of a file with so many images; none where no image can have these sides.
fn bytes_of([count, height, width]: [u64; 3]) -> Option<u64> {
    let pixels = height.checked_mul(width).filter(|pixels| (1..=MAX_PIXELS).contains(pixels))?;
    count.checked_mul(pixels)?.checked_add(HEADER)
}

/// The labels in a file, one for each of `images`.
fn labels_of(path: &Path, images: u64) -> Result<Vec<u8>, TrainerError> {
    let labels = Store::open_told(path, LABELS_HEADER, |header| {
        let [number, ..] = sizes_of(path, header, MAGIC[1])?;
        if number != images {
            return Err(broken(path, format!("{number} labels for {images} images")));
        }
        Ok(LABELS_HEADER + number)
    })?;
    if labels.len() != LABELS_HEADER + images {
        return Err(broken(path, format!("{images} labels do not fit its {} bytes", labels.len())));
    }
    labels.read_now(LABELS_HEADER, images as usize)
}

/// The file of labels that belongs to one of images.
fn labels_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let other = name.replace("images", "labels").replace("idx3", "idx1");
    let other = path.with_file_name(other);
    (other != path && other.is_file()).then_some(other)
}

fn broken(path: &Path, found: String) -> TrainerError {
    let help = "fetch it again";
    TrainerError::Container { path: path.to_path_buf(), kind: "IDX file", found, help }
}

impl Dataset for Idx {
    fn len(&self) -> usize {
        self.count
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        let pixels = self.height * self.width;
        let grey = self.images.read_image(HEADER + (index * pixels) as u64, pixels)?;
        Image::new(self.width, self.height, 1, grey)
    }

    fn name(&self, index: usize) -> String {
        format!("{}:{index}", self.images.path().display())
    }

    fn fingerprint(&self) -> String {
        let name = self.images.path().file_stem().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(".gz");
        format!("IDX {name} {}×{}×{}", self.count, self.height, self.width)
    }

    fn class(&self, index: usize) -> Option<String> {
        Some(self.labels.as_ref()?[index].to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn big_endian(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    #[test]
    fn images_and_labels_are_found_together_and_differences_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t10k-images-idx3-ubyte");
        let labels = folder.path().join("t10k-labels-idx1-ubyte");
        let images = |count: u32| {
            let pixels = (0..count * 6).map(|at| at as u8);
            [big_endian(&[0x803, count, 2, 3]), pixels.collect()].concat()
        };
        fs::write(&path, images(2)).unwrap();
        let set = Idx::open(&path).unwrap();
        assert_eq!((set.len(), set.class(0)), (2, None));
        let image = set.load(1).unwrap();
        assert_eq!((image.width, image.height, image.channels), (3, 2, 1));
        assert_eq!(image.data, [6, 7, 8, 9, 10, 11]);
        fs::write(&labels, [big_endian(&[0x801, 2]), vec![9, 4]].concat()).unwrap();
        assert_eq!(Idx::open(&path).unwrap().class(1).unwrap(), "4");
        let error = |told: &str| {
            let error = Idx::open(&path).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        };
        fs::write(&labels, [big_endian(&[0x801, 3]), vec![9, 4, 1]].concat()).unwrap();
        error("3 labels for 2 images");
        fs::write(&labels, [big_endian(&[0x801, 2]), vec![9]].concat()).unwrap();
        error("2 labels do not fit its 9 bytes");
        fs::write(&path, &images(2)[..20]).unwrap();
        error("2 images of 2×3 do not fit its 20 bytes");
        fs::write(&path, big_endian(&[0x803, u32::MAX, u32::MAX, u32::MAX])).unwrap();
        error("4294967295×4294967295 is no size of images, expected 1 to 16777216 pixels");
        fs::write(&path, &images(2)[..9]).unwrap();
        error("it has 9 bytes, fewer than its header");
        fs::write(&path, b"PNG").unwrap();
        error("it starts with [50 4e 47], expected [00 00 08 03]");
        fs::write(&path, [0; 40]).unwrap();
        error("it starts with [00 00 00 00], expected [00 00 08 03]");
    }
}
