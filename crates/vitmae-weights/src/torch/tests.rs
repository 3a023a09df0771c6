use std::error::Error;
use std::io::Write;
use std::time::{Duration, Instant};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;
use crate::dtype::Dtype;
use crate::mutation;
use crate::safetensors_writer::TensorToWrite;

const GLOBAL_TENSOR: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n";

/// An archive of these entries.
fn archive(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut out = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in entries {
        out.start_file(*name, options).unwrap();
        out.write_all(bytes).unwrap();
    }
    out.finish().unwrap().into_inner()
}

/// An archive with a program and a storage of six f32 values.
fn with_program(program: &[u8]) -> Vec<u8> {
    let values: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let entries = [("a/data.pkl", program), ("a/data/0", &values[..])];
    archive(&entries, CompressionMethod::Stored)
}

/// The program of `{"w": tensor}` with a storage of `len` values of `class`, offset, shape and strides.
fn program(class: &str, len: u8, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let tuple = |values: &[u8]| {
        let mut out = vec![b'('];
        values.iter().for_each(|&value| out.extend([b'K', value]));
        out.push(b't');
        out
    };
    [
        b"\x80\x02}U\x01w".to_vec(),
        GLOBAL_TENSOR.to_vec(),
        format!("((U\x07storagectorch\n{class}\nU\x010U\x03cpuK").into_bytes(),
        vec![len, b't', b'Q', b'K', offset],
        tuple(shape),
        tuple(strides),
        b"\x89}tRs.".to_vec(),
    ]
    .concat()
}

fn open(bytes: Vec<u8>) -> Result<TorchFile, WeightsError> {
    TorchFile::from_bytes(bytes)
}

fn fault(program: &[u8]) -> String {
    open(with_program(program)).unwrap_err().to_string()
}

fn values(file: &mut TorchFile) -> Vec<f32> {
    let mut values = Vec::new();
    file.append_f32(0, &mut values).unwrap();
    values
}

#[test]
fn what_is_written_is_read_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pth");
    let shapes: [&[usize]; 4] = [&[2, 3], &[], &[0, 4], &[300, 300]];
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64] {
        for key in [None, Some("model")] {
            let name = |i: usize| format!("tensor.{i}");
            let tensors: Vec<_> = (0..shapes.len())
                .map(|i| TensorToWrite { name: name(i), dtype, shape: shapes[i].to_vec() })
                .collect();
            let of = |i: usize| -> Vec<f32> {
                (0..shapes[i].iter().product()).map(|k| ((k % 251) as f32) - i as f32).collect()
            };
            let index = |tensor: &TensorToWrite| {
                tensors.iter().position(|other| other == tensor).unwrap_or_default()
            };
            write_torch(&path, key, &tensors, |tensor| Ok(of(index(tensor)))).unwrap();
            let first = std::fs::read(&path).unwrap();
            write_torch(&path, key, &tensors, |tensor| Ok(of(index(tensor)))).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), first, "the same file each time");
            let mut file = TorchFile::open(&path).unwrap();
            assert_eq!(file.tensors().len(), shapes.len());
            for (i, shape) in shapes.into_iter().enumerate() {
                let info = &file.tensors()[i];
                assert_eq!((&info.name, &info.shape[..], info.dtype), (&name(i), shape, dtype));
                let mut found = Vec::new();
                file.append_f32(i, &mut found).unwrap();
                assert_eq!(found, of(i));
            }
        }
    }
}

#[test]
fn views_of_a_storage_are_read_by_their_strides() {
    let read = |offset, shape: &[u8], strides: &[u8]| {
        let bytes = with_program(&program("FloatStorage", 6, offset, shape, strides));
        values(&mut open(bytes).unwrap())
    };
    assert_eq!(read(0, &[2, 3], &[3, 1]), [0., 1., 2., 3., 4., 5.]);
    assert_eq!(read(0, &[3, 2], &[1, 3]), [0., 3., 1., 4., 2., 5.]);
    assert_eq!(read(1, &[2], &[4]), [1., 5.]);
    assert_eq!(read(2, &[3], &[0]), [2., 2., 2.]);
    assert_eq!(read(6, &[0], &[1]), [0.0f32; 0]);
}

#[test]
fn tensors_beyond_their_storage_are_refused() {
    let fault = |len, offset, shape: &[u8], strides: &[u8]| {
        fault(&program("FloatStorage", len, offset, shape, strides))
    };
    assert_eq!(
        fault(6, 1, &[2, 3], &[3, 1]),
        "torch: tensor `w` of shape [2, 3] with strides [3, 1] from 1 on reaches beyond its storage of 6 values"
    );
    // A view with more values than its storage would be a bomb.
    let bomb = fault(6, 0, &[255, 255, 255], &[0, 0, 0]);
    assert!(bomb.contains("reaches beyond its storage"), "{bomb}");
    assert_eq!(fault(7, 0, &[1], &[1]), "torch: the entry `a/data/0` has 24 bytes, expected 28");
    let missing = archive(
        &[("a/data.pkl", &program("FloatStorage", 6, 0, &[1], &[1]))],
        CompressionMethod::Stored,
    );
    assert_eq!(
        open(missing).unwrap_err().to_string(),
        "torch: tensor `w` lies in the entry `a/data/0`, which the archive does not have"
    );
}

#[test]
fn storages_that_overlap_are_refused() {
    let item = |name: u8, storage: u8| {
        let whole = program("FloatStorage", 6, 0, &[6], &[1]);
        let mut item = whole[3..whole.len() - 1].to_vec();
        item[2] = name;
        let key = item.windows(4).position(|window| window == b"U\x010U").unwrap();
        item[key + 2] = storage;
        item
    };
    let program = [b"\x80\x02}", &item(b'v', b'0')[..], &item(b'w', b'1'), b"."].concat();
    let values: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let entries = [("a/data.pkl", &program[..]), ("a/data/0", &values), ("a/data/1", &values)];
    let mut bytes = archive(&entries, CompressionMethod::Stored);
    assert_eq!(open(bytes.clone()).unwrap().tensors().len(), 2);
    // The list says of each entry where its bytes begin, 42 bytes after its own begin: the second at the first's.
    let listed: Vec<usize> =
        (0..bytes.len() - 4).filter(|&at| bytes[at..].starts_with(b"PK\x01\x02")).collect();
    bytes.copy_within(listed[1] + 42..listed[1] + 46, listed[2] + 42);
    let text = open(bytes).unwrap_err().to_string();
    let start = "torch: the entry `a/data/1` starts at byte ";
    let middle = ", before the end of `a/data/0` at ";
    assert!(text.starts_with(start) && text.contains(middle), "{text}");
    assert!(text.ends_with("\nhelp: storages overlap"), "{text}");
}

#[test]
fn whole_numbers_are_listed_and_not_read() {
    let bytes = with_program(&program("IntStorage", 6, 0, &[6], &[1]));
    let mut file = open(bytes).unwrap();
    let error = file.append_f32(0, &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "tensor `w` has dtype I32, expected F32, F16, BF16 or F64");
    let text = fault(&program("OddStorage", 6, 0, &[6], &[1]));
    assert!(text.starts_with("torch: the pickle names `torch.OddStorage`"), "{text}");
}

#[test]
fn a_name_twice_is_refused() {
    let item = |name: &[u8], value: u8| {
        let whole = program("FloatStorage", 6, value, &[1], &[1]);
        [b"U".as_slice(), &[name.len() as u8], name, &whole[6..whole.len() - 1]].concat()
    };
    let program = [b"\x80\x02}", &item(b"w", 1)[..], &item(b"w", 2), b"."].concat();
    assert_eq!(fault(&program), "tensor `w` occurs more than once");
}

#[test]
fn nothing_is_executed_whatever_the_program_names() {
    for (module, name) in
        [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("posix", "x")]
    {
        let program = format!("\x02c{module}\n{name}\n(U\x02lstR.");
        let program = [b"\x80".to_vec(), program.into_bytes()].concat();
        assert_eq!(
            fault(&program),
            format!(
                "torch: the pickle names `{module}.{name}`, which no checkpoint of tensors needs; nothing was \
                 executed\nhelp: save the model's `state_dict()` alone, or do not trust the file"
            )
        );
    }
    let stacked = b"\x80\x04\x8c\x02os\x8c\x06system\x93.";
    assert!(fault(stacked).contains("`os.system`"));
}

#[test]
fn a_namespace_is_data_and_its_simple_values_are_kept() {
    // {"args": Namespace(lr=0.5, norm_pix_loss=True, name="x"), "epoch": 3, "model": {"w": …}}
    let inner = program("FloatStorage", 6, 0, &[6], &[1]);
    let inner = &inner[2..inner.len() - 1];
    let program = [
        b"\x80\x02}(U\x04argscargparse\nNamespace\n)\x81}(U\x02lrG\x3f\xe0\0\0\0\0\0\0".as_slice(),
        b"U\rnorm_pix_loss\x88U\x04nameU\x01xubU\x05epochK\x03U\x05model",
        inner,
        b"u.",
    ]
    .concat();
    let mut file = open(with_program(&program)).unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata["args.lr"], "0.5");
    assert_eq!(metadata["args.norm_pix_loss"], "true");
    assert_eq!(metadata["args.name"], "x");
    assert_eq!(metadata["epoch"], "3");
    assert_eq!(values(&mut file), [0., 1., 2., 3., 4., 5.]);
}

#[test]
fn a_bomb_of_shared_values_costs_nothing() {
    // x = []; thirty times x = [x, x, …]: 2^60 members if they were copied.
    let mut program = b"\x80\x02]".to_vec();
    for slot in 0..30u8 {
        program.extend([b'q', slot, b'(']);
        program.extend([b'h', slot].repeat(4));
        program.push(b'l');
    }
    program.push(b'.');
    let start = Instant::now();
    let text = fault(&program);
    assert!(text.starts_with("torch: the file holds a list, expected a dictionary"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn budgets_end_programs_without_an_end() {
    let marks = [b"\x80\x02".to_vec(), b"(".repeat(65), b".".to_vec()].concat();
    assert_eq!(fault(&marks), "torch: the file has 65 open marks, expected at most 64");
    let many = [b"\x80\x02".to_vec(), b"N0".repeat(1_000_001), b".".to_vec()].concat();
    assert_eq!(
        fault(&many),
        "torch: the file has 1000001 pickled values, expected at most 1000000"
    );
    let slot = [b"\x80\x02Nr\xff\xff\xff\xff.".to_vec()].concat();
    assert_eq!(fault(&slot), "torch: the pickle's instruction 0x72 at byte 3 expects a value");
}

#[test]
fn every_prefix_of_a_program_is_an_error() {
    let whole = program("FloatStorage", 6, 0, &[2, 3], &[3, 1]);
    assert!(open(with_program(&whole)).is_ok());
    for end in 0..whole.len() {
        assert!(open(with_program(&whole[..end])).is_err(), "{end} bytes");
    }
    assert_eq!(
        fault(&whole[..3]),
        "torch: the pickle ends at byte 3 in the middle of an instruction"
    );
    assert_eq!(
        fault(b"\x80\x02\xff."),
        "torch: the pickle has instruction 0xff at byte 2, which is not read"
    );
}

#[test]
fn archives_of_other_kinds_are_told_apart() {
    let text = |bytes: Vec<u8>| open(bytes).unwrap_err().to_string();
    assert!(text(b"\x80\x02\x8a\x0al\xfc\x9cF".to_vec()).contains("before PyTorch 1.6"));
    assert!(text(Vec::new()).contains("not an archive"));
    let stored = CompressionMethod::Stored;
    let script = archive(&[("a/data.pkl", b"."), ("a/constants.pkl", b".")], stored);
    assert!(text(script).contains("TorchScript"));
    assert!(text(archive(&[("a/b", b"")], stored)).contains("no `data.pkl`"));
    let big = [("a/data.pkl", &b"\x80\x02N."[..]), ("a/byteorder", b"big")];
    assert_eq!(text(archive(&big, stored)), "torch: the byte order is `big`, expected `little`");
    assert!(fault(b"\x80\x02}.").contains("a dictionary without tensors"));
    assert!(fault(b"\x80\x02K\x01.").contains("a simple value"));
}

#[test]
fn a_flipped_byte_in_a_storage_is_noticed() {
    let mut bytes = with_program(&program("FloatStorage", 6, 0, &[6], &[1]));
    let place = bytes.windows(4).position(|w| w == 3f32.to_le_bytes()).unwrap();
    bytes[place] ^= 1;
    let mut file = open(bytes).unwrap();
    let error = file.append_f32(0, &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "torch: the entry `a/data/0` cannot be read");
    assert!(error.source().unwrap().to_string().to_lowercase().contains("checksum"), "{error:?}");
}

#[test]
fn mutated_archives_never_panic_and_end_soon() {
    let whole = with_program(&program("FloatStorage", 6, 0, &[2, 3], &[3, 1]));
    let good = mutation::each(&whole, |bytes| {
        open(bytes).is_ok_and(|mut file| {
            (0..file.tensors().len()).all(|index| file.append_f32(index, &mut Vec::new()).is_ok())
        })
    });
    assert!(good > 0, "dates of entries may change");
}
