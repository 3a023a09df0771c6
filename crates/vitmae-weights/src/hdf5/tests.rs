use std::error::Error;

use super::*;
use crate::mutation;

fn tensor(name: &str, dtype: Dtype, shape: &[usize]) -> TensorToWrite {
    TensorToWrite { name: name.to_string(), dtype, shape: shape.to_vec() }
}

fn count(tensor: &TensorToWrite) -> Result<Vec<f32>, WeightsError> {
    Ok((0..tensor.shape.iter().product()).map(|i| i as f32 - 2.5).collect())
}

/// The bytes of a file as we write it.
fn written(tensors: &[TensorToWrite]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tf_model.h5");
    write_hdf5(&path, tensors, count).unwrap();
    std::fs::read(path).unwrap()
}

/// The bytes of a file with these data sets.
fn file(datasets: Vec<DatasetBuilder>) -> Vec<u8> {
    let builder = datasets.into_iter().fold(Hdf5Builder::new(), Hdf5Builder::dataset);
    builder.into_plan().unwrap().encode(WriteOptions::default()).unwrap()
}

fn fault(bytes: Vec<u8>) -> String {
    Hdf5File::from_bytes(bytes).unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read_under_tensorflows_names() {
    let tensors = [
        tensor("vit/embeddings/cls_token:0", Dtype::F32, &[1, 1, 4]),
        tensor("vit/encoder/layer_._0/output/dense/kernel:0", Dtype::F64, &[3, 4]),
        tensor("decoder/mask_token:0", Dtype::F32, &[1, 1, 2]),
    ];
    let bytes = written(&tensors);
    assert_eq!(bytes, written(&tensors), "the same file each time");
    let found = Hdf5File::from_bytes(bytes).unwrap();
    assert_eq!(found.metadata()["backend"], "tensorflow");
    assert_eq!(found.tensors().len(), 3);
    for tensor in &tensors {
        let index = found.tensors().iter().position(|info| info.name == tensor.name).unwrap();
        let info = &found.tensors()[index];
        assert_eq!((info.dtype, &info.shape), (tensor.dtype, &tensor.shape));
        let mut values = Vec::new();
        found.append_f32(index, &mut values).unwrap();
        assert_eq!(values, count(tensor).unwrap());
    }
}

#[test]
fn what_lies_before_the_layers_name_does_not_matter() {
    for (path, expected) in [
        ("/vit/tf_vi_tmae_model/vit/layernorm/gamma:0", "vit/layernorm/gamma:0"),
        ("/vit/vit/layernorm/gamma:0", "vit/layernorm/gamma:0"),
        ("/vit/layernorm/gamma:0", "vit/layernorm/gamma:0"),
        ("/decoder/a/b/decoder/decoder_norm/beta:0", "decoder/decoder_norm/beta:0"),
        ("/other/gamma:0", "other/gamma:0"),
    ] {
        assert_eq!(short_name(path), expected);
    }
}

#[test]
fn other_types_and_sizes_are_refused_by_name() {
    let values = |name: &str| DatasetBuilder::typed_data(name, vec![2u64], &[1i32, 2]).unwrap();
    let text = fault(file(vec![values("vit/x/vit/layernorm/gamma:0")]));
    assert!(text.starts_with("hdf5: tensor `vit/layernorm/gamma:0` has type FixedPoint"), "{text}");
    assert!(text.ends_with("expected little-endian floats of 2, 4 or 8 bytes"), "{text}");
    let floats = |name: &str| DatasetBuilder::typed_data(name, vec![1u64], &[1f32]).unwrap();
    assert_eq!(
        fault(file(vec![floats("vit/a/vit/norm:0"), floats("vit/b/vit/norm:0")])),
        "tensor `vit/norm:0` occurs more than once"
    );
    let deep = format!("{}x", "a/".repeat(18));
    assert_eq!(
        fault(file(vec![floats(&deep)])),
        "hdf5: the file has 17 groups below each other, expected at most 16"
    );
    let half = [tensor("vit/x:0", Dtype::BF16, &[1])];
    let folder = tempfile::tempdir().unwrap();
    let error = write_hdf5(&folder.path().join("x.h5"), &half, count).unwrap_err();
    assert!(error.to_string().contains("BF16") || error.source().is_some(), "{error}");
}

#[test]
fn more_groups_than_a_model_has_are_refused() {
    let floats = |name: String| DatasetBuilder::typed_data(name, vec![1u64], &[1f32]).unwrap();
    // `vit` counts too.
    let groups = |count: usize| file((1..count).map(|i| floats(format!("vit/{i}/x:0"))).collect());
    let found = Hdf5File::from_bytes(groups(MAX_GROUPS)).unwrap();
    assert_eq!(found.tensors().len(), MAX_GROUPS - 1);
    assert_eq!(
        fault(groups(MAX_GROUPS + 1)),
        "hdf5: the file has 16385 groups, expected at most 16384"
    );
}

#[test]
fn a_cut_file_is_an_error() {
    let bytes = written(&[tensor("vit/embeddings/cls_token:0", Dtype::F32, &[1, 1, 64])]);
    for end in (0..bytes.len()).step_by(7) {
        let cut = bytes[..end].to_vec();
        let read = Hdf5File::from_bytes(cut).and_then(|file| {
            let mut values = Vec::new();
            file.append_f32(0, &mut values)
        });
        assert!(read.is_err(), "{end} of {} bytes", bytes.len());
    }
}

#[test]
fn mutated_files_never_panic_and_end_soon() {
    let whole = written(&[
        tensor("vit/embeddings/cls_token:0", Dtype::F32, &[1, 1, 4]),
        tensor("decoder/mask_token:0", Dtype::F32, &[1, 1, 2]),
    ]);
    let good = mutation::each(&whole, |bytes| {
        Hdf5File::from_bytes(bytes).is_ok_and(|file| {
            (0..file.tensors().len()).all(|index| file.append_f32(index, &mut Vec::new()).is_ok())
        })
    });
    assert!(good > 0, "values are bytes that may change");
}
