//! The file, and beside it the weights where one message cannot hold them.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use vitmae_weights::{WeightsError, write_atomically};

use crate::OnnxError;
use crate::proto::{DataLocation, ModelProto, StringStringEntryProto, TensorProto};

/// Bytes of weights in one message; readers in C++ refuse one above 2 GiB.
const LIMIT: u64 = 1 << 30;
/// Weights in a file of their own start at multiples of this, so that they can be mapped.
const ALIGN: u64 = 4096;

/// Writes the model; returns the bytes of weights and whether they are external.
pub(crate) fn write(proto: ModelProto, path: &Path) -> Result<(u64, bool), OnnxError> {
    write_within(proto, path, LIMIT)
}

fn write_within(mut proto: ModelProto, path: &Path, limit: u64) -> Result<(u64, bool), OnnxError> {
    let weights = proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    let bytes = weights.map(|tensor| tensor.raw_data.len() as u64).sum();
    let beside = data_path(path)?;
    let external = bytes > limit;
    if external {
        write_data(&mut proto, &beside)?;
    }
    // The graph goes last: it is only there with its data.
    write_atomically(path, |out| {
        let message = proto.encode_to_vec();
        out.write_all(&message).map_err(|source| failed(path, source))
    })?;
    if !external && beside.exists() {
        // What an earlier, larger model left would be taken for this one's.
        let removed = fs::remove_file(&beside);
        removed.map_err(|source| WeightsError::Io {
            action: "remove",
            path: beside.clone(),
            source,
        })?;
    }
    Ok((bytes, external))
}

/// Moves the weights to a file of their own.
fn write_data(proto: &mut ModelProto, path: &Path) -> Result<(), OnnxError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| OnnxError::Name { path: path.to_path_buf() })?.to_owned();
    let mut tensors: Vec<&mut TensorProto> = proto
        .graph
        .iter_mut()
        .flat_map(|graph| &mut graph.initializer)
        // Small ones, such as shapes, are wanted while a graph is read.
        .filter(|tensor| tensor.raw_data.len() as u64 >= ALIGN)
        .collect();
    write_atomically(path, |out| {
        let mut at = 0u64;
        for tensor in &tensors {
            out.write_all(&tensor.raw_data).map_err(|source| failed(path, source))?;
            let end = at + tensor.raw_data.len() as u64;
            at = end.next_multiple_of(ALIGN);
            let gap = vec![0; (at - end) as usize];
            out.write_all(&gap).map_err(|source| failed(path, source))?;
        }
        Ok::<(), WeightsError>(())
    })?;
    let mut at = 0u64;
    for tensor in &mut tensors {
        let length = std::mem::take(&mut tensor.raw_data).len() as u64;
        let entry =
            |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        tensor.external_data = vec![
            entry("location", name.clone()),
            entry("offset", at.to_string()),
            entry("length", length.to_string()),
        ];
        tensor.data_location = DataLocation::External.into();
        at = (at + length).next_multiple_of(ALIGN);
    }
    Ok(())
}

fn data_path(path: &Path) -> Result<PathBuf, OnnxError> {
    let name = path.file_name().ok_or_else(|| OnnxError::Name { path: path.to_path_buf() })?;
    let mut name = name.to_owned();
    name.push(".data");
    Ok(path.with_file_name(name))
}

fn failed(path: &Path, source: std::io::Error) -> WeightsError {
    WeightsError::Io { action: "write", path: path.to_path_buf(), source }
}

#[cfg(test)]
#[cfg(feature = "check")]
mod tests {
    use prost::Message;
    use tract_onnx::prelude::*;
    use vitmae_model::{VitMaeConfig, VitMaeForPreTraining};
    use vitmae_tensor::Device;

    use super::*;
    use crate::graph::Graph;
    use crate::models;
    use crate::proto::OperatorSetIdProto;

    fn model() -> ModelProto {
        let config = VitMaeConfig {
            hidden_size: 48,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            image_size: (8, 8),
            patch_size: (4, 4),
            ..VitMaeConfig::default()
        };
        let model = VitMaeForPreTraining::new(config, &Device::cpu(), 0).expect("it is sound");
        let mut graph = Graph::new(Some(1));
        models::features(&mut graph, &model.vit).expect("a graph");
        ModelProto {
            ir_version: 8,
            graph: Some(graph.finish("features")),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
            ..ModelProto::default()
        }
    }

    fn outputs(path: &Path) -> TractResult<Vec<f32>> {
        let graph = tract_onnx::onnx().model_for_path(path)?.into_optimized()?.into_runnable()?;
        let pixels = Tensor::from_shape(&[1, 3, 8, 8], &[0.5f32; 192])?;
        let outputs = graph.run(tvec![pixels.into_tvalue()])?;
        Ok(outputs[0].to_plain_array_view::<f32>()?.iter().copied().collect())
    }

    #[test]
    fn external_weights_are_the_same_weights() {
        let folder = tempfile::tempdir().unwrap();
        let [inside, outside] =
            ["inside.onnx", "outside.onnx"].map(|name| folder.path().join(name));
        let data = folder.path().join("outside.onnx.data");
        assert!(!write_within(model(), &inside, u64::MAX).unwrap().1);
        assert!(write_within(model(), &outside, 0).unwrap().1);
        assert!(data.metadata().unwrap().len() > 4 * outside.metadata().unwrap().len());
        assert_eq!(outputs(&inside).unwrap(), outputs(&outside).unwrap());

        // A small model of the same name leaves no data behind that are not its own.
        write_within(model(), &outside, u64::MAX).unwrap();
        assert!(!data.exists());
        assert_eq!(outputs(&inside).unwrap(), outputs(&outside).unwrap());
        let read = ModelProto::decode(std::fs::read(&inside).unwrap().as_slice()).unwrap();
        assert_eq!(read, model());
    }
}
