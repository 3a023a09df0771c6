//! One fault in a sound model, in every container: the same words wherever the fault is the same.
#![allow(clippy::unwrap_used, reason = "a test may panic, also in its helpers")]

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use vitmae_tensor::Device;
use vitmae_weights::{
    Dtype, LoadOptions, TensorToWrite, WeightsError, WeightsFile, from_pretrained, write_hdf5,
    write_safetensors, write_torch,
};

/// A tensor with its values.
#[derive(Clone)]
struct Filled {
    tensor: TensorToWrite,
    values: Vec<f32>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Safetensors,
    Shards,
    Torch,
    Hdf5,
}

const KINDS: [Kind; 4] = [Kind::Safetensors, Kind::Shards, Kind::Torch, Kind::Hdf5];

/// A sound model of the fixtures in its own names, and a folder for spoiled copies.
struct Model {
    folder: tempfile::TempDir,
    kind: Kind,
    tensors: Vec<Filled>,
}

impl Model {
    fn new(kind: Kind) -> Self {
        let parity = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/parity");
        // Two cases of the same sizes.
        let source = match kind {
            Kind::Hdf5 => parity.join("pretraining-tf-h5-norm-pix/tf_model.h5"),
            _ => parity.join("pretraining-narrow-norm-pix/model.safetensors"),
        };
        let folder = tempfile::tempdir().unwrap();
        let config = source.with_file_name("config.json");
        fs::copy(config, folder.path().join("config.json")).unwrap();
        let mut file = WeightsFile::open(&source).unwrap();
        let infos = file.tensors().to_vec();
        let fill = |info: &vitmae_weights::TensorInfo| Filled {
            tensor: TensorToWrite {
                name: info.name.clone(),
                dtype: Dtype::F32,
                shape: info.shape.clone(),
            },
            values: file.read_f32(&info.name).unwrap(),
        };
        let tensors = infos.iter().map(fill).collect();
        Self { folder, kind, tensors }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(match self.kind {
            Kind::Safetensors => "model.safetensors",
            Kind::Shards => "model.safetensors.index.json",
            Kind::Torch => "pytorch_model.bin",
            Kind::Hdf5 => "tf_model.h5",
        })
    }

    fn write(&self, tensors: &[Filled]) {
        let path = self.path();
        let listed: Vec<_> = tensors.iter().map(|filled| filled.tensor.clone()).collect();
        let by_name: HashMap<_, _> =
            tensors.iter().map(|filled| (&filled.tensor.name, &filled.values)).collect();
        let values = |t: &TensorToWrite| Ok::<_, WeightsError>(by_name[&t.name].clone());
        match self.kind {
            Kind::Safetensors => write_safetensors(&path, &BTreeMap::new(), &listed, values),
            Kind::Torch => write_torch(&path, None, &listed, values),
            Kind::Hdf5 => write_hdf5(&path, &listed, values),
            Kind::Shards => {
                let mut map = BTreeMap::new();
                let half = listed.len() / 2;
                for (name, part) in [("1", &listed[..half]), ("2", &listed[half..])] {
                    let shard = format!("{name}.safetensors");
                    let to = path.with_file_name(&shard);
                    write_safetensors(&to, &BTreeMap::new(), part, values).unwrap();
                    map.extend(part.iter().map(|tensor| (tensor.name.clone(), shard.clone())));
                }
                let map = serde_json::to_string(&map).unwrap();
                fs::write(&path, format!("{{\"metadata\": {{}}, \"weight_map\": {map}}}")).unwrap();
                Ok(())
            }
        }
        .unwrap();
    }

    /// What loading the folder says.
    fn fault(&self) -> String {
        let loaded = from_pretrained(self.folder.path(), &Device::cpu(), &LoadOptions::default())
            .map(|_| ());
        chain(&loaded.unwrap_err())
    }

    /// What loading says of the tensors that `spoil` leaves.
    fn spoiled(&self, spoil: impl FnOnce(&mut Vec<Filled>)) -> String {
        let mut tensors = self.tensors.clone();
        spoil(&mut tensors);
        self.write(&tensors);
        self.fault()
    }

    /// Our tensors of the two names that the tests spoil.
    fn names(&self) -> [&'static str; 2] {
        match self.kind {
            Kind::Hdf5 => ["vit/layernorm/gamma:0", "decoder/mask_token:0"],
            _ => ["vit.layernorm.weight", "decoder.mask_token"],
        }
    }
}

/// An error and its causes.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

#[test]
fn sound_models_load() {
    for kind in KINDS {
        let model = Model::new(kind);
        model.write(&model.tensors);
        from_pretrained(model.folder.path(), &Device::cpu(), &LoadOptions::default()).unwrap();
    }
}

#[test]
fn missing_tensors() {
    for kind in KINDS {
        let model = Model::new(kind);
        let [norm, token] = model.names();
        let fault = model.spoiled(|tensors| {
            tensors.retain(|filled| filled.tensor.name != norm && filled.tensor.name != token);
        });
        assert_eq!(
            fault,
            format!(
                "`{}` cannot be used: the tensors do not fit the config: 2 missing, 0 unexpected, 0 misshapen\n  \
                 missing `{norm}` [24]\n  missing `{token}` [1, 1, 16]\nhelp: the file is incomplete or belongs to \
                 another model; `inspect` shows what it holds",
                model.path().display()
            ),
            "{kind:?}"
        );
    }
}

#[test]
fn tensors_of_another_shape_or_without_a_place() {
    for kind in KINDS {
        let model = Model::new(kind);
        let [norm, token] = model.names();
        let fault = model.spoiled(|tensors| {
            let place = tensors.iter().position(|filled| filled.tensor.name == token).unwrap();
            tensors[place].tensor.shape = vec![1, 16, 1];
        });
        assert_eq!(
            fault,
            format!(
                "`{}` cannot be used: the tensors do not fit the config: 0 missing, 0 unexpected, 1 misshapen\n  \
                 misshapen `{token}`: found [1, 16, 1], expected [1, 1, 16]\nhelp: `decoder_hidden_size` is 1 in the \
                 weights and 16 in the config; use the `config.json` that belongs to these weights",
                model.path().display()
            ),
            "{kind:?}"
        );
        let other = norm.replace("layernorm", "other");
        let fault = model.spoiled(|tensors| {
            let place = tensors.iter().position(|filled| filled.tensor.name == norm).unwrap();
            let mut more = tensors[place].clone();
            more.tensor.name = other.clone();
            tensors.push(more);
        });
        assert_eq!(
            fault,
            format!(
                "`{}` cannot be used: the tensors do not fit the config: 0 missing, 1 unexpected, 0 misshapen\n  \
                 unexpected `{other}` [24]\nhelp: the model has no place for these tensors; allow them by pattern to \
                 leave them out",
                model.path().display()
            ),
            "{kind:?}"
        );
    }
}

/// Replaces the only place of `from` in a file by `to`, of the same length.
fn patch(path: &Path, from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(path).unwrap();
    let places: Vec<_> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert_eq!(places.len(), 1, "{}", String::from_utf8_lossy(from));
    bytes[places[0]..places[0] + to.len()].copy_from_slice(to);
    fs::write(path, bytes).unwrap();
}

#[test]
fn tensors_of_whole_numbers() {
    for (kind, file) in [(Kind::Safetensors, "model.safetensors"), (Kind::Shards, "2.safetensors")]
    {
        let model = Model::new(kind);
        // The last, so that it is in the last shard.
        let last = model.tensors.last().unwrap().tensor.name.clone();
        model.write(&model.tensors);
        let path = model.folder.path().join(file);
        let entry = |dtype: &str| format!("\"{last}\":{{\"dtype\":\"{dtype}\"").into_bytes();
        patch(&path, &entry("F32"), &entry("I32"));
        let fault = model.fault();
        let end = format!("tensor `{last}` has dtype I32, expected F32, F16, BF16 or F64");
        assert_eq!(fault, format!("`{}` cannot be used: {end}", path.display()));
    }
}

#[test]
fn a_name_twice() {
    let model = Model::new(Kind::Safetensors);
    model.write(&model.tensors);
    patch(&model.path(), b"\"decoder.decoder_norm.bias\"", b"\"decoder.decoder_pred.bias\"");
    assert_eq!(
        model.fault(),
        format!(
            "`{}` cannot be used: tensor `decoder.decoder_pred.bias` occurs more than once",
            model.path().display()
        )
    );
}

#[test]
fn files_that_end_early_or_late() {
    for kind in KINDS {
        let model = Model::new(kind);
        model.write(&model.tensors);
        let path = match kind {
            Kind::Shards => model.folder.path().join("2.safetensors"),
            _ => model.path(),
        };
        let whole = fs::read(&path).unwrap();
        let fault = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let fault = model.fault();
            let start = format!("`{}` cannot be used: ", path.display());
            fault.strip_prefix(&start).unwrap_or_else(|| panic!("{kind:?}: {fault}")).to_owned()
        };
        let cut = fault(&whole[..whole.len() - 100]);
        match kind {
            Kind::Safetensors | Kind::Shards => {
                let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
                let covered = whole.len() - header;
                assert_eq!(
                    cut,
                    format!(
                        "safetensors: the tensors cover {covered} bytes, but {} bytes follow the header\nhelp: the file is \
                         truncated; fetch or copy it again",
                        covered - 100
                    )
                );
                let longer = fault(&[&whole[..], &[0; 7]].concat());
                assert!(longer.contains(&format!("but {} bytes follow", covered + 7)), "{longer}");
                let zeros = vec![b' '; 18 << 20];
                let large = fault(&[&(17u64 << 20).to_le_bytes()[..], &zeros].concat());
                assert_eq!(
                    large,
                    "safetensors: the header claims 17825792 bytes, expected at most 16777216"
                );
            }
            Kind::Torch => assert_eq!(
                cut,
                "torch: the archive is broken: invalid Zip archive: Could not find EOCD"
            ),
            Kind::Hdf5 => {
                assert!(cut.starts_with("hdf5: "), "{cut}");
                // Told once, though the reader's error has causes of its own.
                let last = cut.rsplit(": ").next().unwrap();
                assert_eq!(cut.matches(last).count(), 1, "{cut}");
            }
        }
    }
}

#[test]
fn indices_that_are_none() {
    let model = Model::new(Kind::Shards);
    model.write(&model.tensors);
    let path = model.path();
    let fault = |text: &str| {
        fs::write(&path, text).unwrap();
        let fault = model.fault();
        let start = format!("`{}` cannot be used: shards: ", path.display());
        fault.strip_prefix(&start).unwrap_or_else(|| panic!("{fault}")).to_owned()
    };
    for (text, expected) in [
        (
            "{",
            "the index is not what transformers writes: EOF while parsing an object at line 1 column 1",
        ),
        (
            "{}",
            "the index is not what transformers writes: missing field `weight_map` at line 1 column 2",
        ),
        (
            "{\"weight_map\": {\"a\": 1}}",
            "the index is not what transformers writes: invalid type: integer `1`, expected a string at line 1 column 22",
        ),
        (
            "{\"weight_map\": {\"a\": \"../1.safetensors\"}}",
            "the index names `../1.safetensors`, expected the name of a file beside it",
        ),
        ("{\"weight_map\": {\"a\": \"1.safetensors\"}}", "`1.safetensors` holds tensor `"),
    ] {
        let found = fault(text);
        assert!(found.starts_with(expected), "{found}");
    }
    fs::write(&path, "{\"weight_map\": {\"a\": \"3.safetensors\"}}").unwrap();
    let missing = path.with_file_name("3.safetensors");
    let start = format!("cannot open `{}`: ", missing.display());
    assert!(model.fault().starts_with(&start), "{}", model.fault());
}
