//! Writing a safetensors file, byte for byte as the reference writer lays it out.
//!
//! Tensors lie in the order of descending element type, then of name; the header is padded with
//! spaces to a multiple of 8 bytes. The same tensors always give the same file.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::atomic_file::write_atomically;
use crate::dtype::Dtype;
use crate::error::{WeightsError, shown};

/// Values converted at a time.
const CHUNK_VALUES: usize = 1 << 16;

/// A tensor to be written; its values are asked for when its turn comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorToWrite {
    /// Its name.
    pub name: String,
    /// The type its f32 values are converted to: F32, F16, BF16 or F64.
    pub dtype: Dtype,
    /// Its sides.
    pub shape: Vec<usize>,
}

/// Writes `path` atomically: the old file stays as it was after any failure.
///
/// `values` gives the f32 values of a tensor, in row-major order; it is called once for each, in
/// the order of the file, so that only one tensor is in memory at a time.
///
/// # Errors
/// [`WeightsError::Io`]; [`WeightsError::Duplicate`], [`WeightsError::NotAFloat`],
/// [`WeightsError::Overflow`] and [`WeightsError::ValueCount`] for tensors that cannot be written;
/// the errors of `values`.
pub fn write_safetensors(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &[TensorToWrite],
    values: impl FnMut(&TensorToWrite) -> Result<Vec<f32>, WeightsError>,
) -> Result<(), WeightsError> {
    write_atomically(path, |out| write_to(out, path, metadata, tensors, values))
        .map_err(|error| error.in_file(path))
}

fn write_to(
    out: &mut dyn Write,
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &[TensorToWrite],
    mut values: impl FnMut(&TensorToWrite) -> Result<Vec<f32>, WeightsError>,
) -> Result<(), WeightsError> {
    let failed =
        |source: io::Error| WeightsError::Io { action: "write", path: path.into(), source };
    let mut ordered: Vec<_> = tensors.iter().collect();
    ordered.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));

    let header = header(metadata, &ordered)?;
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
    out.write_all(&header).map_err(failed)?;
    let mut bytes = Vec::new();
    for tensor in ordered {
        let values = values(tensor)?;
        let (found, expected) = (values.len(), element_count(tensor)?);
        if found != expected {
            return Err(WeightsError::ValueCount { name: shown(&tensor.name), found, expected });
        }
        for chunk in values.chunks(CHUNK_VALUES) {
            bytes.clear();
            tensor.dtype.append_as_bytes(chunk, &mut bytes);
            out.write_all(&bytes).map_err(failed)?;
        }
    }
    Ok(())
}

/// The header's JSON, padded.
fn header(
    metadata: &BTreeMap<String, String>,
    tensors: &[&TensorToWrite],
) -> Result<Vec<u8>, WeightsError> {
    let mut table = Map::new();
    if !metadata.is_empty() {
        table.insert("__metadata__".to_string(), json!(metadata));
    }
    let mut names = HashSet::from(["__metadata__"]);
    let mut begin = 0u64;
    for tensor in tensors {
        if !names.insert(&tensor.name) {
            return Err(WeightsError::Duplicate { what: "tensor", name: shown(&tensor.name) });
        }
        if !tensor.dtype.is_read() {
            let (name, dtype) = (shown(&tensor.name), tensor.dtype);
            return Err(WeightsError::NotAFloat { name, dtype });
        }
        let bytes = (element_count(tensor)? as u64).checked_mul(tensor.dtype.bits() / 8);
        let end = bytes.and_then(|n| begin.checked_add(n)).ok_or_else(|| too_large(tensor))?;
        let (dtype, shape) = (tensor.dtype.name(), &tensor.shape);
        let row = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, end]});
        table.insert(tensor.name.clone(), row);
        begin = end;
    }
    let mut text = Value::Object(table).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok(text)
}

fn element_count(tensor: &TensorToWrite) -> Result<usize, WeightsError> {
    let count = tensor.shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
    count.ok_or_else(|| too_large(tensor))
}

fn too_large(tensor: &TensorToWrite) -> WeightsError {
    let shape = tensor.shape.iter().map(|&side| side as u64).collect();
    WeightsError::Overflow { name: shown(&tensor.name), shape }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for `left` more bytes.
    struct FullDisk {
        left: usize,
    }

    impl Write for FullDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.left == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.left);
            self.left -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_fills_up_is_noticed_at_every_byte() {
        let tensors = ["a", "b"].map(|name| TensorToWrite {
            name: name.into(),
            dtype: Dtype::F32,
            shape: vec![3],
        });
        let write = |out: &mut dyn Write| {
            let values = |_: &TensorToWrite| Ok(vec![1.0; 3]);
            write_to(out, Path::new("x.safetensors"), &BTreeMap::new(), &tensors, values)
        };
        let mut bytes = Vec::new();
        write(&mut bytes).unwrap();
        for left in 0..bytes.len() {
            let error = write(&mut FullDisk { left }).unwrap_err();
            assert_eq!(error.to_string(), "cannot write `x.safetensors`");
            assert!(error.is_io());
        }
        write(&mut FullDisk { left: bytes.len() }).unwrap();
    }
}
