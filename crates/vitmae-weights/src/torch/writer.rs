//! Writes a file that `torch.load(…, weights_only=True)` reads: a dictionary of tensors, each with a storage of
//! its own.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::TorchFault;
use crate::atomic_file::write_atomically_seekable;
use crate::dtype::Dtype;
use crate::error::{WeightsError, shown};
use crate::safetensors_writer::TensorToWrite;

/// Values converted at a time.
const CHUNK_VALUES: usize = 1 << 16;
/// Bytes to which PyTorch aligns storages, so that they can be mapped into memory.
const ALIGNMENT: u16 = 64;

/// Writes `path` atomically: `{key: {name: tensor}}`, or `{name: tensor}` without a `key`. `values` gives the f32
/// values of a tensor and is called once for each, in order. The same tensors always give the same file.
///
/// # Errors
/// [`WeightsError::Io`]; [`WeightsError::NotAFloat`], [`WeightsError::ValueCount`] for tensors that cannot be
/// written; the errors of `values`.
pub fn write_torch(
    path: &Path,
    key: Option<&str>,
    tensors: &[TensorToWrite],
    values: impl FnMut(&TensorToWrite) -> Result<Vec<f32>, WeightsError>,
) -> Result<(), WeightsError> {
    write_atomically_seekable(path, |out| write_to(out, path, key, tensors, values))
        .map_err(|error| error.in_file(path))
}

fn write_to(
    out: &mut BufWriter<File>,
    path: &Path,
    key: Option<&str>,
    tensors: &[TensorToWrite],
    mut values: impl FnMut(&TensorToWrite) -> Result<Vec<f32>, WeightsError>,
) -> Result<(), WeightsError> {
    let failed =
        |source: io::Error| WeightsError::Io { action: "write", path: path.into(), source };
    let zip_failed = |error: zip::result::ZipError| match error {
        zip::result::ZipError::Io(source) => failed(source),
        other => TorchFault::Zip(other).into(),
    };
    let program = pickle(key, tensors)?;
    let mut archive = ZipWriter::new(out);
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::DEFAULT)
        .large_file(true)
        .with_alignment(ALIGNMENT);
    let entry = |archive: &mut ZipWriter<_>, name: &str| {
        archive.start_file(format!("archive/{name}"), options).map_err(zip_failed)
    };
    entry(&mut archive, "data.pkl")?;
    archive.write_all(&program).map_err(failed)?;
    entry(&mut archive, "byteorder")?;
    archive.write_all(b"little").map_err(failed)?;
    let mut bytes = Vec::new();
    for (index, tensor) in tensors.iter().enumerate() {
        let values = values(tensor)?;
        let (found, expected) = (values.len(), tensor.shape.iter().product());
        if found != expected {
            return Err(WeightsError::ValueCount { name: shown(&tensor.name), found, expected });
        }
        entry(&mut archive, &format!("data/{index}"))?;
        for chunk in values.chunks(CHUNK_VALUES) {
            bytes.clear();
            tensor.dtype.append_as_bytes(chunk, &mut bytes);
            archive.write_all(&bytes).map_err(failed)?;
        }
    }
    entry(&mut archive, "version")?;
    archive.write_all(b"3\n").map_err(failed)?;
    archive.finish().map_err(zip_failed)?;
    Ok(())
}

/// The program of protocol 2 that builds the dictionary.
fn pickle(key: Option<&str>, tensors: &[TensorToWrite]) -> Result<Vec<u8>, WeightsError> {
    let mut out = Program(b"\x80\x02".to_vec());
    if let Some(key) = key {
        out.0.push(b'}');
        out.text(key);
    }
    out.0.extend(b"ccollections\nOrderedDict\n)R(");
    for (index, tensor) in tensors.iter().enumerate() {
        let storage = match tensor.dtype {
            Dtype::F32 => "FloatStorage",
            Dtype::F16 => "HalfStorage",
            Dtype::BF16 => "BFloat16Storage",
            Dtype::F64 => "DoubleStorage",
            dtype => return Err(WeightsError::NotAFloat { name: shown(&tensor.name), dtype }),
        };
        let count: usize = tensor.shape.iter().product();
        out.text(&tensor.name);
        out.0.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        out.text("storage");
        out.0.extend(format!("ctorch\n{storage}\n").as_bytes());
        out.text(&index.to_string());
        out.text("cpu");
        out.int(count);
        out.0.extend(b"tQ");
        out.int(0);
        out.tuple(&tensor.shape);
        let mut strides = vec![1; tensor.shape.len()];
        for axis in (1..strides.len()).rev() {
            strides[axis - 1] = strides[axis] * tensor.shape[axis].max(1);
        }
        out.tuple(&strides);
        // requires_grad, and the hooks of a backward pass: none.
        out.0.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.0.push(b'u');
    if key.is_some() {
        out.0.push(b's');
    }
    out.0.push(b'.');
    Ok(out.0)
}

struct Program(Vec<u8>);

impl Program {
    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    fn int(&mut self, value: usize) {
        match i32::try_from(value) {
            Ok(value) => {
                self.0.push(b'J');
                self.0.extend(value.to_le_bytes());
            }
            Err(_) => {
                self.0.extend([0x8a, 8]);
                self.0.extend((value as i64).to_le_bytes());
            }
        }
    }

    fn tuple(&mut self, values: &[usize]) {
        self.0.push(b'(');
        values.iter().for_each(|&value| self.int(value));
        self.0.push(b't');
    }
}
