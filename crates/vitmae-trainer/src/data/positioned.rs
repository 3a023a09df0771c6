//! Parts of a file by position, read from several threads at once.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use vitmae_image::ImageError;

use crate::TrainerError;

/// Bytes of the largest compressed file that is unpacked into memory.
const MAX_UNPACKED: u64 = 4 << 30;
/// Bytes to which one byte of gzip unpacks at most (RFC 1951: 258 bytes take at least two bits).
const MAX_RATIO: u64 = 1032;

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
    /// Opens a file.
    ///
    /// # Errors
    /// [`TrainerError::Io`].
    pub(super) fn open(path: &Path) -> Result<Store, TrainerError> {
        let failed = |source| TrainerError::Io { action: "read", path: path.to_path_buf(), source };
        let file = File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        Ok(Store { path: path.to_path_buf(), bytes: Bytes::File(file), len })
    }

    /// Opens a file whose first `header` bytes tell its length, from which `told` reads it; `told` gets fewer of a shorter file. One
    /// with the ending `.gz` is unpacked into memory, as far as its header tells: a small file may unpack to anything.
    ///
    /// # Errors
    /// [`TrainerError::Io`], those of `told`, and [`TrainerError::Container`] for a compressed file of another length, and for
    /// one of more than 4 GiB.
    pub(super) fn open_told(
        path: &Path,
        header: u64,
        told: impl FnOnce(&[u8]) -> Result<u64, TrainerError>,
    ) -> Result<Store, TrainerError> {
        let store = Store::open(path)?;
        if path.extension().is_none_or(|ending| ending != "gz") {
            told(&store.read_now(0, header.min(store.len) as usize)?)?;
            return Ok(store);
        }
        let Store { path, bytes: Bytes::File(file), len: packed } = store else { return Ok(store) };
        let failed = |source| TrainerError::Io { action: "read", path: path.clone(), source };
        let broken = |found, help| {
            let (path, kind) = (path.clone(), "compressed file");
            Err(TrainerError::Container { path, kind, found, help })
        };
        let mut source = GzDecoder::new(file);
        let mut bytes = Vec::new();
        source.by_ref().take(header).read_to_end(&mut bytes).map_err(failed)?;
        let told = told(&bytes)?;
        if told > packed.saturating_mul(MAX_RATIO) {
            let found = format!("its {packed} bytes cannot hold the {told} that its header tells");
            return broken(found, "fetch it again");
        }
        if told > MAX_UNPACKED {
            let found = format!("it unpacks to {told} bytes, more than 4 GiB");
            return broken(found, "unpack it first");
        }
        // One byte more than may be is enough to be refused; without one the checksum at the end has been read.
        let rest = (told + 1).saturating_sub(bytes.len() as u64);
        source.take(rest).read_to_end(&mut bytes).map_err(failed)?;
        let len = bytes.len() as u64;
        if len != told {
            let more = if len > told { "more".to_owned() } else { len.to_string() };
            let found = format!("it unpacks to {more}, its header tells {told} bytes");
            return broken(found, "fetch it again");
        }
        Ok(Store { path, bytes: Bytes::Memory(bytes), len })
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

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn parts_are_read_and_nothing_behind_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("a.bin");
        std::fs::write(&plain, b"0123456789").unwrap();
        let packed = folder.path().join("a.gz");
        std::fs::write(&packed, gzipped(b"0123456789")).unwrap();
        for path in [plain, packed] {
            let told = |header: &[u8]| {
                assert_eq!(header, b"012");
                Ok(10)
            };
            let store = Store::open_told(&path, 3, told).unwrap();
            assert_eq!(store.len(), 10);
            assert_eq!(store.read(3, 4).unwrap(), b"3456");
            assert!(store.read(8, 3).is_err() && store.read(u64::MAX, 1).is_err());
        }
    }

    #[test]
    fn a_compressed_file_is_unpacked_as_far_as_its_header_tells() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gz");
        let whole = gzipped(&[7; 5000]);
        let error = |bytes: &[u8], told: u64| {
            std::fs::write(&path, bytes).unwrap();
            let error = Store::open_told(&path, 4, |_| Ok(told)).unwrap_err();
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}{}", cause.unwrap_or_default())
        };
        assert!(error(&whole, 4999).contains("it unpacks to more, its header tells 4999 bytes"));
        assert!(error(&whole, 3).contains("it unpacks to more, its header tells 3 bytes"));
        assert!(error(&whole, 5001).contains("it unpacks to 5000, its header tells 5001 bytes"));
        let packed = whole.len();
        let message = error(&whole, 1 << 40);
        assert!(message.contains(&format!("its {packed} bytes cannot hold the 1099511627776")));
        // Noise does not get smaller, so that its size is no reason to refuse it.
        let stream = vitmae_cpu::random::Stream::new(0, "noise", 0, 0);
        let noise: Vec<u8> = (0..600_000).flat_map(|at| stream.bits(at).to_le_bytes()).collect();
        let message = error(&gzipped(&noise), (4 << 30) + 1);
        assert!(message.contains("it unpacks to 4294967297 bytes, more than 4 GiB"), "{message}");
        let mut changed = whole.clone();
        changed[packed - 6] ^= 1;
        let message = error(&changed, 5000);
        assert!(message.contains("checksum"), "{message}");
        assert!(error(&whole[..packed / 2], 5000).contains("cannot read"));
        std::fs::write(&path, &whole).unwrap();
        let refused = |_: &[u8]| {
            let (path, found) = (path.clone(), "a test".to_owned());
            Err(TrainerError::Container { path, kind: "IDX file", found, help: "" })
        };
        let error = Store::open_told(&path, 4, refused).unwrap_err();
        assert!(error.to_string().contains("a test"));
    }
}
