//! Files from strangers: the seeds of `fuzz/` and damaged copies of them through the fuzz targets' own functions, and
//! what the most expensive files cost. A program of its own, since its allocator counts for the whole process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vitmae_tests::hostile::archive::archive;
use vitmae_tests::hostile::memory::{Counting, peak_of};
use vitmae_tests::hostile::mutation::{Random, mutated};
use vitmae_tests::hostile::{SPARE_BYTES, TARGETS, Target, check};
use vitmae_weights::WeightsFile;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How long each target is tried; `cargo xtask test` sets 20.
const SECONDS: &str = "VITMAE_HOSTILE_SECONDS";

/// Memory is counted for the process, so that only one test may run.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Name and bytes of every seed of a target, in the order of their names.
fn seeds(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = fs::read_dir(root().join("fuzz/seeds").join(target.name)).unwrap();
    let mut paths: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| (path.display().to_string(), fs::read(&path).unwrap());
    paths.into_iter().map(read).collect()
}

/// Tries one input and says which it was if that fails.
fn try_one(target: &Target, bytes: &[u8], what: &str) -> bool {
    let tried = catch_unwind(AssertUnwindSafe(|| check(target, bytes)));
    tried.unwrap_or_else(|_| panic!("{} failed on {what}", target.name))
}

#[test]
fn seeds_and_damaged_copies_of_them_are_read_or_refused() {
    let _alone = alone();
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok()).unwrap_or(2.0);
    for target in TARGETS {
        let seeds = seeds(target);
        let whole = seeds.iter().filter(|(path, bytes)| try_one(target, bytes, path)).count();
        assert!(whole > 0, "no seed of {} is accepted", target.name);
        let (mut random, mut copies, mut accepted) = (Random::new(1), 0, 0);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs_f64(seconds) {
            let (path, bytes) = &seeds[copies % seeds.len()];
            let copy = mutated(bytes, &mut random);
            let what = format!("copy {copies}, of `{path}`");
            accepted += usize::from(try_one(target, &copy, &what));
            copies += 1;
        }
        println!("{}: {} seeds, {copies} copies, {accepted} accepted", target.name, seeds.len());
        assert!(accepted < copies, "no damage was noticed");
    }
}

#[test]
fn a_target_that_panics_or_takes_too_much_fails() {
    let _alone = alone();
    let failing = |read: fn(&[u8]) -> bool| {
        let target = Target { name: "failing", read, spare: SPARE_BYTES };
        catch_unwind(|| check(&target, b"x")).is_err()
    };
    assert!(!failing(|_| true));
    assert!(failing(|_| panic!("a panic of this test, on purpose")));
    assert!(failing(|_| vec![1u8; SPARE_BYTES + 3].len() > 1));
    assert!(failing(|_| {
        std::thread::sleep(Duration::from_millis(1100));
        true
    }));
}

/// The most memory that opening a file and reading every tensor takes, and what was wrong with it.
fn peak_of_reading(path: &Path) -> (usize, Option<String>) {
    let read = || -> Option<String> {
        let mut file = match WeightsFile::open(path) {
            Ok(file) => file,
            Err(error) => return Some(chain(&error)),
        };
        let names: Vec<_> = file.tensors().iter().map(|tensor| tensor.name.clone()).collect();
        names.iter().find_map(|name| file.read_f32(name).err()).map(|error| chain(&error))
    };
    let (fault, peak) = peak_of(read);
    (peak, fault)
}

/// What an error and its causes say.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Checks the memory that the file takes, and returns what was wrong with it.
fn within_limit(path: &Path) -> Option<String> {
    let bytes = fs::metadata(path).unwrap().len() as usize;
    let (peak, fault) = peak_of_reading(path);
    assert!(peak <= bytes + SPARE_BYTES, "`{}`: {bytes} bytes took {peak}", path.display());
    fault
}

#[test]
fn whole_and_cut_files_of_every_container_take_little_memory() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    for (case, name) in [
        ("pretraining-small", "model.safetensors"),
        ("pretraining-bin", "pytorch_model.bin"),
        ("pretraining-fb-training-checkpoint", "checkpoint-3.pth"),
        ("pretraining-tf-h5-norm-pix", "tf_model.h5"),
    ] {
        let path = root().join("tests/fixtures/parity").join(case).join(name);
        assert_eq!(within_limit(&path), None);
        let bytes = fs::read(&path).unwrap();
        for parts in 0..8 {
            let cut = folder.path().join(name);
            fs::write(&cut, &bytes[..bytes.len() * parts / 8]).unwrap();
            assert!(within_limit(&cut).is_some(), "{parts} eighths of `{name}`");
        }
    }
}

#[test]
fn what_a_file_claims_beyond_its_bytes_is_refused_in_little_memory() {
    let _alone = alone();
    let fault = |name: &str| {
        let path = root().join("fuzz/seeds/hdf5").join(name);
        let fault = within_limit(&path).unwrap();
        let start = format!("`{}` cannot be used: ", path.display());
        fault.strip_prefix(&start).unwrap_or(&fault).to_owned()
    };
    assert_eq!(
        fault("unstored.h5"),
        "hdf5: tensor `vit/x` needs 1073741824 bytes, but the file holds 0 for it\nhelp: the file is truncated, or the \
         tensor was declared and never written"
    );
    let chunks = fault("unstored-chunks.h5");
    assert!(chunks.starts_with("hdf5: tensor `vit/x` needs 1073741824 bytes, but the file holds "));
    let bomb = fault("bomb.h5");
    assert!(bomb.starts_with("hdf5: tensor `vit/x` needs 8388608 bytes, but the file holds "));
    assert_eq!(
        fault("chunks-earliest.h5"),
        "hdf5: tensor `vit/unstored` needs 36 bytes, but the file holds 0 for it\nhelp: the file is truncated, or the \
         tensor was declared and never written"
    );
}

#[test]
fn tensors_of_an_hdf5_file_that_overlap_are_refused() {
    let _alone = alone();
    let mut bytes = fs::read(root().join("fuzz/seeds/hdf5/earliest.h5")).unwrap();
    let places = |part: &[u8]| -> Vec<usize> {
        (0..bytes.len()).filter(|&at| bytes[at..].starts_with(part)).collect()
    };
    // One tensor has the values 0, 1/8, 2/8, 3/8, the other 0, 1/8.
    let values: Vec<u8> = (0..4).flat_map(|i| (i as f32 / 8.0).to_le_bytes()).collect();
    let first = places(&values)[0];
    let second = places(&values[..8]).into_iter().find(|&at| at != first).unwrap();
    let pointers = places(&(second as u64).to_le_bytes());
    assert_eq!(pointers.len(), 1);
    bytes[pointers[0]..pointers[0] + 8].copy_from_slice(&(first as u64 + 8).to_le_bytes());
    let error = WeightsFile::from_bytes(bytes).unwrap_err();
    assert_eq!(
        chain(&error),
        format!(
            "`memory` cannot be used: hdf5: tensor `decoder/mask_token:0` starts at byte {}, before the end of \
             `vit/embeddings/cls_token:0` at {}\nhelp: tensors overlap",
            first + 8,
            first + 16
        )
    );
}

#[test]
fn the_most_expensive_headers_take_little_memory() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let file = |header: String| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.into_bytes());
        fs::write(&path, bytes).unwrap();
        within_limit(&path)
    };
    const HEADER: usize = 16 << 20;
    let fill = |start: &str, piece: &str, end: &str| {
        let count = (HEADER - start.len() - end.len()) / piece.len();
        format!("{start}{}{end}", piece.repeat(count))
    };
    let entry =
        |i: usize| format!("\"{i}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}");
    let entries = |count: usize| (0..count).map(entry).collect::<Vec<_>>().join(",");
    assert_eq!(file(format!("{{{}}}", entries(65_536))), None);
    assert!(file(format!("{{{}}}", entries(200_000))).is_some());
    let end = "0],\"data_offsets\":[0,0]}}";
    assert!(file(fill("{\"x\":{\"dtype\":\"F32\",\"shape\":[", "0,", end)).is_some());
    assert!(file(fill("{\"x\":", "[", "")).is_some());
    assert!(file(fill("{\"__metadata__\":{", "\"a\":\"\",", "\"b\":\"\"}}")).is_some());
}

#[test]
fn the_most_expensive_archives_take_little_memory() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pth");
    // A million values, the most that a pickle may make, and one more; each as a list of its own.
    for (count, part) in
        [(999_990, "expected a dictionary of tensors"), (1_000_001, "pickled values")]
    {
        let program = [b"\x80\x02".to_vec(), b"]0".repeat(count), b"N.".to_vec()].concat();
        fs::write(&path, archive(&[("a/data.pkl", &program)], 0)).unwrap();
        let fault = within_limit(&path).unwrap();
        assert!(fault.contains(part), "{fault}");
    }
    for (more, part) in [
        (70_000, "70001 entries, expected at most 65636"),
        (1_500_000, "no list of entries ends within the bytes that one of a checkpoint has"),
    ] {
        fs::write(&path, archive(&[("a/data.pkl", b"\x80\x02}.")], more)).unwrap();
        let fault = within_limit(&path).unwrap();
        assert!(fault.contains(part), "{fault}");
    }
}

#[test]
fn a_compressed_set_is_unpacked_no_further_than_its_header_tells() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a-images-idx3-ubyte.gz");
    // 256 MiB of zeros in 256 KiB, behind the header of 10 images, of none, and of images that fill 4 GiB.
    let zeros = vec![0u8; 1 << 20];
    for (header, part) in [
        ([0x803u32, 10, 28, 28], "it unpacks to more, its header tells 7856 bytes"),
        ([0x803, 10, 0, 28], "0×28 is no size of images"),
        ([0x803, 1 << 20, 64, 64], "cannot hold the 4294967312 that its header tells"),
        ([0x802, 10, 28, 28], "it starts with [00 00 08 02], expected [00 00 08 03]"),
    ] {
        let file = fs::File::create(&path).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::best());
        encoder.write_all(&header.map(u32::to_be_bytes).concat()).unwrap();
        (0..256).for_each(|_| encoder.write_all(&zeros).unwrap());
        encoder.finish().unwrap();
        let (set, peak) = peak_of(|| vitmae_trainer::data::open(&path));
        let error = set.err().unwrap().to_string();
        assert!(error.contains(part), "{error}");
        assert!(peak < 1 << 20, "{part}: {peak} bytes");
    }
}
