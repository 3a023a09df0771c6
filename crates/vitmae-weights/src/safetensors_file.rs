//! Reading a safetensors file tensor by tensor, as f32.
//!
//! Plain file reads, no memory mapping: another process that cuts the file while it is read causes
//! an error and not a crash. The header is checked in full when the file is opened, so what a
//! tensor claims never exceeds the bytes that are there.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{WeightsError, shown};
use crate::safetensors_header::{Header, TensorInfo};

/// Bytes converted at a time; a multiple of every element's size.
const CHUNK_BYTES: u64 = 1 << 18;

/// An open safetensors file whose header passed every check.
pub struct SafetensorsFile {
    header: Header,
    index: HashMap<String, usize>,
    input: Box<dyn ReadSeek>,
    path: PathBuf,
    data_start: u64,
    file_bytes: u64,
}

impl fmt::Debug for SafetensorsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, tensors) = (&self.path, self.header.tensors.len());
        f.debug_struct("SafetensorsFile").field("path", path).field("tensors", &tensors).finish()
    }
}

trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

impl SafetensorsFile {
    /// Opens `path` and checks its header.
    ///
    /// # Errors
    /// [`WeightsError::Io`], [`WeightsError::NotAFile`], and [`WeightsError::File`] around what
    /// [`Header::parse`] finds wrong.
    pub fn open(path: &Path) -> Result<SafetensorsFile, WeightsError> {
        let failed = |action, source| WeightsError::Io { action, path: path.into(), source };
        // Asked before opening, since opening a pipe waits for its writer.
        let about = std::fs::metadata(path).map_err(|source| failed("open", source))?;
        if !about.is_file() {
            return Err(WeightsError::NotAFile { path: path.to_path_buf() });
        }
        let file = File::open(path).map_err(|source| failed("open", source))?;
        Self::from_reader(Box::new(file), about.len(), path)
    }

    /// Reads a file that lies in memory.
    ///
    /// # Errors
    /// As [`SafetensorsFile::open`]; the file is called `memory`.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<SafetensorsFile, WeightsError> {
        let length = bytes.len() as u64;
        Self::from_reader(Box::new(Cursor::new(bytes)), length, Path::new("memory"))
    }

    fn from_reader(
        mut input: Box<dyn ReadSeek>,
        file_bytes: u64,
        path: &Path,
    ) -> Result<SafetensorsFile, WeightsError> {
        let (header, data_start) =
            read_header(&mut input, file_bytes, path).map_err(|error| error.in_file(path))?;
        let names = header.tensors.iter().enumerate();
        let index = names.map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        Ok(SafetensorsFile { header, index, input, path: path.into(), data_start, file_bytes })
    }

    /// The tensors in the order of their bytes.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.header.tensors
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&i| &self.header.tensors[i])
    }

    /// The text pairs of `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The values of the tensor called `name`, converted to f32 (F64 is rounded to nearest).
    ///
    /// # Errors
    /// [`WeightsError::NoSuchTensor`], [`WeightsError::NotAFloat`], [`WeightsError::Io`].
    pub fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let mut values = Vec::new();
        self.append_f32(name, &mut values)?;
        Ok(values)
    }

    /// Appends the values of the tensor called `name` to `values`.
    ///
    /// # Errors
    /// As [`SafetensorsFile::read_f32`].
    pub fn append_f32(&mut self, name: &str, values: &mut Vec<f32>) -> Result<(), WeightsError> {
        let Some(tensor) = self.index.get(name).map(|&i| &self.header.tensors[i]) else {
            let error = WeightsError::NoSuchTensor { name: shown(name) };
            return Err(error.in_file(&self.path));
        };
        let dtype = tensor.dtype;
        if !dtype.is_read() {
            let error = WeightsError::NotAFloat { name: shown(name), dtype };
            return Err(error.in_file(&self.path));
        }
        let failed = |source| WeightsError::Io { action: "read", path: self.path.clone(), source };
        let start = self.data_start + tensor.offset;
        self.input.seek(SeekFrom::Start(start)).map_err(failed)?;
        values.reserve_exact(tensor.len());
        let mut left = tensor.bytes;
        let mut chunk = vec![0; left.min(CHUNK_BYTES) as usize];
        while left > 0 {
            chunk.truncate(left.min(CHUNK_BYTES) as usize);
            self.input.read_exact(&mut chunk).map_err(failed)?;
            dtype.append_as_f32(&chunk, values);
            left -= chunk.len() as u64;
        }
        Ok(())
    }
}

/// The header and the place where the data begin.
fn read_header(
    input: &mut Box<dyn ReadSeek>,
    file_bytes: u64,
    path: &Path,
) -> Result<(Header, u64), WeightsError> {
    if file_bytes < 8 {
        return Err(WeightsError::TooShort { found: file_bytes });
    }
    let failed = |source: io::Error| WeightsError::Io { action: "read", path: path.into(), source };
    let mut first = [0; 8];
    input.read_exact(&mut first).map_err(failed)?;
    let length = Header::length(first, file_bytes)?;
    let mut text = vec![0; length as usize];
    input.read_exact(&mut text).map_err(failed)?;
    let data_start = 8 + length;
    Ok((Header::parse(&text, file_bytes - data_start)?, data_start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::{TensorToWrite, mutation, write_safetensors};

    #[test]
    fn mutated_files_never_panic_and_end_soon() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let tensors = ["a", "b"].map(|name| TensorToWrite {
            name: name.into(),
            dtype: Dtype::F32,
            shape: vec![2, 3],
        });
        let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        write_safetensors(&path, &metadata, &tensors, |_| Ok(vec![1.0; 6])).unwrap();
        let good = mutation::each(&std::fs::read(&path).unwrap(), |bytes| {
            SafetensorsFile::from_bytes(bytes).is_ok_and(|mut file| {
                let names: Vec<_> = file.tensors().iter().map(|t| t.name.clone()).collect();
                names.iter().all(|name| file.read_f32(name).is_ok())
            })
        });
        assert!(good > 0, "values are bytes that may change");
    }
}
