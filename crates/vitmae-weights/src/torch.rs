//! Reads what `torch.save` writes, `.pth`, `.pt` and `.bin`, without executing anything.
//!
//! Such a file is a ZIP archive of uncompressed entries: `data.pkl`, a program for Python's pickle machine that
//! builds a dictionary of tensors, and `data/0`, `data/1`…, the bytes of their storages. `torch/pickle.rs` runs the
//! program on values that are data and nothing else. A tensor's shape, strides and storage are checked against
//! the archive before a byte of it is read.
//!
//! Source: `torch/serialization.py` and `torch/_utils.py` of PyTorch 2.15, behaviour only.

mod budget;
mod fault;
mod pickle;
mod state_dict;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use zip::{CompressionMethod, ZipArchive};

use crate::error::{WeightsError, shown};
use crate::order::gather;
use crate::safetensors_header::{MAX_TENSORS, TensorInfo};
use budget::Budgeted;
pub use fault::TorchFault;
use state_dict::{StateDict, TorchTensor};
pub use writer::write_torch;

/// Most entries of an archive: each tensor may have one of its own.
const MAX_ENTRIES: usize = MAX_TENSORS + 100;
/// Bytes that may be read to find and to list the entries; each needs some hundred in memory, whatever their number.
const MAX_DIRECTORY_BYTES: u64 = 16 << 20;
/// Bytes of the longest pickle accepted; that of ViT-H with its optimizer has 0.3 MB.
const MAX_PICKLE_BYTES: u64 = 64 << 20;

trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

type Input = Budgeted<Box<dyn ReadSeek>>;

/// An archive whose program has been run and whose tensors have been checked; no values are read yet.
pub struct TorchFile {
    archive: ZipArchive<Input>,
    prefix: String,
    tensors: Vec<TensorInfo>,
    places: Vec<TorchTensor>,
    metadata: BTreeMap<String, String>,
    /// The storage that was read last: tensors that share one usually follow each other.
    last: Option<(String, Arc<Vec<f32>>)>,
}

impl TorchFile {
    /// Opens the archive at `path`.
    ///
    /// # Errors
    /// [`WeightsError::Io`]; [`WeightsError::Torch`] for what is no archive of tensors, has a class or function
    /// beyond those of a checkpoint, or lies about its sizes.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let failed = |source| WeightsError::Io { action: "open", path: path.into(), source };
        let file = File::open(path).map_err(failed)?;
        Self::from_reader(Box::new(file)).map_err(|error| error.in_file(path))
    }

    /// Reads an archive that lies in memory.
    ///
    /// # Errors
    /// As [`TorchFile::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, WeightsError> {
        Self::from_reader(Box::new(Cursor::new(bytes)))
    }

    fn from_reader(mut input: Box<dyn ReadSeek>) -> Result<Self, WeightsError> {
        let mut first = [0; 4];
        let read = input.read_exact(&mut first).and_then(|()| input.seek(SeekFrom::Start(0)));
        if read.is_err() || &first != b"PK\x03\x04" {
            return Err(TorchFault::NotAnArchive.into());
        }
        let (input, budget) = Budgeted::new(input, MAX_DIRECTORY_BYTES);
        let mut archive = ZipArchive::new(input).map_err(TorchFault::Zip)?;
        budget.lift();
        if archive.len() > MAX_ENTRIES {
            return Err(TorchFault::TooMany {
                what: "entries",
                found: archive.len(),
                limit: MAX_ENTRIES,
            }
            .into());
        }
        let prefix = prefix(&archive)?;
        let program = read_entry(&mut archive, &format!("{prefix}data.pkl"), MAX_PICKLE_BYTES)?;
        if archive.index_for_name(&format!("{prefix}byteorder")).is_some() {
            let order = read_entry(&mut archive, &format!("{prefix}byteorder"), 16)?;
            if order != b"little" {
                let found = shown(&String::from_utf8_lossy(&order));
                return Err(TorchFault::ByteOrder { found }.into());
            }
        }
        let values = pickle::run(&program)?;
        let StateDict { tensors, metadata } = state_dict::find(&values)?;
        let mut file = Self {
            archive,
            prefix,
            tensors: Vec::with_capacity(tensors.len()),
            places: Vec::with_capacity(tensors.len()),
            metadata,
            last: None,
        };
        for (name, tensor) in tensors {
            file.check(&name, &tensor)?;
            let bytes = tensor.len() as u64 * (tensor.dtype.bits() / 8);
            let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
            file.tensors.push(TensorInfo { name, dtype, shape, offset: 0, bytes });
            file.places.push(tensor);
        }
        file.check_overlaps()?;
        Ok(file)
    }

    /// The tensors in the order of the dictionary.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// What the checkpoint says beside its tensors: `epoch`, and the simple values of `args` as `args.lr`…
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Whether the storage exists, is as long as the program says, and holds the whole tensor.
    fn check(&mut self, name: &str, tensor: &TorchTensor) -> Result<(), WeightsError> {
        let entry = format!("{}data/{}", self.prefix, tensor.storage);
        let Some(index) = self.archive.index_for_name(&entry) else {
            return Err(TorchFault::NoStorage { name: shown(name), entry: shown(&entry) }.into());
        };
        let found = self.archive.by_index_raw(index).map_err(TorchFault::Zip)?;
        stored(&entry, found.compression())?;
        let expected = tensor.storage_len.checked_mul(tensor.dtype.bits() / 8);
        if Some(found.size()) != expected {
            let (entry, found) = (shown(&entry), found.size());
            return Err(TorchFault::StorageBytes { entry, found, expected }.into());
        }
        match tensor.end() {
            Some(end) if end <= tensor.storage_len => Ok(()),
            _ => Err(TorchFault::BeyondStorage {
                name: shown(name),
                shape: tensor.shape.clone(),
                strides: tensor.strides.clone(),
                offset: tensor.offset,
                len: tensor.storage_len,
            }
            .into()),
        }
    }

    /// Whether no two storages lie in the same bytes of the archive.
    fn check_overlaps(&mut self) -> Result<(), WeightsError> {
        let storages: BTreeSet<&str> = self.places.iter().map(|t| t.storage.as_str()).collect();
        let mut ranges = Vec::with_capacity(storages.len());
        for storage in storages {
            let entry = format!("{}data/{storage}", self.prefix);
            let found = self.archive.by_name(&entry).map_err(TorchFault::Zip)?;
            let start = found.data_start().unwrap_or_default();
            ranges.push((start, start.saturating_add(found.size()), entry));
        }
        ranges.sort();
        for pair in ranges.windows(2) {
            let ((_, end, first), (start, _, second)) = (&pair[0], &pair[1]);
            if start < end {
                let (first, second) = (shown(first), shown(second));
                return Err(TorchFault::Overlap { first, second, start: *start, end: *end }.into());
            }
        }
        Ok(())
    }

    /// Appends the values of tensor `index` to `values`, converted to f32.
    pub(crate) fn append_f32(
        &mut self,
        index: usize,
        values: &mut Vec<f32>,
    ) -> Result<(), WeightsError> {
        let tensor = self.places[index].clone();
        if !tensor.dtype.is_read() {
            let (name, dtype) = (shown(&self.tensors[index].name), tensor.dtype);
            return Err(WeightsError::NotAFloat { name, dtype });
        }
        let storage = self.storage(&tensor)?;
        let rest = &storage[tensor.offset as usize..];
        if tensor.is_contiguous() {
            values.extend(&rest[..tensor.len()]);
        } else if tensor.len() > 0 {
            let strides: Vec<usize> = tensor.strides.iter().map(|&s| s as usize).collect();
            values.extend(gather(rest, &tensor.shape, &strides));
        }
        Ok(())
    }

    /// A whole storage as f32, its checksum compared.
    fn storage(&mut self, tensor: &TorchTensor) -> Result<Arc<Vec<f32>>, WeightsError> {
        let key = format!("{}/{}", tensor.dtype, tensor.storage);
        if let Some((_, values)) = self.last.as_ref().filter(|(last, _)| *last == key) {
            return Ok(values.clone());
        }
        self.last = None;
        let entry = format!("{}data/{}", self.prefix, tensor.storage);
        // Its size was compared with the archive's, which is not longer than the file.
        let bytes = read_entry(&mut self.archive, &entry, u64::MAX)?;
        let mut values = Vec::with_capacity(tensor.storage_len as usize);
        tensor.dtype.append_as_f32(&bytes, &mut values);
        let values = Arc::new(values);
        self.last = Some((key, values.clone()));
        Ok(values)
    }
}

impl fmt::Debug for TorchFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TorchFile").field("tensors", &self.tensors.len()).finish_non_exhaustive()
    }
}

/// The folder in which everything lies, its slash included: `archive/`.
fn prefix(archive: &ZipArchive<Input>) -> Result<String, WeightsError> {
    let names = archive.file_names().collect::<Result<Vec<_>, _>>().map_err(TorchFault::Zip)?;
    if names.iter().any(|name| name.ends_with("/constants.pkl")) {
        return Err(TorchFault::TorchScript.into());
    }
    let found = names.iter().find_map(|name| name.strip_suffix("data.pkl"));
    match found {
        Some(prefix) if prefix.is_empty() || prefix.ends_with('/') => Ok(prefix.to_string()),
        _ => Err(TorchFault::NoProgram.into()),
    }
}

fn stored(entry: &str, found: CompressionMethod) -> Result<(), TorchFault> {
    match found {
        CompressionMethod::Stored => Ok(()),
        _ => Err(TorchFault::Compressed { entry: shown(entry) }),
    }
}

/// The bytes of an entry of at most `limit`.
fn read_entry(
    archive: &mut ZipArchive<Input>,
    name: &str,
    limit: u64,
) -> Result<Vec<u8>, WeightsError> {
    let mut entry = archive.by_name(name).map_err(TorchFault::Zip)?;
    stored(name, entry.compression())?;
    let found = entry.size();
    if found > limit {
        return Err(TorchFault::EntryTooLarge { entry: shown(name), found, limit }.into());
    }
    let mut bytes = Vec::new();
    // Grows as bytes come, whatever the archive claims.
    let read = entry.by_ref().take(found).read_to_end(&mut bytes);
    read.map_err(|source| TorchFault::Entry { entry: shown(name), source })?;
    if bytes.len() as u64 != found {
        let (entry, expected) = (shown(name), Some(found));
        let found = bytes.len() as u64;
        return Err(TorchFault::StorageBytes { entry, found, expected }.into());
    }
    // The checksum is compared where the reader meets the end.
    let mut end = [0];
    let more = entry.read(&mut end);
    more.map_err(|source| TorchFault::Entry { entry: shown(name), source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
