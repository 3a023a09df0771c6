//! The reader and the writer against the reference crate, against each other, and against damage.
#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use vitmae_weights::{Dtype, SafetensorsFile, TensorToWrite, WeightsError, write_safetensors};

type Tensors = Vec<(String, Dtype, Vec<usize>, Vec<f32>)>;

fn write(path: &Path, metadata: &BTreeMap<String, String>, tensors: &Tensors) {
    let listed: Vec<_> = tensors
        .iter()
        .map(|(name, dtype, shape, _)| TensorToWrite {
            name: name.clone(),
            dtype: *dtype,
            shape: shape.clone(),
        })
        .collect();
    let values = |tensor: &TensorToWrite| {
        let row = tensors.iter().find(|row| row.0 == tensor.name).unwrap();
        Ok(row.3.clone())
    };
    write_safetensors(path, metadata, &listed, values).unwrap();
}

fn pt() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_string(), "pt".to_string())])
}

fn sample() -> Tensors {
    let ramp = |n: usize| (0..n).map(|i| i as f32 - 2.5).collect::<Vec<_>>();
    vec![
        ("b.weight".into(), Dtype::F32, vec![2, 3], ramp(6)),
        ("a \"quoted\" näme".into(), Dtype::F16, vec![3], ramp(3)),
        ("c".into(), Dtype::BF16, vec![], ramp(1)),
        ("d".into(), Dtype::F64, vec![1, 1, 2], ramp(2)),
        ("empty".into(), Dtype::F32, vec![0, 4], vec![]),
        ("a".into(), Dtype::F32, vec![2], vec![f32::NAN, f32::NEG_INFINITY]),
    ]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn dtype_of(dtype: Dtype) -> safetensors::Dtype {
    serde_json::from_str(&format!("\"{dtype}\"")).unwrap()
}

/// The file the reference crate writes for the same tensors.
fn reference_bytes(metadata: &BTreeMap<String, String>, tensors: &Tensors) -> Vec<u8> {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, dtype, _, values)| {
            let each = values.iter();
            match dtype {
                Dtype::F16 => each.flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect(),
                Dtype::BF16 => each.flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect(),
                Dtype::F64 => each.flat_map(|&x| f64::from(x).to_le_bytes()).collect(),
                _ => each.flat_map(|x| x.to_le_bytes()).collect(),
            }
        })
        .collect();
    let views = tensors.iter().zip(&data).map(|((name, dtype, shape, _), data)| {
        (name, TensorView::new(dtype_of(*dtype), shape.clone(), data).unwrap())
    });
    let metadata = (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect());
    safetensors::serialize(views, metadata as Option<HashMap<_, _>>).unwrap()
}

#[test]
fn files_equal_those_of_the_reference_crate_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    for metadata in [BTreeMap::new(), pt()] {
        for tensors in [sample(), vec![]] {
            write(&path, &metadata, &tensors);
            assert_eq!(fs::read(&path).unwrap(), reference_bytes(&metadata, &tensors));
        }
    }
}

#[test]
fn the_reference_crates_files_are_read_bit_for_bit() {
    let mut file = SafetensorsFile::from_bytes(reference_bytes(&pt(), &sample())).unwrap();
    assert_eq!(file.tensors().len(), sample().len());
    assert_eq!(*file.metadata(), pt());
    for (name, dtype, shape, values) in sample() {
        let tensor = file.get(&name).unwrap();
        assert_eq!((tensor.dtype, &tensor.shape), (dtype, &shape));
        assert_eq!(bits(&file.read_f32(&name).unwrap()), bits(&values), "{name}");
    }
}

#[test]
fn large_tensors_pass_through_every_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let values: Vec<f32> = (0..200_003).map(|i| (i as f32).sin()).collect();
    for dtype in [Dtype::F32, Dtype::F64] {
        let tensors = vec![
            ("x".to_string(), dtype, vec![values.len()], values.clone()),
            ("y".to_string(), dtype, vec![1], vec![7.0]),
        ];
        write(&path, &pt(), &tensors);
        let mut file = SafetensorsFile::open(&path).unwrap();
        assert_eq!(file.file_bytes(), fs::metadata(&path).unwrap().len());
        assert_eq!(bits(&file.read_f32("x").unwrap()), bits(&values));
        assert_eq!(file.read_f32("y").unwrap(), [7.0]);
    }
}

#[test]
fn reading_faults_name_file_and_tensor() {
    let bytes = reference_bytes(&pt(), &sample());
    let mut file = SafetensorsFile::from_bytes(bytes).unwrap();
    let error = file.read_f32("nothing").unwrap_err();
    assert_eq!(error.to_string(), "`memory` cannot be used");
    assert_eq!(error.source().unwrap().to_string(), "there is no tensor `nothing`");

    let data = 5u64.to_le_bytes();
    let view = TensorView::new(safetensors::Dtype::U64, vec![1], &data).unwrap();
    let bytes = safetensors::serialize([("step", view)], None).unwrap();
    let mut file = SafetensorsFile::from_bytes(bytes).unwrap();
    assert_eq!(
        file.read_f32("step").unwrap_err().source().unwrap().to_string(),
        "tensor `step` has dtype U64, expected F32, F16, BF16 or F64"
    );

    let error = SafetensorsFile::from_bytes(vec![1, 2, 3]).unwrap_err();
    assert_eq!(
        error.source().unwrap().to_string(),
        "safetensors: the file has 3 bytes, expected at least 8"
    );
    let folder = tempfile::tempdir().unwrap();
    let error = SafetensorsFile::open(folder.path()).unwrap_err();
    assert_eq!(error.to_string(), format!("`{}` is not a regular file", folder.path().display()));
    let missing = folder.path().join("no.safetensors");
    let error = SafetensorsFile::open(&missing).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot open `{}`", missing.display()));
    assert!(error.is_io());
}

#[test]
fn a_file_cut_after_it_was_opened_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    write(&path, &pt(), &vec![("x".into(), Dtype::F32, vec![1000], vec![1.0; 1000])]);
    let mut file = SafetensorsFile::open(&path).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(200).unwrap();
    let error = file.read_f32("x").unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read `{}`", path.display()));
}

#[test]
fn writing_faults_leave_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    write(&path, &pt(), &sample());
    let old = fs::read(&path).unwrap();
    let tensor = |name: &str, dtype, shape: &[usize]| TensorToWrite {
        name: name.into(),
        dtype,
        shape: shape.to_vec(),
    };
    let attempt = |tensors: &[TensorToWrite], values: &[f32]| {
        let error = write_safetensors(&path, &pt(), tensors, |_| Ok(values.to_vec())).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), old);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        error.source().unwrap().to_string()
    };
    let f32 = Dtype::F32;
    assert_eq!(
        attempt(&[tensor("x", f32, &[2])], &[1.0]),
        "tensor `x` was given 1 values, expected 2"
    );
    assert_eq!(
        attempt(&[tensor("x", f32, &[1]), tensor("x", f32, &[1])], &[1.0]),
        "tensor `x` occurs more than once"
    );
    assert_eq!(
        attempt(&[tensor("__metadata__", f32, &[1])], &[1.0]),
        "tensor `__metadata__` occurs more than once"
    );
    assert_eq!(
        attempt(&[tensor("x", Dtype::I64, &[1])], &[1.0]),
        "tensor `x` has dtype I64, expected F32, F16, BF16 or F64"
    );
    assert_eq!(
        attempt(&[tensor("x", f32, &[usize::MAX, 2])], &[1.0]),
        format!("safetensors: tensor `x` has a shape [{}, 2] too large to count", usize::MAX)
    );
    let error = write_safetensors(&path, &pt(), &[tensor("x", f32, &[1])], |_| {
        Err(WeightsError::NoSuchTensor { name: "x".into() })
    });
    assert!(error.is_err());
    assert_eq!(fs::read(&path).unwrap(), old);
}

/// Loads everything there is; an error is as good as a success, a panic or an abort is not.
/// Where ours accepts a file, the reference must accept it too and see the same tensors.
fn load_all(bytes: &[u8]) -> bool {
    let Ok(mut file) = SafetensorsFile::from_bytes(bytes.to_vec()) else { return false };
    let reference = SafeTensors::deserialize(bytes).expect("ours is the stricter reader");
    assert_eq!(file.tensors().len(), reference.len());
    for tensor in file.tensors().to_vec() {
        let view = reference.tensor(&tensor.name).unwrap();
        assert_eq!(view.shape(), tensor.shape);
        assert_eq!(view.data().len() as u64, tensor.bytes);
        if let Ok(values) = file.read_f32(&tensor.name) {
            assert_eq!(values.len(), tensor.len());
        }
    }
    true
}

#[test]
fn forty_thousand_damaged_files_are_refused_or_read() {
    let good = reference_bytes(&pt(), &sample());
    assert!(load_all(&good));
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut read, mut refused) = (0, 0);
    for round in 0..40_000 {
        let mut bytes = good.clone();
        for _ in 0..=draw(3) {
            if bytes.is_empty() {
                break;
            }
            // Most damage goes to the header, where the decisions are taken.
            let place =
                if round % 4 == 0 { draw(bytes.len()) } else { draw(header.min(bytes.len())) };
            match draw(7) {
                0 => bytes[place] = draw(256) as u8,
                1 => bytes[place] ^= 1 << draw(8),
                2 => bytes.truncate(place),
                3 => drop(bytes.remove(place)),
                4 => bytes.insert(place, b"0123456789,:[]{}\"-e. "[draw(21)]),
                5 => bytes[place] = b"0123456789,:[]{}\"-e. "[draw(21)],
                _ => {
                    let from = draw(bytes.len());
                    let piece: Vec<u8> = bytes[from..].iter().copied().take(draw(40)).collect();
                    bytes.splice(place..place, piece);
                }
            }
        }
        match load_all(&bytes) {
            true => read += 1,
            false => refused += 1,
        }
    }
    // Both outcomes occur, so the damage is neither always nor never fatal.
    assert!(read > 500 && refused > 20_000, "read {read}, refused {refused}");
}

#[test]
fn one_flipped_byte_in_the_lengths_is_always_refused() {
    let good = reference_bytes(&pt(), &sample());
    for place in 0..8 {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[place] ^= 1 << bit;
            assert!(!load_all(&bytes), "byte {place}, bit {bit}");
        }
    }
    for length in 0..good.len() {
        assert!(!load_all(&good[..length]), "cut at {length}");
    }
}

#[test]
fn a_polyglot_with_bytes_at_the_end_is_refused() {
    let mut bytes = reference_bytes(&pt(), &sample());
    bytes.extend_from_slice(b"PK\x03\x04 an archive hidden behind the weights");
    let error = SafetensorsFile::from_bytes(bytes).unwrap_err();
    assert!(matches!(
        error,
        WeightsError::File { source, .. } if matches!(*source, WeightsError::Coverage { .. })
    ));
}

fn any_tensors() -> impl Strategy<Value = Tensors> {
    let dtype = prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64]);
    let shape = prop::collection::vec(0usize..5, 0..=4);
    let row = (any::<String>(), dtype, shape, any::<u32>());
    prop::collection::vec(row, 0..8).prop_map(|rows| {
        let mut tensors: Tensors = Vec::new();
        for (name, dtype, shape, seed) in rows {
            if name == "__metadata__" || tensors.iter().any(|row| row.0 == name) {
                continue;
            }
            let count = shape.iter().product();
            let mut values = Vec::new();
            for i in 0..count {
                let bits = seed.wrapping_mul(2_654_435_761).wrapping_add(40_503 * i as u32);
                // Numbers every type can hold exactly.
                values.push(match dtype {
                    Dtype::F32 | Dtype::F64 => f32::from_bits(bits & 0xff7f_ffff),
                    Dtype::BF16 => f32::from_bits(bits & 0xff7f_0000),
                    _ => f32::from((bits % 4096) as u16) - 2048.0,
                });
            }
            tensors.push((name, dtype, shape, values));
        }
        tensors
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_written_is_read_and_equals_the_reference(
        tensors in any_tensors(),
        metadata in prop::collection::btree_map(any::<String>(), any::<String>(), 0..=1),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&path, &metadata, &tensors);
        let written = fs::read(&path).unwrap();
        prop_assert_eq!(&written, &reference_bytes(&metadata, &tensors));
        let mut file = SafetensorsFile::open(&path).unwrap();
        prop_assert_eq!(file.metadata(), &metadata);
        prop_assert_eq!(file.tensors().len(), tensors.len());
        for (name, dtype, shape, values) in &tensors {
            let tensor = file.get(name).unwrap();
            prop_assert_eq!(tensor.dtype, *dtype);
            prop_assert_eq!(&tensor.shape, shape);
            prop_assert_eq!(bits(&file.read_f32(name).unwrap()), bits(values));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        load_all(&bytes);
    }

    #[test]
    fn any_text_as_header_is_read_or_refused(text in "[{}\\[\\]\":,a-z0-9_]{0,120}", data in 0usize..40) {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        load_all(&bytes);
    }
}

#[test]
fn the_most_expensive_headers_are_refused() {
    let limit = 16 << 20;
    let file = |header: String| {
        assert!(header.len() <= limit);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.into_bytes());
        bytes
    };
    let fill = |start: &str, piece: &str, end: &str| {
        let count = (limit - start.len() - end.len()) / piece.len();
        file(format!("{start}{}{end}", piece.repeat(count)))
    };
    let shape_end = "0],\"data_offsets\":[0,0]}}";
    let files = [
        fill("{\"x\":{\"dtype\":\"F32\",\"shape\":[", "0,", shape_end),
        fill("{\"x\":", "[", ""),
        fill("{\"", "x", "\":{\"dtype\":\"F33\",\"shape\":[],\"data_offsets\":[0,0]}}"),
        fill("{\"__metadata__\":{", "\"\":\"\",", "\"\":\"\"}}"),
        fill("{", "\"\":{\"dtype\":\"\",\"shape\":[],\"data_offsets\":[0,0]},", "\"\":{}}"),
        fill(
            "{",
            "\"\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},",
            "\"x\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}",
        ),
    ];
    for bytes in files {
        assert!(SafetensorsFile::from_bytes(bytes).is_err());
    }
}
