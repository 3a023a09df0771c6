//! Several processes train as one does. Here they are threads; `vitmae-cli` has the same over MPI.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};

use serde_json::Value;
use vitmae_tensor::Device;
use vitmae_trainer::data::Dataset;
use vitmae_trainer::{
    Collective, Datasets, Event, RunConfig, StopFlag, Summary, Team, TrainerError, pretrain,
};

use crate::tiny::{Waves, bits, config as tiny};

/// What the members of a team share: a place for each one's bytes, and a meeting point.
struct Table {
    meeting: Barrier,
    places: Mutex<Vec<Vec<u8>>>,
}

type Job = (Vec<u8>, Sender<Vec<Vec<u8>>>);

/// A member; a thread of its own meets the others', so that no call waits.
struct Member {
    rank: usize,
    size: usize,
    jobs: Mutex<Sender<Job>>,
}

impl Member {
    fn new(rank: usize, size: usize, table: Arc<Table>) -> Member {
        let (jobs, queue) = channel::<Job>();
        std::thread::spawn(move || {
            for (bytes, answer) in queue {
                table.places.lock().unwrap()[rank] = bytes;
                table.meeting.wait();
                let all = table.places.lock().unwrap().clone();
                table.meeting.wait();
                answer.send(all).unwrap();
            }
        });
        Member { rank, size, jobs: Mutex::new(jobs) }
    }
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
            for bytes in all.recv().unwrap() {
                let values = bytes.chunks(4).map(float);
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
            answer.send(sums).unwrap();
        });
        sum
    }
    fn gather(&self, bytes: Vec<u8>) -> Receiver<Vec<Vec<u8>>> {
        let (answer, all) = channel();
        self.jobs.lock().unwrap().send((bytes, answer)).unwrap();
        all
    }
}

/// Runs `config` by `size` members, of which the last is told to stop after update `until`.
fn run_by(
    size: usize,
    config: &RunConfig,
    data: &Datasets,
    until: Option<u64>,
) -> Vec<Result<Summary, TrainerError>> {
    let table = Table { meeting: Barrier::new(size), places: Mutex::new(vec![vec![]; size]) };
    let table = Arc::new(table);
    let stop = StopFlag::new();
    std::thread::scope(|scope| {
        let member = |rank| {
            let (table, stop) = (Arc::clone(&table), stop.clone());
            scope.spawn(move || {
                let team = Team::new(Arc::new(Member::new(rank, size, table)));
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
        };
        let members: Vec<_> = (0..size).map(member).collect();
        members.into_iter().map(|member| member.join().unwrap()).collect()
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
    for (a, b) in found.model.parameters().iter().zip(expected.model.parameters()) {
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
    let table = Table { meeting: Barrier::new(2), places: Mutex::new(vec![vec![]; 2]) };
    let table = Arc::new(table);
    let errors = std::thread::scope(|scope| {
        let members = [0, 1].map(|rank| {
            let (table, config) = (Arc::clone(&table), config(folder.path(), 2));
            scope.spawn(move || {
                let team = Team::new(Arc::new(Member::new(rank, 2, table)));
                let mut data = data(vec![]);
                data.train = Arc::new(Waves { count: 35 + rank, broken: vec![] });
                let config = RunConfig { team, ..config };
                let stop = StopFlag::new();
                pretrain(&config, &data, &Device::cpu(), &stop, &mut |_| {}).err().unwrap()
            })
        });
        members.map(|member| member.join().unwrap().to_string())
    });
    let expected = "process 1 has other settings or images than process 0";
    assert!(errors.iter().all(|error| error.starts_with(expected)), "{errors:?}");
}
