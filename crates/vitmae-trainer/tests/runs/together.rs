//! Several processes train as one does. Here they are threads; `vitmae-cli` has the same over MPI.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use vitmae_image::{Image, ImageError, VitImageProcessor};
use vitmae_layers::Param;
use vitmae_model::{
    Head, Labels, Masking, ModelError, TrainOptions, VitForImageClassification,
    VitMaeForPreTraining,
};
use vitmae_tensor::{Device, Tensor};
use vitmae_trainer::data::Dataset;
use vitmae_trainer::features::{Pool, features};
use vitmae_trainer::reconstruction::{even_masks, qualities};
use vitmae_trainer::{
    Collective, Datasets, Event, NanPolicy, RunConfig, StopFlag, Summary, Team, TrainerError,
    classify, pretrain,
};

use crate::finetuning::Stripes;
use crate::guards::{blinding, flashes};
use crate::tiny::{Waves, bits, config as tiny};

/// A member. A thread of its own sends its bytes to every member, itself included, and waits for theirs, so that no call
/// waits; once a member is gone, the others get no answers.
struct Member {
    rank: usize,
    size: usize,
    jobs: Mutex<Sender<Job>>,
}

type Job = (Vec<u8>, Sender<Vec<Vec<u8>>>);
/// To and from each member.
type Outbox = Vec<Sender<Vec<u8>>>;
type Inbox = Vec<Receiver<Vec<u8>>>;

/// The members of a team of `size`.
fn members(size: usize) -> Vec<Member> {
    let (mut to, mut from) = (vec![vec![]; size], Vec::new());
    for _ in 0..size {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..size).map(|_| channel()).unzip();
        to.iter_mut().zip(senders).for_each(|(to, sender)| to.push(sender));
        from.push(receivers);
    }
    let member = |(rank, (to, from)): (usize, (Outbox, Inbox))| {
        let (jobs, queue) = channel::<Job>();
        std::thread::spawn(move || {
            for (bytes, answer) in queue {
                // A member that is gone shows when its own bytes are missing.
                to.iter().for_each(|to| drop(to.send(bytes.clone())));
                let Ok(all) = from.iter().map(Receiver::recv).collect() else { return };
                drop(answer.send(all));
            }
        });
        Member { rank, size, jobs: Mutex::new(jobs) }
    };
    to.into_iter().zip(from).enumerate().map(member).collect()
}

impl Collective for Member {
    fn rank(&self) -> usize {
        self.rank
    }
    fn size(&self) -> usize {
        self.size
    }
    fn sum(&self, values: Vec<f32>) -> Receiver<Vec<f32>> {
        let all = self.gather(values.iter().flat_map(|value| value.to_le_bytes()).collect());
        let (answer, sum) = channel();
        std::thread::spawn(move || {
            let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
            let mut sums = vec![0.0f32; values.len()];
            let Ok(all) = all.recv() else { return };
            for bytes in all {
                let values = bytes.chunks(4).map(float);
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
            drop(answer.send(sums));
        });
        sum
    }
    fn gather(&self, bytes: Vec<u8>) -> Receiver<Vec<Vec<u8>>> {
        let (answer, all) = channel();
        drop(self.jobs.lock().unwrap().send((bytes, answer)));
        all
    }
}

/// What every member of a team of `size` gives.
pub fn by<R: Send>(size: usize, run: impl Fn(Team) -> R + Sync) -> Vec<R> {
    let run = &run;
    std::thread::scope(|scope| {
        let start = |member| scope.spawn(move || run(Team::new(Arc::new(member))));
        let running: Vec<_> = members(size).into_iter().map(start).collect();
        running.into_iter().map(|member| member.join().unwrap()).collect()
    })
}

/// Runs `config` by `size` members, of which the last is told to stop after update `until`.
fn run_by(
    size: usize,
    config: &RunConfig,
    data: &Datasets,
    until: Option<u64>,
) -> Vec<Result<Summary, TrainerError>> {
    let stop = StopFlag::new();
    by(size, |team| {
        let rank = team.rank();
        let config = RunConfig { team, ..config.clone() };
        // Only the leader sees events, and only the last member hears of the stop.
        let own = if rank + 1 == size { stop.clone() } else { StopFlag::new() };
        pretrain(&config, data, &Device::cpu(), &own, &mut |event| {
            assert_eq!(rank, 0, "{event:?}");
            if let Event::Step(step) = &event
                && Some(step.step) == until
            {
                stop.set(130);
            }
        })
    })
}

fn run_well(size: usize, config: &RunConfig, data: &Datasets, until: Option<u64>) -> Summary {
    let mut all: Vec<_> =
        run_by(size, config, data, until).into_iter().map(Result::unwrap).collect();
    for other in &all {
        assert_eq!(bits(&other.model), bits(&all[0].model));
        assert_eq!((other.step, other.stopped), (all[0].step, all[0].stopped));
        assert_eq!((&other.checkpoint, other.evaluation), (&all[0].checkpoint, all[0].evaluation));
    }
    all.swap_remove(0)
}

/// 35 images, 4 updates of 8 an epoch, 24 updates.
fn config(folder: &Path, batch_size: usize) -> RunConfig {
    RunConfig { batch_size, epochs: 6, save_every_steps: None, ..tiny(folder) }
}

fn data(broken: Vec<usize>) -> Datasets {
    let evaluation = Some(Arc::new(Waves { count: 13, broken: vec![] }) as Arc<dyn Dataset>);
    Datasets { train: Arc::new(Waves { count: 35, broken }), evaluation }
}

fn lines(folder: &Path, kind: &str) -> Vec<Value> {
    let log = std::fs::read_to_string(folder.join("log.txt")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == kind).collect()
}

fn assert_close(found: &Summary, expected: &Summary, folders: [&Path; 2], tolerance: f64) {
    let [a, b] = folders.map(|folder| lines(folder, "step"));
    assert_eq!((a.len(), b.len()), (24, 24));
    for (a, b) in a.iter().zip(&b) {
        assert_eq!((&a["step"], &a["lr"], &a["epoch"]), (&b["step"], &b["lr"], &b["epoch"]));
        let [x, y] = [a, b].map(|line| line["loss"].as_f64().unwrap());
        assert!((x - y).abs() <= tolerance * y, "{a} is not {b}");
    }
    assert_same_weights(&found.model.parameters(), &expected.model.parameters());
}

/// Equal but for rounding.
pub fn assert_same_weights(found: &[&Param], expected: &[&Param]) {
    for (a, b) in found.iter().zip(expected) {
        let (name, a, mut b) = (&a.name, a.value.to_vec().unwrap(), b.value.to_vec().unwrap());
        if name.ends_with("attention.qkv.bias") {
            // A bias of the keys moves every score of a query alike: its gradient is 0, and AdamW makes steps of the noise.
            let keys = a.len() / 3..a.len() / 3 * 2;
            b[keys.clone()].copy_from_slice(&a[keys]);
        }
        let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-6, "{name}: {worst}");
    }
}

#[test]
fn four_with_a_quarter_of_the_batch_are_one_and_two_runs_are_the_same() {
    let [one, four, again] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let expected = run_well(1, &config(one.path(), 8), &data(vec![]), None);
    let found = run_well(4, &config(four.path(), 2), &data(vec![]), None);
    assert_close(&found, &expected, [four.path(), one.path()], 1e-6);
    let [x, y] = [&found, &expected].map(|summary| summary.evaluation.unwrap().loss);
    assert!((x - y).abs() <= 1e-5 * y, "{x} is not {y}");
    let same = run_well(4, &config(again.path(), 2), &data(vec![]), None);
    assert_eq!(bits(&same.model), bits(&found.model));
    assert_eq!(same.evaluation, found.evaluation);
    // And neither is what half the images would give.
    let half = tempfile::tempdir().unwrap();
    let half =
        run_well(1, &RunConfig { lr: Some(3e-3), ..config(half.path(), 4) }, &data(vec![]), None);
    assert_ne!(bits(&half.model), bits(&expected.model));
}

#[test]
fn batches_of_several_processes_and_of_one_that_accumulates_are_the_same() {
    let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let of = |folder: &Path, accumulation| RunConfig {
        accumulation,
        clip_grad: Some(0.5),
        ..config(folder, 2)
    };
    // No image is left over in an epoch, so both count time in the same steps.
    let mut data = data(vec![]);
    data.train = Arc::new(Waves { count: 32, broken: vec![] });
    let expected = run_well(1, &of(one.path(), 4), &data, None);
    let found = run_well(2, &of(two.path(), 2), &data, None);
    assert_close(&found, &expected, [two.path(), one.path()], 1e-6);
}

#[test]
fn evaluation_by_several_is_that_of_one_to_the_bit() {
    // One update an epoch at a learning rate of 0: the weights stay, so evaluations differ by nothing but who made them.
    let folder = tempfile::tempdir().unwrap();
    let settings = |size, epochs| RunConfig {
        accumulation: 12 / size,
        epochs,
        override_settings: true,
        lr: Some(0.0),
        ..config(folder.path(), 2)
    };
    let alone = run_well(1, &settings(1, 1), &data(vec![]), None);
    assert!(alone.evaluation.is_some());
    for (size, epochs) in [(2, 2), (3, 3), (4, 4)] {
        let together = run_well(size, &settings(size, epochs), &data(vec![]), None);
        assert_eq!(bits(&together.model), bits(&alone.model));
        assert_eq!(together.evaluation, alone.evaluation, "{size} processes");
    }
    assert_eq!(lines(folder.path(), "evaluation").len(), 4);
}

/// Counts how often each image is read.
struct Counted {
    images: Stripes,
    reads: Mutex<Vec<usize>>,
}

impl Dataset for Counted {
    fn len(&self) -> usize {
        self.images.len()
    }
    fn load(&self, index: usize) -> Result<Image, ImageError> {
        self.reads.lock().unwrap()[index] += 1;
        self.images.load(index)
    }
    fn name(&self, index: usize) -> String {
        self.images.name(index)
    }
    fn fingerprint(&self) -> String {
        self.images.fingerprint()
    }
}

#[test]
fn several_judge_each_image_once_and_find_what_one_does() {
    let device = Device::cpu();
    let model =
        VitForImageClassification::new(crate::tiny::model(), Head::Cls, &device, 3).unwrap();
    let mae = VitMaeForPreTraining::new(crate::tiny::model(), &device, 3).unwrap();
    let (labels, processor) = (crate::finetuning::classes(13).labels, VitImageProcessor::default());
    let even = |sample| even_masks(0, sample as u64, 16, 12, 2);
    type Judge<'a> = &'a (dyn Fn(&Counted, &Team) -> String + Sync);
    let judges: [Judge<'_>; 3] = [
        &|images, team| {
            let found = classify(&model, images, Some(&labels), &processor, 2, team).unwrap();
            assert!(found.0.is_finite() && found.1.len() == 13);
            format!("{found:?}")
        },
        &|images, team| {
            let (pool, mut told) = (Pool::Mean, 0);
            let mut progress = |_| told += 1;
            let found = features(&model.vit, images, &processor, pool, 2, team, &mut progress);
            let found = found.unwrap();
            // One of seven batches a turn.
            assert_eq!(told, (7 - team.rank().min(7)).div_ceil(team.size()));
            assert_eq!(found.len(), 13 * 16);
            format!("{found:?}")
        },
        &|images, team| {
            let found = qualities(&mae, images, &processor, (&even, 1), team, &mut |_| {});
            assert_eq!(found.as_ref().unwrap().len(), 13);
            format!("{found:?}")
        },
    ];
    for judge in judges {
        let counted = || Counted { images: Stripes(13), reads: Mutex::new(vec![0; 13]) };
        let alone = judge(&counted(), &Team::default());
        // Seven batches of two: the last of eight processes has none.
        for size in [2, 3, 8] {
            let images = counted();
            let found = by(size, |team| judge(&images, &team));
            assert!(found.iter().all(|found| *found == alone), "{size} processes: {found:?}");
            assert_eq!(*images.reads.lock().unwrap(), [1; 13], "{size} processes");
        }
    }
}

#[test]
fn another_number_goes_on_where_an_update_has_as_many_images() {
    let [whole, folder] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let expected = run_well(1, &config(whole.path(), 8), &data(vec![]), None);
    let config = |batch_size| config(folder.path(), batch_size);
    // Each hears of the stop after its update, and the last one's may be the next.
    let stopped = run_well(4, &config(2), &data(vec![]), Some(5));
    assert!([5, 6].contains(&stopped.step) && stopped.stopped == Some(130), "{}", stopped.step);
    for (size, batch_size) in [(2, 2), (3, 2)] {
        let mut all = run_by(size, &config(batch_size), &data(vec![]), None);
        let message = all.swap_remove(0).err().unwrap().to_string();
        let processes = format!("`processes` 4, now {size}");
        assert!(message.contains("was made with other settings"), "{message}");
        assert!(message.contains(&processes), "{message}");
    }
    let stopped = run_well(2, &config(4), &data(vec![]), Some(9));
    assert!([9, 10].contains(&stopped.step) && stopped.stopped == Some(130), "{}", stopped.step);
    let found = run_well(1, &config(8), &data(vec![]), None);
    let log = std::fs::read_to_string(folder.path().join("log.txt")).unwrap();
    assert_eq!(log.matches("\"resume\"").count(), 2);
    assert_close(&found, &expected, [folder.path(), whole.path()], 1e-6);
}

#[test]
fn what_one_process_finds_is_known_to_the_leader_and_differences_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let broken: Vec<usize> = (0..10).collect();
    run_well(4, &config(folder.path(), 2), &data(broken.clone()), None);
    let text = std::fs::read_to_string(folder.path().join("bad_samples.jsonl")).unwrap();
    let mut found: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["sample"].as_u64().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, (0..10).collect::<Vec<_>>());

    // As if one machine had other images.
    let folder = tempfile::tempdir().unwrap();
    let errors = by(2, |team| {
        let mut data = data(vec![]);
        data.train = Arc::new(Waves { count: 35 + team.rank(), broken: vec![] });
        let config = RunConfig { team, ..config(folder.path(), 2) };
        let stop = StopFlag::new();
        let run = pretrain(&config, &data, &Device::cpu(), &stop, &mut |_| {});
        run.err().unwrap().to_string()
    });
    let expected = "process 1 has other settings or images than process 0";
    assert!(errors.iter().all(|error| error.starts_with(expected)), "{errors:?}");
}

#[test]
fn a_gradient_is_told_once_and_is_final_then() {
    let device = Device::cpu();
    let pixels: Vec<f32> = (0..2 * 3 * 16 * 16).map(|i| (i as f32 * 0.37).sin()).collect();
    let pixels = Tensor::from_vec(&device, &[2, 3, 16, 16], pixels).unwrap();
    let noise: Vec<f64> = (0..32).map(|i| f64::from(i * 7 % 32)).collect();
    let masking = Masking::from_noise(&noise, 2, 16, 0.75).unwrap();
    for recompute in [false, true] {
        let options = TrainOptions { recompute, ..TrainOptions::default() };
        let mut mae = VitMaeForPreTraining::new(crate::tiny::model(), &device, 3).unwrap();
        let told = told_by(|done| mae.forward_backward_in_parts(&pixels, &masking, &options, done));
        assert_final(&told, &mae.parameters());
        let decoder = told.iter().position(|(name, _)| name.starts_with("vit.")).unwrap();
        assert!(told[decoder..].iter().all(|(name, _)| name.starts_with("vit.")));

        for head in [Head::Cls, Head::MeanFcNorm] {
            let config = crate::tiny::model();
            let mut classifier = VitForImageClassification::new(config, head, &device, 3).unwrap();
            let told = told_by(|done| {
                let labels = Labels::Classes(&[0, 1]);
                classifier.forward_backward_in_parts(&pixels, labels, &options, done)
            });
            assert_final(&told, &classifier.parameters());
            assert!(
                told[0].0.starts_with(["fc_norm.", "classifier."][usize::from(head == Head::Cls)])
            );
        }
    }
}

type Told = Vec<(String, Vec<f32>)>;

fn told_by(
    backward: impl FnOnce(&mut vitmae_layers::GradientsDone<'_>) -> Result<Tensor, ModelError>,
) -> Told {
    let mut told = Vec::new();
    backward(&mut |parameters| {
        for parameter in parameters.iter().filter(|parameter| parameter.trainable) {
            told.push((parameter.name.clone(), parameter.grad.as_ref().unwrap().to_vec()?));
        }
        Ok(())
    })
    .unwrap();
    told
}

fn assert_final(told: &Told, parameters: &[&Param]) {
    let trainable: Vec<_> = parameters.iter().filter(|parameter| parameter.trainable).collect();
    assert_eq!(told.len(), trainable.len());
    for parameter in trainable {
        let (_, gradient) = told.iter().find(|(name, _)| *name == parameter.name).unwrap();
        assert_eq!(*gradient, parameter.grad.as_ref().unwrap().to_vec().unwrap());
    }
}

#[test]
fn every_process_leaves_what_is_needed_to_replay_its_part() {
    let folder = tempfile::tempdir().unwrap();
    let config = RunConfig { lr: Some(1e30), warmup_epochs: 0.0, ..config(folder.path(), 2) };
    let errors = run_by(2, &config, &data(vec![]), None);
    let mut images = Vec::new();
    for (rank, error) in errors.into_iter().enumerate() {
        let TrainerError::NonFinite { dump, step, .. } = error.err().unwrap() else { panic!() };
        assert_eq!(dump.file_name().unwrap(), &*format!("step-{step:08}-process-{rank}.json"));
        let report: Value = serde_json::from_str(&std::fs::read_to_string(dump).unwrap()).unwrap();
        images.push(report["samples"].to_string());
    }
    assert!(images[0] != images[1] && images[0].matches(',').count() == 1, "{images:?}");
}

#[test]
fn all_processes_skip_and_roll_back_together() {
    for policy in [NanPolicy::Skip, NanPolicy::Rollback] {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let data = flashes(&[2]);
        // The first update is good, so that there is something to go back to.
        let start = |folder: &Path, size: usize, batch_size: usize| {
            let config = RunConfig { batch_size, ..blinding(folder, policy) };
            run_well(size, &config, &flashes(&[]), Some(1));
            run_well(size, &RunConfig { override_settings: true, ..config }, &data, None)
        };
        let (expected, found) = (start(one.path(), 1, 4), start(two.path(), 2, 2));
        assert_same_weights(&found.model.parameters(), &expected.model.parameters());
        for kind in ["skipped", "rollback"] {
            assert_eq!(lines(two.path(), kind), lines(one.path(), kind), "{policy:?}");
        }
        let kind = if policy == NanPolicy::Skip { "skipped" } else { "rollback" };
        assert!(!lines(two.path(), kind).is_empty());
    }
}

/// Writes down how many values each sum has.
struct Counting {
    member: Member,
    sums: Arc<Mutex<Vec<usize>>>,
}

impl Collective for Counting {
    fn rank(&self) -> usize {
        self.member.rank()
    }
    fn size(&self) -> usize {
        self.member.size()
    }
    fn sum(&self, values: Vec<f32>) -> Receiver<Vec<f32>> {
        self.sums.lock().unwrap().push(values.len());
        self.member.sum(values)
    }
    fn gather(&self, bytes: Vec<u8>) -> Receiver<Vec<Vec<u8>>> {
        self.member.gather(bytes)
    }
}

#[test]
fn gradients_leave_a_block_at_a_time_once_an_update() {
    let folder = tempfile::tempdir().unwrap();
    let seen = std::thread::scope(|scope| {
        let start = |member: Member| {
            let sums = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&sums);
            let config = RunConfig { accumulation: 3, epochs: 1, ..config(folder.path(), 2) };
            scope.spawn(move || {
                let team = Team::new(Arc::new(Counting { member, sums }));
                let config = RunConfig { team, ..config };
                let stop = StopFlag::new();
                let data = data(vec![]);
                let run = pretrain(&config, &data, &Device::cpu(), &stop, &mut |_| {}).unwrap();
                (run, std::mem::take(&mut *seen.lock().unwrap()))
            })
        };
        let running: Vec<_> = members(2).into_iter().map(start).collect();
        running.into_iter().map(|member| member.join().unwrap()).collect::<Vec<_>>()
    });
    let (run, sums) = &seen[0];
    let count = |prefix: &str, inside: bool| -> usize {
        let parameters = run.model.parameters();
        let trainable = parameters.iter().filter(|p| p.trainable && p.name.starts_with(prefix));
        let own = trainable.filter(|p| inside || !p.name.contains(".blocks."));
        own.map(|p| p.value.len()).sum()
    };
    let one_update = [
        count("decoder.blocks.0.", true),
        count("decoder.", false),
        count("vit.blocks.1.", true),
        count("vit.blocks.0.", true),
        count("vit.", false),
        3 + 1, // the losses of its batches and the number of images
    ];
    assert_eq!(run.step, 2);
    assert_eq!(*sums, [one_update, one_update].concat());
    assert_eq!(*sums, seen[1].1);
}
