//! Parts of a file by position, read from several threads at once.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use vitmae_image::ImageError;

use crate::TrainerError;

/// Bytes of the largest compressed file that is unpacked into memory.
const MAX_UNPACKED: u64 = 4 << 30;

/// A file of which parts are read.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    bytes: Bytes,
    len: u64,
}

#[derive(Debug)]
enum Bytes {
    File(File),
    /// Of a compressed file.
    Memory(Vec<u8>),
}

impl Store {
    /// Opens a file; one with the ending `.gz` is unpacked into memory.
    ///
    /// # Errors
    /// [`TrainerError::Io`], and [`TrainerError::Container`] for one that unpacks to more than 4 GiB.
    pub(super) fn open(path: &Path) -> Result<Store, TrainerError> {
        let failed = |source| TrainerError::Io { action: "read", path: path.to_path_buf(), source };
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        if path.extension().is_none_or(|ending| ending != "gz") {
            return Ok(Store { path: path.to_path_buf(), bytes: Bytes::File(file), len });
        }
        let mut bytes = Vec::new();
        GzDecoder::new(file).take(MAX_UNPACKED + 1).read_to_end(&mut bytes).map_err(failed)?;
        let len = bytes.len() as u64;
        if len > MAX_UNPACKED {
            return Err(TrainerError::Container {
                path: path.to_path_buf(),
                kind: "compressed file",
                found: "it unpacks to more than 4 GiB".to_owned(),
                help: "unpack it first",
            });
        }
        Ok(Store { path: path.to_path_buf(), bytes: Bytes::Memory(bytes), len })
    }

    /// Its length, unpacked.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// `count` bytes from `offset` on.
    pub(super) fn read(&self, offset: u64, count: usize) -> io::Result<Vec<u8>> {
        // Checked first, so that a number in a damaged file asks for no memory.
        if offset.checked_add(count as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.bytes {
            Bytes::Memory(bytes) => Ok(bytes[offset as usize..offset as usize + count].to_vec()),
            Bytes::File(file) => {
                let mut bytes = vec![0; count];
                read_exact_at(file, &mut bytes, offset)?;
                Ok(bytes)
            }
        }
    }

    /// As many bytes from `offset` on as are there and fit.
    #[cfg(feature = "parquet")]
    pub(super) fn read_some(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.len.saturating_sub(offset).min(bytes.len() as u64) as usize;
        match &self.bytes {
            Bytes::Memory(all) => {
                bytes[..count].copy_from_slice(&all[offset as usize..][..count]);
            }
            Bytes::File(file) => read_exact_at(file, &mut bytes[..count], offset)?,
        }
        Ok(count)
    }

    /// [`read`](Self::read) of a part of an image.
    pub(super) fn read_image(&self, offset: u64, count: usize) -> Result<Vec<u8>, ImageError> {
        self.read(offset, count)
            .map_err(|source| ImageError::Read { file: self.path.clone(), source })
    }

    /// [`read`](Self::read) while a set is opened.
    pub(super) fn read_now(&self, offset: u64, count: usize) -> Result<Vec<u8>, TrainerError> {
        self.read(offset, count).map_err(|source| TrainerError::Io {
            action: "read",
            path: self.path.clone(),
            source,
        })
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                bytes = &mut bytes[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn parts_are_read_and_nothing_behind_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("a.bin");
        std::fs::write(&plain, b"0123456789").unwrap();
        let packed = folder.path().join("a.gz");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"0123456789").unwrap();
        std::fs::write(&packed, encoder.finish().unwrap()).unwrap();
        for path in [plain, packed] {
            let store = Store::open(&path).unwrap();
            assert_eq!(store.len(), 10);
            assert_eq!(store.read(3, 4).unwrap(), b"3456");
            assert!(store.read(8, 3).is_err() && store.read(u64::MAX, 1).is_err());
        }
    }
}
