//! Bad images in sets of one file, over whole runs.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vitmae_image::encode_png;
use vitmae_trainer::data::{BadSample, Dataset, OnBadSample, open, pack};
use vitmae_trainer::{Datasets, Event, Failure, RunConfig, Summary, TrainerError};

use crate::tiny::{Waves, bits, config, run_watched};

/// A kind of set.
struct Source {
    name: &'static str,
    /// Makes it of so many images, the last of them bad, and opens it.
    make: fn(&Path, usize, usize) -> Arc<dyn Dataset>,
    /// What image 12 is called, and why it is bad.
    twelfth: &'static str,
    reason: &'static str,
    /// Whether its images are the waves.
    of_waves: bool,
}

const SOURCES: [Source; 4] = [
    Source {
        name: "tar",
        make: tar,
        twelfth: "b.tar:12.png",
        reason: "is damaged or truncated PNG",
        of_waves: true,
    },
    Source {
        name: "packed",
        make: packed,
        twelfth: "set.vmpack:12",
        reason: "its bytes were changed",
        of_waves: true,
    },
    Source {
        name: "cifar",
        make: cifar,
        twelfth: "test_batch.bin:12",
        reason: "cannot read image",
        of_waves: false,
    },
    Source {
        name: "idx",
        make: idx,
        twelfth: "a-images-idx3-ubyte:12",
        reason: "cannot read image",
        of_waves: false,
    },
];

fn waves(count: usize, bad: usize) -> Waves {
    Waves { count, broken: (count - bad..count).collect() }
}

/// Two shards, the first with one image; bad images end half-way inside their members.
fn tar(folder: &Path, count: usize, bad: usize) -> Arc<dyn Dataset> {
    let mut shards = ["a.tar", "b.tar"]
        .map(|name| tar::Builder::new(fs::File::create(folder.join(name)).unwrap()));
    for index in 0..count {
        let png = encode_png(&waves(count, 0).load(index).unwrap()).unwrap();
        let is_bad = index >= count - bad;
        let bytes = if is_bad { &png[..png.len() / 2] } else { &png };
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        shards[index.min(1)].append_data(&mut header, format!("{index:02}.png"), bytes).unwrap();
    }
    shards.iter_mut().for_each(|shard| shard.finish().unwrap());
    open(folder).unwrap()
}

/// In each bad image one byte is another.
fn packed(folder: &Path, count: usize, bad: usize) -> Arc<dyn Dataset> {
    let path = folder.join("set.vmpack");
    pack(&waves(count, 0), &path, None, false, &mut |_| {}).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    for index in count - bad..count {
        let name = format!("wave {index}");
        let at = bytes.windows(name.len()).position(|part| part == name.as_bytes()).unwrap();
        bytes[at + name.len() + 9] ^= 1;
    }
    fs::write(&path, bytes).unwrap();
    open(&path).unwrap()
}

/// A file of raw pixels can only be bad as a whole, unless it gets shorter while it is open.
fn cut(path: &Path, bytes: &[u8], left: usize) -> Arc<dyn Dataset> {
    fs::write(path, bytes).unwrap();
    let set = open(path).unwrap();
    OpenOptions::new().write(true).open(path).unwrap().set_len(left as u64).unwrap();
    set
}

fn cifar(folder: &Path, count: usize, bad: usize) -> Arc<dyn Dataset> {
    let bytes: Vec<u8> = (0..count * 3073).map(|at| (at % 251) as u8).collect();
    cut(&folder.join("test_batch.bin"), &bytes, (count - bad) * 3073)
}

fn idx(folder: &Path, count: usize, bad: usize) -> Arc<dyn Dataset> {
    let header = [0x803, count as u32, 20, 24].map(u32::to_be_bytes).concat();
    let pixels = (0..count * 480).map(|at| (at % 251) as u8);
    let bytes = [header, pixels.collect()].concat();
    cut(&folder.join("a-images-idx3-ubyte"), &bytes, 16 + (count - bad) * 480)
}

/// A run, and the images of each of its updates.
struct Run {
    place: tempfile::TempDir,
    outcome: Result<Summary, TrainerError>,
    images: Vec<u64>,
}

impl Run {
    fn of(source: &Source, sizes: (usize, usize), on_bad: OnBadSample, fraction: f64) -> Run {
        let place = tempfile::tempdir().unwrap();
        let set = place.path().join("set");
        fs::create_dir(&set).unwrap();
        Run::on((source.make)(&set, sizes.0, sizes.1), place, on_bad, fraction)
    }

    fn on(
        train: Arc<dyn Dataset>,
        place: tempfile::TempDir,
        on_bad_sample: OnBadSample,
        max_bad_fraction: f64,
    ) -> Run {
        let config =
            RunConfig { on_bad_sample, max_bad_fraction, ..config(&place.path().join("run")) };
        let mut images = Vec::new();
        let data = Datasets { train, evaluation: None };
        let outcome = run_watched(&config, &data, None, &mut |event| {
            if let Event::Step(step) = event {
                images.push(step.images);
            }
        });
        Run { place, outcome, images }
    }

    fn list(&self) -> PathBuf {
        self.place.path().join("run/bad_samples.jsonl")
    }

    /// What `bad_samples.jsonl` has, in the order of the images.
    fn bad(&self) -> Vec<BadSample> {
        let text = fs::read_to_string(self.list()).unwrap();
        let mut all: Vec<BadSample> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        all.sort_by_key(|bad| bad.sample);
        all
    }
}

#[test]
fn bad_images_of_every_source_are_replaced_and_listed() {
    for source in &SOURCES {
        let run = Run::of(source, (13, 2), OnBadSample::Replace, 0.0);
        assert_eq!(run.images, [4; 9], "{}", source.name);
        let bad = run.bad();
        assert_eq!(bad.iter().map(|bad| bad.sample).collect::<Vec<_>>(), [11, 12]);
        assert!(bad[1].path.ends_with(source.twelfth), "{:?}", bad[1]);
        assert!(bad[1].reason.contains(source.reason), "{:?}", bad[1]);
        if source.of_waves {
            let place = tempfile::tempdir().unwrap();
            let set = Arc::new(waves(13, 2));
            let expected = Run::on(set, place, OnBadSample::Replace, 0.0);
            let bits = |run: Run| bits(&run.outcome.unwrap().model);
            assert!(bits(run) == bits(expected), "{}", source.name);
        }
    }
}

#[test]
fn bad_images_of_every_source_are_left_out() {
    for source in &SOURCES {
        let run = Run::of(source, (13, 2), OnBadSample::Skip, 0.0);
        assert_eq!(run.outcome.as_ref().unwrap().step, 9, "{}", source.name);
        // An epoch shows twelve of the thirteen images, so one or two bad ones.
        for epoch in run.images.chunks(3) {
            assert!((10..12).contains(&epoch.iter().sum::<u64>()), "{}: {epoch:?}", source.name);
        }
        assert_eq!(run.bad().len(), 2, "{}", source.name);
    }
}

#[test]
fn a_bad_image_of_any_source_ends_a_run_that_wants_none() {
    for source in &SOURCES {
        let run = Run::of(source, (13, 2), OnBadSample::Error, 1.0);
        let error = run.outcome.as_ref().err().unwrap();
        let TrainerError::BadSample { path, source: cause } = error else { panic!("{error}") };
        let name = source.twelfth.trim_end_matches(".png").trim_end_matches("12");
        assert!(path.contains(name), "{path}");
        assert!(cause_of(cause).contains(source.reason), "{cause}");
        assert_eq!(error.failure(), Failure::Input);
        assert!(run.images.len() < 3 && !run.list().exists(), "{}", source.name);
    }
}

fn cause_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[test]
fn too_many_bad_images_of_any_source_end_a_run() {
    for source in &SOURCES {
        for on_bad in [OnBadSample::Replace, OnBadSample::Skip] {
            // A tenth of 40 is less than the ten that are always tolerated.
            let run = Run::of(source, (40, 11), on_bad, 0.1);
            let error = run.outcome.as_ref().err().unwrap();
            let TrainerError::TooManyBadSamples { found, total, limit, log } = error else {
                panic!("{}: {error}", source.name)
            };
            assert_eq!((*found, *total, *limit, log), (11, 40, 10, &run.list()));
            assert_eq!((run.bad().len(), error.failure()), (11, Failure::Input));
        }
        let run = Run::of(source, (40, 11), OnBadSample::Replace, 0.3);
        assert_eq!((run.outcome.as_ref().unwrap().step, run.bad().len()), (30, 11));
        assert!(run.bad().iter().all(|bad| bad.sample >= 29), "{}", source.name);
    }
}
