//! What a file from a stranger may cost: one function a format, called by the fuzz targets in `fuzz/` and by
//! `tests/tests/hostile.rs`, so that both try the same thing.
//!
//! A reader may refuse or accept; it may not panic, take a second, or hold much more memory than the file has bytes.

// With their paths, since `fuzz/src/lib.rs` includes this file from another folder.
#[path = "hostile/archive.rs"]
pub mod archive;
#[path = "hostile/memory.rs"]
pub mod memory;
#[path = "hostile/mutation.rs"]
pub mod mutation;
#[path = "hostile/sets.rs"]
pub mod sets;

use std::time::{Duration, Instant};

use vitmae_image::VitImageProcessor;
use vitmae_model::VitMaeConfig;
use vitmae_weights::weights_file::shards_of_index;
use vitmae_weights::{Layout, WeightsFile};

/// Bytes that reading may take beside the file and the values of one tensor.
pub const SPARE_BYTES: usize = 256 << 20;
/// Bytes that a set may take beside its file: those that one image may by its limits, and what its decoder needs.
const SET_BYTES: usize = 640 << 20;
/// How long one file of a corpus may take, on a machine that does other things too.
pub const LONGEST: Duration = Duration::from_secs(1);

/// A format: its name, which is that of its fuzz target and its folder of seeds, and what is tried.
pub struct Target {
    /// `safetensors`, `torch`…
    pub name: &'static str,
    /// Reads what it can and tells whether anything was accepted.
    pub read: fn(&[u8]) -> bool,
    /// Bytes that it may take beside the file.
    pub spare: usize,
}

/// Every format that is read from a file of a stranger, pictures aside (`crates/vitmae-image/tests/damage.rs`).
pub const TARGETS: &[Target] = &[
    Target { name: "safetensors", read: weights, spare: SPARE_BYTES },
    Target { name: "shards", read: shards, spare: SPARE_BYTES },
    Target { name: "torch", read: weights, spare: SPARE_BYTES },
    Target { name: "pickle", read: pickle, spare: SPARE_BYTES },
    Target { name: "hdf5", read: weights, spare: SPARE_BYTES },
    Target { name: "config", read: config, spare: SPARE_BYTES },
    Target { name: "processor", read: processor, spare: SPARE_BYTES },
    Target { name: "tar", read: sets::tar, spare: SET_BYTES },
    Target { name: "idx", read: sets::idx, spare: SET_BYTES },
    Target { name: "idx-gz", read: sets::idx_gz, spare: SET_BYTES },
    Target { name: "cifar", read: sets::cifar, spare: SET_BYTES },
    Target { name: "packed", read: sets::packed, spare: SET_BYTES },
];

/// Reads `bytes` as `target`, and panics if that takes too long or too much memory. Memory is known only to a program
/// whose allocator is [`memory::Counting`].
///
/// A machine may stop a program for seconds. Reading is the same work each time, so that the fastest of three counts.
pub fn check(target: &Target, bytes: &[u8]) -> bool {
    let name = target.name;
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        let (accepted, peak) = memory::peak_of(|| (target.read)(bytes));
        fastest = fastest.min(start.elapsed());
        // The file itself is held in memory here, which counts once more.
        let limit = 2 * bytes.len() + target.spare;
        assert!(peak <= limit, "{name}: {} bytes of file took {peak} of memory", bytes.len());
        if fastest < LONGEST {
            return accepted;
        }
    }
    panic!("{name}: {} bytes took {fastest:?}", bytes.len());
}

/// A file of weights in any container, every tensor of it.
fn weights(bytes: &[u8]) -> bool {
    let Ok(mut file) = WeightsFile::from_bytes(bytes.to_vec()) else { return false };
    let tensors = file.tensors().to_vec();
    let _ = Layout::detect(tensors.iter().map(|tensor| tensor.name.as_str()));
    let mut whole = true;
    for tensor in &tensors {
        match file.read_f32(&tensor.name) {
            Ok(values) => assert_eq!(values.len(), tensor.len(), "`{}`", tensor.name),
            Err(_) => whole = false,
        }
    }
    whole
}

/// The program of a PyTorch archive, in an archive whose checksums are right whatever it is: damage to a whole file
/// rarely gets that far. The storages are those of the seed `views.pkl`.
fn pickle(bytes: &[u8]) -> bool {
    let storage = [0; 192];
    let entries = [
        ("a/data.pkl", bytes),
        ("a/data/0", &storage[..96]),
        ("a/data/1", &storage[..48]),
        ("a/data/2", &storage[..48]),
        ("a/data/3", &storage),
    ];
    weights(&archive::archive(&entries, 0))
}

/// An index of shards. No name in it may lead to another folder.
fn shards(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(names) = shards_of_index(text) else { return false };
    let folder = std::path::Path::new("folder");
    for name in names {
        assert_eq!(folder.join(&name).parent(), Some(folder), "`{name}`");
    }
    true
}

/// A model's `config.json`. What is accepted has to survive being written.
fn config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(config) = VitMaeConfig::from_json(text) else { return false };
    if config.validate().is_err() {
        return false;
    }
    let again = VitMaeConfig::from_json(&config.to_json());
    assert_eq!(again.ok().as_ref(), Some(&config), "a configuration changes when it is written");
    config.parameter_count().total() > 0
}

/// A processor's `preprocessor_config.json`. What is accepted has to survive being written.
fn processor(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(processor) = VitImageProcessor::from_json(text) else { return false };
    if processor.validate().is_err() {
        return false;
    }
    let again = VitImageProcessor::from_json(&processor.to_json());
    assert_eq!(again.ok().as_ref(), Some(&processor), "a processor changes when it is written");
    true
}
