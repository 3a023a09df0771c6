//! Keras's HDF5 files of the TensorFlow classes, `tf_model.h5`.
//!
//! A data set's path is `LAYER/MODEL/LAYER/…`, where MODEL depends on the class and on the version of Keras;
//! what follows the last `/vit/`, `/decoder/` or `/classifier/` is the name under which TensorFlow's
//! safetensors files have the tensor. Files are read through calls, not mapped, and nothing outside them is
//! followed.
//!
//! Source: `save_weights` of tf-keras 2.19; `TFPreTrainedModel.load_tf_weights` of transformers 4.57.6.

mod stored;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use hdf5_reader::error::Error as ReaderError;
use hdf5_reader::group::Group;
use hdf5_reader::storage::{BytesStorage, DynStorage, FileStorage};
use hdf5_reader::{ByteOrder, Dataset, Datatype, OpenOptions};
use hdf5_writer::{AttributeBuilder, DatasetBuilder, Hdf5Builder, WriteOptions};

use crate::atomic_file::write_atomically;
use crate::dtype::Dtype;
use crate::error::{WeightsError, shown};
use crate::safetensors_header::{MAX_RANK, MAX_TENSORS, TensorInfo};
use crate::safetensors_writer::TensorToWrite;
use stored::Stored;

/// Most groups below each other; Keras's files have eight.
const MAX_DEPTH: usize = 16;
/// Most groups, a group counting once for each path that leads to it: links may share groups, so that a file of a few
/// kilobytes has more paths than could ever be walked. ViT-H has 575.
const MAX_GROUPS: usize = 1 << 14;
/// Bytes of the largest tensor accepted: four times ViT-H's largest.
const MAX_TENSOR_BYTES: u64 = 1 << 30;
/// The layers that the names of the TensorFlow classes begin with.
const LAYERS: [&str; 3] = ["vit", "decoder", "classifier"];
/// The name that Keras gives the model, here and in files that we write.
const MODEL: &str = "tf_vi_tmae_for_pre_training";

/// Why an HDF5 file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Hdf5Fault {
    /// The file is broken, or has what its reader does not know. The reader's own text names all its causes, so that it
    /// is no cause here: it would be told twice.
    #[error("hdf5: the file cannot be read: {0}")]
    Reader(Box<ReaderError>),
    /// The file could not be made.
    #[error("hdf5: the file cannot be made")]
    Writer(#[source] Box<hdf5_writer::Error>),
    /// More of something than any model of this kind has.
    #[error("hdf5: the file has {found} {what}, expected at most {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many, at least.
        found: usize,
        /// How many are accepted.
        limit: usize,
    },
    /// A tensor is larger than any of a model of this kind.
    #[error("hdf5: tensor `{name}` of shape {shape:?} has more than {limit} bytes")]
    TooLarge {
        /// The tensor.
        name: String,
        /// Its sides.
        shape: Vec<u64>,
        /// Bytes accepted.
        limit: u64,
    },
    /// A tensor's values are not in the file; HDF5 would give its fill value instead.
    #[error(
        "hdf5: tensor `{name}` needs {expected} bytes, but the file holds {found} for it\nhelp: the file is truncated, or \
         the tensor was declared and never written"
    )]
    NotStored {
        /// The tensor.
        name: String,
        /// Bytes that the file can hold for it.
        found: u64,
        /// Bytes of its shape and type.
        expected: u64,
    },
    /// Parts of a tensor's values are not in the file.
    #[error("hdf5: tensor `{name}` has {found} of {expected} chunks in the file")]
    ChunksMissing {
        /// The tensor.
        name: String,
        /// Chunks that are stored.
        found: u64,
        /// Chunks of its shape.
        expected: u64,
    },
    /// Two tensors lie in the same bytes.
    #[error(
        "hdf5: tensor `{second}` starts at byte {start}, before the end of `{first}` at {end}\nhelp: tensors overlap"
    )]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The one that begins in it.
        second: String,
        /// Where the second begins.
        start: u64,
        /// Where the first ends.
        end: u64,
    },
    /// A data set is of a type that no weight has.
    #[error(
        "hdf5: tensor `{name}` has type {found}, expected little-endian floats of 2, 4 or 8 bytes"
    )]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
}

fn refused(error: ReaderError) -> WeightsError {
    Hdf5Fault::Reader(Box::new(error)).into()
}

/// An HDF5 file whose groups were listed; no values are read yet.
pub struct Hdf5File {
    datasets: Vec<Dataset>,
    tensors: Vec<TensorInfo>,
    metadata: BTreeMap<String, String>,
}

impl Hdf5File {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// [`WeightsError::Hdf5`] for what is no such file, or is too large or of a type that no weight has.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let storage = FileStorage::open(path).map_err(|error| refused(error).in_file(path))?;
        Self::from_storage(Arc::new(storage)).map_err(|error| error.in_file(path))
    }

    /// Reads a file that lies in memory.
    ///
    /// # Errors
    /// As [`Hdf5File::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, WeightsError> {
        Self::from_storage(Arc::new(BytesStorage::new(bytes)))
    }

    fn from_storage(storage: DynStorage) -> Result<Self, WeightsError> {
        // No tensor or chunk of a real file is larger than the file, but for small ones that are compressed.
        let most = storage.len().clamp(stored::SMALL, MAX_TENSOR_BYTES) as usize;
        let options = OpenOptions::default()
            .with_max_read_bytes(most)
            .with_max_chunk_bytes(most)
            .with_chunk_cache_bytes(0)
            .with_max_object_header_bytes(16 << 20);
        let file = hdf5_reader::Hdf5File::from_storage_with_options(storage, options);
        let file = file.map_err(refused)?;
        let root = file.root_group().map_err(refused)?;
        let mut found =
            Self { datasets: Vec::new(), tensors: Vec::new(), metadata: BTreeMap::new() };
        for name in ["backend", "keras_version"] {
            if let Ok(text) = root.attribute(name).and_then(|attribute| attribute.read_string()) {
                found.metadata.insert(name.to_string(), text);
            }
        }
        let mut stored = Stored::new(&file);
        found.visit(&root, "", 0, &mut 0, &mut stored)?;
        let mut names = HashSet::new();
        if let Some(twice) = found.tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
            return Err(WeightsError::Duplicate { what: "tensor", name: shown(&twice.name) });
        }
        stored.check_overlaps()?;
        Ok(found)
    }

    /// Lists the data sets of a group and of those below it; `listed` counts the groups.
    fn visit(
        &mut self,
        group: &Group,
        path: &str,
        depth: usize,
        listed: &mut usize,
        stored: &mut Stored,
    ) -> Result<(), WeightsError> {
        if depth > MAX_DEPTH {
            let (found, limit) = (depth, MAX_DEPTH);
            return Err(Hdf5Fault::TooMany { what: "groups below each other", found, limit }.into());
        }
        let (groups, datasets) = group.members().map_err(refused)?;
        *listed += groups.len();
        if *listed > MAX_GROUPS {
            let (found, limit) = (*listed, MAX_GROUPS);
            return Err(Hdf5Fault::TooMany { what: "groups", found, limit }.into());
        }
        for dataset in datasets {
            let found = self.tensors.len() + 1;
            if found > MAX_TENSORS {
                let limit = MAX_TENSORS;
                return Err(Hdf5Fault::TooMany { what: "tensors", found, limit }.into());
            }
            let full = format!("{path}/{}", last(dataset.name()));
            let tensor = info(short_name(&full), &dataset)?;
            stored.check(&dataset, &tensor)?;
            self.tensors.push(tensor);
            self.datasets.push(dataset);
        }
        for group in groups {
            let path = format!("{path}/{}", last(group.name()));
            self.visit(&group, &path, depth + 1, listed, stored)?;
        }
        Ok(())
    }

    /// The tensors in the order of the groups.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The file's attributes `backend` and `keras_version`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Appends the values of tensor `index` to `values`, converted to f32.
    pub(crate) fn append_f32(
        &self,
        index: usize,
        values: &mut Vec<f32>,
    ) -> Result<(), WeightsError> {
        let dataset = &self.datasets[index];
        stored::check_chunks(dataset, &self.tensors[index].name)?;
        let bytes = dataset.read_raw_bytes().map_err(refused)?;
        self.tensors[index].dtype.append_as_f32(&bytes, values);
        Ok(())
    }
}

impl fmt::Debug for Hdf5File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hdf5File").field("tensors", &self.tensors.len()).finish_non_exhaustive()
    }
}

/// The last part of a path.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `/vit/MODEL/vit/embeddings/cls_token:0` → `vit/embeddings/cls_token:0`.
fn short_name(full: &str) -> String {
    let starts = LAYERS.iter().filter_map(|layer| full.rfind(&format!("/{layer}/")));
    match starts.max() {
        Some(start) => full[start + 1..].to_string(),
        None => full.trim_start_matches('/').to_string(),
    }
}

fn info(name: String, dataset: &Dataset) -> Result<TensorInfo, WeightsError> {
    let dtype = match dataset.dtype() {
        Datatype::FloatingPoint { size: 2, byte_order: ByteOrder::LittleEndian } => Dtype::F16,
        Datatype::FloatingPoint { size: 4, byte_order: ByteOrder::LittleEndian } => Dtype::F32,
        Datatype::FloatingPoint { size: 8, byte_order: ByteOrder::LittleEndian } => Dtype::F64,
        other => {
            let found = format!("{other:?}").chars().take(80).collect();
            return Err(Hdf5Fault::Type { name: shown(&name), found }.into());
        }
    };
    let shape = dataset.shape();
    let size = dtype.bits() / 8;
    let bytes = shape.iter().try_fold(size, |n, &side| n.checked_mul(side));
    match bytes.filter(|&bytes| bytes <= MAX_TENSOR_BYTES && shape.len() <= MAX_RANK) {
        Some(bytes) => {
            let shape = shape.iter().map(|&side| side as usize).collect();
            Ok(TensorInfo { name, dtype, shape, offset: 0, bytes })
        }
        None => {
            let (shape, limit) = (shape.to_vec(), MAX_TENSOR_BYTES);
            Err(Hdf5Fault::TooLarge { name: shown(&name), shape, limit }.into())
        }
    }
}

/// Writes `path` atomically as Keras writes the TensorFlow classes' weights; `tensors` have TensorFlow's names,
/// and `values` gives the f32 values of each. F32 and F64 only; the whole file is made in memory.
///
/// # Errors
/// [`WeightsError::Io`]; [`WeightsError::NotAFloat`] for other types; the errors of `values`.
pub fn write_hdf5(
    path: &Path,
    tensors: &[TensorToWrite],
    mut values: impl FnMut(&TensorToWrite) -> Result<Vec<f32>, WeightsError>,
) -> Result<(), WeightsError> {
    let failed = |error| WeightsError::from(Hdf5Fault::Writer(Box::new(error))).in_file(path);
    let layers: Vec<&str> = LAYERS
        .into_iter()
        .filter(|layer| tensors.iter().any(|t| t.name.starts_with(&format!("{layer}/"))))
        .collect();
    let attribute = |name: &str, names: &[String]| match names {
        [] => AttributeBuilder::vector::<f64>(name, &[]),
        names => AttributeBuilder::fixed_string_vector(name, names),
    };
    let names: Vec<String> = layers.iter().map(|layer| layer.to_string()).collect();
    let mut file = Hdf5Builder::new()
        .attribute(attribute("layer_names", &names).map_err(failed)?)
        .attribute(AttributeBuilder::fixed_string("backend", "tensorflow"))
        .attribute(AttributeBuilder::fixed_string("keras_version", "2.19.0"));
    let none = attribute("weight_names", &[]).map_err(failed)?;
    file = file.group_attribute("top_level_model_weights", none);
    for layer in &layers {
        let of_layer = tensors.iter().filter(|t| t.name.starts_with(&format!("{layer}/")));
        let names: Vec<String> = of_layer.map(|t| format!("{MODEL}/{}", t.name)).collect();
        file = file.group_attribute(*layer, attribute("weight_names", &names).map_err(failed)?);
    }
    for tensor in tensors {
        let layer = tensor.name.split('/').next().unwrap_or_default();
        let name = format!("{layer}/{MODEL}/{}", tensor.name);
        let shape: Vec<u64> = tensor.shape.iter().map(|&side| side as u64).collect();
        let values = values(tensor)?;
        let dataset = match tensor.dtype {
            Dtype::F32 => DatasetBuilder::typed_data(name, shape, &values),
            Dtype::F64 => {
                let values: Vec<f64> = values.into_iter().map(f64::from).collect();
                DatasetBuilder::typed_data(name, shape, &values)
            }
            dtype => return Err(WeightsError::NotAFloat { name: shown(&tensor.name), dtype }),
        };
        file = file.dataset(dataset.map_err(failed)?);
    }
    let bytes = file.into_plan().and_then(|plan| plan.encode(WriteOptions::default()));
    let bytes = bytes.map_err(failed)?;
    write_atomically(path, |out| {
        out.write_all(&bytes).map_err(|source| WeightsError::Io {
            action: "write",
            path: path.to_path_buf(),
            source,
        })
    })
}

#[cfg(test)]
mod tests;
