//! A file of weights, whatever its container: safetensors alone or in shards, PyTorch's archive, Keras's HDF5.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{WeightsError, shown};
use crate::folder::read_json_text;
use crate::hdf5::Hdf5File;
use crate::safetensors_file::SafetensorsFile;
use crate::safetensors_header::TensorInfo;
use crate::torch::TorchFile;

/// How bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// One safetensors file.
    Safetensors,
    /// An archive of `torch.save`: `.pth`, `.pt`, `.bin`.
    Torch,
    /// An HDF5 file of Keras.
    Hdf5,
    /// Several files with an index, `….index.json`.
    Shards(usize),
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Safetensors => f.write_str("safetensors"),
            Self::Torch => f.write_str("a PyTorch archive"),
            Self::Hdf5 => f.write_str("HDF5"),
            Self::Shards(count) => write!(f, "{count} shards"),
        }
    }
}

/// An open file; no values are read yet.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    file_bytes: u64,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Safetensors(SafetensorsFile),
    Torch(Box<TorchFile>),
    Hdf5(Hdf5File),
    /// The shards, and in which of them each tensor lies.
    Shards(Vec<WeightsFile>, Vec<usize>),
}

/// What one file is, told by its first bytes.
enum Format {
    Safetensors,
    Torch,
    Hdf5,
}

impl Format {
    /// Whatever is neither of the others has to be safetensors; its reader names what it is instead.
    fn of(first: &[u8]) -> Self {
        if first.starts_with(b"PK\x03\x04") {
            Self::Torch
        } else if first.starts_with(b"\x89HDF\r\n\x1a\n") {
            Self::Hdf5
        } else {
            Self::Safetensors
        }
    }
}

impl WeightsFile {
    /// Opens the file at `path` as what its first bytes say, or as an index if it ends in `.index.json`.
    ///
    /// # Errors
    /// [`WeightsError::Io`], [`WeightsError::NotAFile`] and [`WeightsError::File`] around what is wrong with it.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let failed = |source| WeightsError::Io { action: "open", path: path.into(), source };
        if path.to_string_lossy().ends_with(".index.json") {
            return Self::open_shards(path).map_err(|error| error.in_file(path));
        }
        let about = fs::metadata(path).map_err(failed)?;
        if !about.is_file() {
            return Err(WeightsError::NotAFile { path: path.to_path_buf() });
        }
        let mut first = Vec::new();
        File::open(path).map_err(failed)?.take(8).read_to_end(&mut first).map_err(failed)?;
        let source = match Format::of(&first) {
            Format::Torch => Source::Torch(Box::new(TorchFile::open(path)?)),
            Format::Hdf5 => Source::Hdf5(Hdf5File::open(path)?),
            Format::Safetensors => Source::Safetensors(SafetensorsFile::open(path)?),
        };
        Ok(Self::of_source(path, about.len(), source))
    }

    /// Reads a file that lies in memory, told by its first bytes like one that is opened.
    ///
    /// # Errors
    /// As [`WeightsFile::open`]; the file is called `memory`.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, WeightsError> {
        let (path, length) = (Path::new("memory"), bytes.len() as u64);
        let source = match Format::of(&bytes) {
            Format::Torch => TorchFile::from_bytes(bytes).map(|file| Source::Torch(Box::new(file))),
            Format::Hdf5 => Hdf5File::from_bytes(bytes).map(Source::Hdf5),
            Format::Safetensors => SafetensorsFile::from_bytes(bytes).map(Source::Safetensors),
        };
        Ok(Self::of_source(path, length, source.map_err(|error| error.in_file(path))?))
    }

    fn of_source(path: &Path, file_bytes: u64, source: Source) -> Self {
        let (tensors, metadata) = match &source {
            Source::Safetensors(file) => (file.tensors().to_vec(), file.metadata().clone()),
            Source::Torch(file) => (file.tensors().to_vec(), file.metadata().clone()),
            Source::Hdf5(file) => (file.tensors().to_vec(), file.metadata().clone()),
            Source::Shards(..) => unreachable!("shards are files of their own"),
        };
        Self::new(path, file_bytes, tensors, metadata, source)
    }

    fn new(
        path: &Path,
        file_bytes: u64,
        tensors: Vec<TensorInfo>,
        metadata: BTreeMap<String, String>,
        source: Source,
    ) -> Self {
        let index = tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i));
        let index = index.collect();
        Self { path: path.to_path_buf(), file_bytes, tensors, index, metadata, source }
    }

    /// Opens every file that an index names, and compares what they hold with it.
    fn open_shards(path: &Path) -> Result<Self, WeightsError> {
        let missing = || WeightsError::Io {
            action: "open",
            path: path.into(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        let text = read_json_text(path)?.ok_or_else(missing)?;
        let index = Index::parse(&text)?;
        let names: BTreeSet<&String> = index.weight_map.values().collect();
        let (mut shards, mut tensors, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let (mut file_bytes, mut metadata) = (0, BTreeMap::new());
        for name in names {
            let shard = Self::open(&path.with_file_name(name))?;
            for tensor in shard.tensors() {
                let listed = index.weight_map.get(&tensor.name);
                if listed != Some(name) {
                    let (name, shard) = (shown(&tensor.name), shown(name));
                    let listed = listed.map(|listed| shown(listed));
                    return Err(WeightsError::ShardTensor { name, shard, listed });
                }
                tensors.push(tensor.clone());
                places.push(shards.len());
            }
            file_bytes += shard.file_bytes();
            metadata.extend(shard.metadata().clone());
            shards.push(shard);
        }
        let file = Self::new(path, file_bytes, tensors, metadata, Source::Shards(shards, places));
        let absent = index.weight_map.iter().find(|(name, _)| file.get(name).is_none());
        match absent {
            None => Ok(file),
            Some((name, shard)) => {
                Err(WeightsError::NotInShard { name: shown(name), shard: shown(shard) })
            }
        }
    }

    /// How its bytes are kept.
    pub fn container(&self) -> Container {
        match &self.source {
            Source::Safetensors(_) => Container::Safetensors,
            Source::Torch(_) => Container::Torch,
            Source::Hdf5(_) => Container::Hdf5,
            Source::Shards(shards, _) => Container::Shards(shards.len()),
        }
    }

    /// The tensors in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&i| &self.tensors[i])
    }

    /// Text pairs beside the tensors.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Bytes of the file, or of all shards.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The values of the tensor called `name`, row-major, converted to f32 (F64 is rounded to nearest).
    ///
    /// # Errors
    /// [`WeightsError::NoSuchTensor`], [`WeightsError::NotAFloat`], [`WeightsError::Io`], and what the container's
    /// reader finds only where it reads values.
    pub fn read_f32(&mut self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let mut values = Vec::new();
        self.append_f32(name, &mut values)?;
        Ok(values)
    }

    /// Appends the values of the tensor called `name` to `values`.
    ///
    /// # Errors
    /// As [`WeightsFile::read_f32`].
    pub fn append_f32(&mut self, name: &str, values: &mut Vec<f32>) -> Result<(), WeightsError> {
        let Some(&index) = self.index.get(name) else {
            let error = WeightsError::NoSuchTensor { name: shown(name) };
            return Err(error.in_file(&self.path));
        };
        let read = match &mut self.source {
            Source::Safetensors(file) => file.append_f32(name, values),
            Source::Torch(file) => file.append_f32(index, values),
            Source::Hdf5(file) => file.append_f32(index, values),
            Source::Shards(shards, places) => shards[places[index]].append_f32(name, values),
        };
        read.map_err(|error| error.in_file(&self.path))
    }
}

/// The index of shards, as transformers writes it.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Parses an index whose shards are all plain names: it must not lead to files elsewhere.
    fn parse(text: &str) -> Result<Self, WeightsError> {
        let index: Self =
            serde_json::from_str(text).map_err(|source| WeightsError::IndexJson { source })?;
        for name in index.weight_map.values() {
            let plain = Path::new(name).file_name().is_some_and(|file| file == name.as_str());
            if !plain || name.contains(['/', '\\', ':']) || name.ends_with(".index.json") {
                return Err(WeightsError::ShardName { name: shown(name) });
            }
        }
        Ok(index)
    }
}

/// The shards that an index names, one for each tensor.
///
/// # Errors
/// [`WeightsError::IndexJson`], and [`WeightsError::ShardName`] for a name that leads away from the index's folder.
pub fn shards_of_index(text: &str) -> Result<Vec<String>, WeightsError> {
    Ok(Index::parse(text)?.weight_map.into_values().collect())
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use crate::dtype::Dtype;
    use crate::{TensorToWrite, write_safetensors};

    /// Writes a shard with tensors of one value, its number.
    fn shard(folder: &Path, name: &str, tensors: &[&str]) {
        let tensors: Vec<_> = tensors
            .iter()
            .map(|name| TensorToWrite { name: name.to_string(), dtype: Dtype::F32, shape: vec![1] })
            .collect();
        let value = |t: &TensorToWrite| Ok(vec![f32::from(t.name.as_bytes()[0])]);
        write_safetensors(&folder.join(name), &BTreeMap::new(), &tensors, value).unwrap();
    }

    fn open(folder: &Path, map: &str) -> Result<WeightsFile, WeightsError> {
        let path = folder.join("model.safetensors.index.json");
        fs::write(&path, format!("{{\"metadata\": {{}}, \"weight_map\": {map}}}")).unwrap();
        WeightsFile::open(&path)
    }

    #[test]
    fn shards_are_one_file() {
        let folder = tempfile::tempdir().unwrap();
        shard(folder.path(), "1.safetensors", &["b", "a"]);
        shard(folder.path(), "2.safetensors", &["c"]);
        let map = r#"{"a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"}"#;
        let mut file = open(folder.path(), map).unwrap();
        assert_eq!(file.container(), Container::Shards(2));
        let mut names: Vec<_> = file.tensors().iter().map(|t| t.name.clone()).collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(file.read_f32("c").unwrap(), [f32::from(b'c')]);
        assert_eq!(file.read_f32("a").unwrap(), [f32::from(b'a')]);
        let error = file.read_f32("d").unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "there is no tensor `d`");
    }

    #[test]
    fn an_index_that_does_not_fit_its_shards_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        shard(folder.path(), "1.safetensors", &["a", "b"]);
        shard(folder.path(), "2.safetensors", &["b"]);
        let fault = |map: &str| {
            let error = open(folder.path(), map).unwrap_err();
            error.source().map_or(error.to_string(), |source| source.to_string())
        };
        assert_eq!(
            fault(r#"{"a": "1.safetensors"}"#),
            "shards: `1.safetensors` holds tensor `b`, which the index does not list"
        );
        assert_eq!(
            fault(r#"{"a": "1.safetensors", "b": "2.safetensors"}"#),
            "shards: `1.safetensors` holds tensor `b`, which the index expects in `2.safetensors`"
        );
        assert_eq!(
            fault(r#"{"a": "1.safetensors", "b": "1.safetensors", "c": "1.safetensors"}"#),
            "shards: the index expects tensor `c` in `1.safetensors`, which does not hold it"
        );
        for name in
            ["../1.safetensors", "/etc/passwd", "a/../1.safetensors", "..", "", "x.index.json"]
        {
            let map = format!("{{\"a\": {name:?}}}");
            assert_eq!(
                fault(&map),
                format!("shards: the index names `{name}`, expected the name of a file beside it")
            );
        }
        let error = open(folder.path(), r#"{"a": "3.safetensors"}"#).unwrap_err();
        let absent = folder.path().join("3.safetensors");
        assert_eq!(error.to_string(), format!("cannot open `{}`", absent.display()));
        assert_eq!(fault("[]"), "shards: the index is not what transformers writes");
    }
}
