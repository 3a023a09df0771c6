//! A packed set: decoded images in one file, faster to read than to decode.
//!
//! | part | bytes |
//! |---|---|
//! | `VMPACK1\n` | 8 |
//! | each image: its name, then its pixels `[H, W, C]` as u8 | |
//! | index, for each image: offset (u64), and as u32: bytes of its name, width, height, channels, class (`u32::MAX` for none), CRC-32C of name and pixels | 32 |
//! | JSON: `images`, `classes` (names), `source` (the fingerprint of what was packed) | |
//! | offset of the index (u64), bytes of the JSON (u32), CRC-32C of index and JSON (u32), `VMPACK1\n` | 24 |
//!
//! Numbers are little-endian. What lies in the index is checked when the file is opened, an image when it is read.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vitmae_image::{Filter, Image, ImageError, resize};
use vitmae_weights::write_atomically;

use super::positioned::Store;
use super::{BadSample, Dataset};
use crate::TrainerError;

const MAGIC: &[u8; 8] = b"VMPACK1\n";
const ENTRY: usize = 32;
const TRAILER: usize = 24;
const NO_CLASS: u32 = u32::MAX;
/// Images that are decoded at once while packing.
const CHUNK: usize = 256;

/// The images of a packed file.
#[derive(Debug)]
pub struct Packed {
    store: Store,
    entries: Vec<Entry>,
    about: About,
    fingerprint: String,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: u64,
    name: u32,
    width: u32,
    height: u32,
    channels: u32,
    class: u32,
    crc: u32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct About {
    images: usize,
    classes: Vec<String>,
    source: String,
}

impl Entry {
    /// Bytes of name and pixels; none where sizes are beyond all numbers.
    fn bytes(&self) -> Option<u64> {
        let [width, height, channels] = [self.width, self.height, self.channels].map(u64::from);
        (width * height).checked_mul(channels)?.checked_add(u64::from(self.name))
    }

    fn to_bytes(self) -> [u8; ENTRY] {
        let Entry { offset, name, width, height, channels, class, crc } = self;
        let mut bytes = [0; ENTRY];
        bytes[..8].copy_from_slice(&offset.to_le_bytes());
        for (place, number) in
            bytes[8..].chunks_mut(4).zip([name, width, height, channels, class, crc])
        {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Entry {
        let word = |index: usize| little_endian(&bytes[8 + 4 * index..12 + 4 * index]) as u32;
        let (offset, name) = (little_endian(&bytes[..8]), word(0));
        let (width, height, channels) = (word(1), word(2), word(3));
        Entry { offset, name, width, height, channels, class: word(4), crc: word(5) }
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

impl Packed {
    /// Opens a packed file and reads its index.
    ///
    /// # Errors
    /// [`TrainerError::Io`], [`TrainerError::Container`] for a file that was cut or changed.
    pub fn open(path: &Path) -> Result<Packed, TrainerError> {
        let broken = |found: &str| TrainerError::Container {
            path: path.to_path_buf(),
            kind: "packed set",
            found: found.to_owned(),
            help: "pack it again with `vitmae data pack`",
        };
        let store = Store::open(path)?;
        let body = store.len().checked_sub((MAGIC.len() + TRAILER) as u64);
        body.ok_or_else(|| broken("it is too short"))?;
        if store.read_now(0, MAGIC.len())? != MAGIC {
            return Err(broken("it does not begin as one"));
        }
        let trailer = store.read_now(store.len() - TRAILER as u64, TRAILER)?;
        if trailer[16..] != *MAGIC {
            return Err(broken("its end is missing"));
        }
        let start = little_endian(&trailer[..8]);
        let (json, crc) = (little_endian(&trailer[8..12]), little_endian(&trailer[12..16]));
        let end = store.len() - TRAILER as u64;
        let size = end.checked_sub(start).filter(|&size| size >= json);
        let size = size.ok_or_else(|| broken("its index does not fit"))?;
        let bytes = store.read_now(start, size as usize)?;
        if u64::from(crc32c::crc32c(&bytes)) != crc {
            return Err(broken("its index was changed"));
        }
        let (index, json) = bytes.split_at((size - json) as usize);
        let about: About =
            serde_json::from_slice(json).map_err(|error| broken(&error.to_string()))?;
        let entries: Vec<Entry> = index.chunks_exact(ENTRY).map(Entry::from_bytes).collect();
        let fits = |entry: &Entry| {
            let end = entry.bytes().and_then(|bytes| entry.offset.checked_add(bytes));
            let named = entry.class == NO_CLASS || (entry.class as usize) < about.classes.len();
            named && end.is_some_and(|end| end <= start)
        };
        if entries.len() != about.images
            || index.len() % ENTRY != 0
            || entries.is_empty()
            || !entries.iter().all(fits)
        {
            return Err(broken("its index does not fit"));
        }
        let fingerprint = format!("packed {}", crate::checkpoint::hex(&Sha256::digest(&bytes)));
        Ok(Packed { store, entries, about, fingerprint })
    }

    /// The name and the pixels of an image.
    fn read(&self, index: usize) -> Result<(String, Vec<u8>), ImageError> {
        let entry = self.entries[index];
        let name = entry.name as usize;
        // An entry without a number of bytes has been refused.
        let bytes = entry.bytes().unwrap_or_default() as usize;
        let mut bytes = self.store.read_image(entry.offset, bytes)?;
        if crc32c::crc32c(&bytes) != entry.crc {
            return Err(ImageError::Damaged {
                file: format!("{}:{index}", self.store.path().display()),
                format: "packed image",
                source: "its bytes were changed".into(),
            });
        }
        let pixels = bytes.split_off(name);
        Ok((String::from_utf8_lossy(&bytes).into_owned(), pixels))
    }
}

impl Dataset for Packed {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        let Entry { width, height, channels, .. } = self.entries[index];
        let (_, pixels) = self.read(index)?;
        Image::new(width as usize, height as usize, channels as usize, pixels)
    }

    fn name(&self, index: usize) -> String {
        let inside = self.read(index).map_or_else(|_| index.to_string(), |(name, _)| name);
        format!("{}:{inside}", self.store.path().display())
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn class(&self, index: usize) -> Option<String> {
        self.about.classes.get(self.entries[index].class as usize).cloned()
    }
}

/// What [`pack`] wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackSummary {
    /// Images in the file.
    pub images: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// Images that were left out.
    pub bad: Vec<BadSample>,
}

/// Decodes every image of `dataset` into the new file `path`, which appears when it is complete. With `size`, images whose
/// shorter side is longer are resized to it, bicubic; crops of them are then not quite those of the originals. Images that
/// cannot be read are left out if `skip_bad`. `progress` hears how many are done.
///
/// # Errors
/// [`TrainerError::BadSample`] for a bad image if they are not skipped, [`TrainerError::Io`].
pub fn pack(
    dataset: &dyn Dataset,
    path: &Path,
    size: Option<usize>,
    skip_bad: bool,
    progress: &mut dyn FnMut(usize),
) -> Result<PackSummary, TrainerError> {
    let mut summary = PackSummary::default();
    write_atomically(path, |out| {
        summary = write(dataset, (path, out), size, skip_bad, progress)?;
        Ok::<(), TrainerError>(())
    })?;
    Ok(summary)
}

fn write(
    dataset: &dyn Dataset,
    (path, out): (&Path, &mut dyn Write),
    size: Option<usize>,
    skip_bad: bool,
    progress: &mut dyn FnMut(usize),
) -> Result<PackSummary, TrainerError> {
    let failed = |source| TrainerError::Io { action: "write", path: path.to_path_buf(), source };
    out.write_all(MAGIC).map_err(failed)?;
    let mut offset = MAGIC.len() as u64;
    let (mut index, mut about) = (Vec::new(), About::default());
    about.source = dataset.fingerprint();
    let (mut places, mut summary) = (HashMap::new(), PackSummary::default());
    for first in (0..dataset.len()).step_by(CHUNK) {
        let last = (first + CHUNK).min(dataset.len());
        let one = |at: usize| dataset.load(at).and_then(|image| small(image, size));
        let images: Vec<_> = (first..last).into_par_iter().map(one).collect();
        for (at, image) in (first..last).zip(images) {
            let name = dataset.name(at);
            let image = match image {
                Ok(image) => image,
                Err(error) if skip_bad => {
                    summary.bad.push(BadSample::of(at as u64, name, &error));
                    continue;
                }
                Err(source) => {
                    return Err(TrainerError::BadSample { path: name, source: Box::new(source) });
                }
            };
            let class = dataset.class(at).map_or(NO_CLASS, |class| {
                let next = places.len() as u32;
                let place = *places.entry(class.clone()).or_insert(next);
                if place == next {
                    about.classes.push(class);
                }
                place
            });
            let crc = crc32c::crc32c_append(crc32c::crc32c(name.as_bytes()), &image.data);
            let entry = Entry {
                offset,
                name: name.len() as u32,
                width: image.width as u32,
                height: image.height as u32,
                channels: image.channels as u32,
                class,
                crc,
            };
            out.write_all(name.as_bytes()).map_err(failed)?;
            out.write_all(&image.data).map_err(failed)?;
            offset += (name.len() + image.data.len()) as u64;
            index.extend(entry.to_bytes());
            about.images += 1;
        }
        progress(last);
    }
    let json = serde_json::to_vec(&about).map_err(|error| failed(error.into()))?;
    let json_bytes = json.len() as u32;
    index.extend(json);
    let mut trailer = offset.to_le_bytes().to_vec();
    trailer.extend(json_bytes.to_le_bytes());
    trailer.extend(crc32c::crc32c(&index).to_le_bytes());
    trailer.extend(MAGIC);
    out.write_all(&index).and_then(|()| out.write_all(&trailer)).map_err(failed)?;
    summary.images = about.images;
    summary.bytes = offset + (index.len() + trailer.len()) as u64;
    Ok(summary)
}

/// An image whose shorter side is at most `size`.
fn small(image: Image, size: Option<usize>) -> Result<Image, ImageError> {
    let short = image.width.min(image.height);
    let Some(size) = size.filter(|&size| size < short) else { return Ok(image) };
    let scaled = |side: usize| (side * size / short).max(1);
    resize(&image, (scaled(image.width), scaled(image.height)), None, Filter::Bicubic)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Images of growing size in two classes; one of them may be bad.
    struct Small(Option<usize>);

    impl Dataset for Small {
        fn len(&self) -> usize {
            5
        }
        fn load(&self, index: usize) -> Result<Image, ImageError> {
            if self.0 == Some(index) {
                return vitmae_image::decode(b"no image", &Default::default());
            }
            let (width, height) = (8 + index, 4);
            let data = (0..width * height * 3).map(|at| (at * (index + 3)) as u8).collect();
            Image::new(width, height, 3, data)
        }
        fn name(&self, index: usize) -> String {
            format!("image {index}")
        }
        fn fingerprint(&self) -> String {
            "small".into()
        }
        fn class(&self, index: usize) -> Option<String> {
            (index != 2).then(|| ["odd", "even"][index % 2].to_owned())
        }
    }

    fn packed(folder: &Path, size: Option<usize>) -> Packed {
        let path = folder.join("set.vmpack");
        let mut done = 0;
        let summary = pack(&Small(None), &path, size, false, &mut |count| done = count).unwrap();
        assert_eq!((summary.images, done), (5, 5));
        assert_eq!(summary.bytes, fs::metadata(&path).unwrap().len());
        Packed::open(&path).unwrap()
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let folder = tempfile::tempdir().unwrap();
        let set = packed(folder.path(), None);
        for index in 0..5 {
            assert_eq!(set.load(index).unwrap(), Small(None).load(index).unwrap());
            assert_eq!(set.class(index), Small(None).class(index));
            assert!(set.name(index).ends_with(&format!("set.vmpack:image {index}")));
        }
        let again = packed(folder.path(), None);
        assert_eq!(again.fingerprint(), set.fingerprint());
        let smaller = packed(folder.path(), Some(2));
        assert_ne!(smaller.fingerprint(), set.fingerprint());
        let image = smaller.load(4).unwrap();
        assert_eq!((image.width, image.height), (6, 2));
    }

    #[test]
    fn bad_images_stop_it_or_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.vmpack");
        let error = pack(&Small(Some(3)), &path, None, false, &mut |_| {}).unwrap_err();
        assert!(matches!(error, TrainerError::BadSample { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let summary = pack(&Small(Some(3)), &path, None, true, &mut |_| {}).unwrap();
        assert_eq!((summary.images, summary.bad.len(), summary.bad[0].sample), (4, 1, 3));
        let set = Packed::open(&path).unwrap();
        assert_eq!(set.load(3).unwrap(), Small(None).load(4).unwrap());
    }

    /// A set while whose images are read another packs into the same file.
    struct Interrupted<'a>(&'a Path);

    impl Dataset for Interrupted<'_> {
        fn len(&self) -> usize {
            5
        }
        fn load(&self, index: usize) -> Result<Image, ImageError> {
            if index == 2 {
                pack(&Small(None), self.0, Some(2), false, &mut |_| {}).unwrap();
            }
            Small(None).load(index)
        }
        fn name(&self, index: usize) -> String {
            Small(None).name(index)
        }
        fn fingerprint(&self) -> String {
            "interrupted".into()
        }
    }

    #[test]
    fn two_that_pack_into_one_file_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.vmpack");
        pack(&Interrupted(&path), &path, None, false, &mut |_| {}).unwrap();
        // The last to end has written it.
        let set = Packed::open(&path).unwrap();
        assert_eq!(set.about.source, "interrupted");
        assert!((0..5).all(|index| set.load(index).unwrap() == Small(None).load(index).unwrap()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn any_flipped_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        packed(folder.path(), None);
        let path = folder.path().join("set.vmpack");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(&path, bad).unwrap();
            let noticed = match Packed::open(&path) {
                Err(_) => true,
                Ok(set) => (0..5).filter(|&index| set.load(index).is_err()).count() == 1,
            };
            assert!(noticed, "byte {at} of {}", good.len());
        }
        for cut in (0..good.len()).step_by(7) {
            fs::write(&path, &good[..cut]).unwrap();
            assert!(Packed::open(&path).is_err(), "{cut}");
        }
    }

    #[test]
    fn sizes_beyond_all_numbers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        packed(folder.path(), None);
        let path = folder.path().join("set.vmpack");
        let mut bytes = fs::read(&path).unwrap();
        let trailer = bytes.len() - TRAILER;
        let index = little_endian(&bytes[trailer..trailer + 8]) as usize;
        // Width, height and channels, whose product is 0 in 64 bits.
        for (place, side) in [(12, 1u32 << 31), (16, 1 << 31), (20, 4)] {
            bytes[index + place..index + place + 4].copy_from_slice(&side.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[index..trailer]).to_le_bytes();
        bytes[trailer + 12..trailer + 16].copy_from_slice(&crc);
        fs::write(&path, bytes).unwrap();
        let error = Packed::open(&path).unwrap_err().to_string();
        assert!(error.contains("its index does not fit"), "{error}");
    }
}
