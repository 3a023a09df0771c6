//! Trainings by several processes over MPI: the same results as by one, and the end of all when one fails.
//!
//! `cargo test --release -p vitmae-cli --features mpi --test command mpi::`, with Open MPI's `mpirun`.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use vitmae_weights::SafetensorsFile;

use crate::setup::{Call, Workplace, picture, result_of};

/// Processes that wait for each other are slow where others run beside them, so one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Whether there is Open MPI; says so where there is none.
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
fn ready() -> Option<MutexGuard<'static, ()>> {
    let version = Command::new("mpirun").arg("--version").output();
    if version.is_ok_and(|found| String::from_utf8_lossy(&found.stdout).contains("Open MPI")) {
        return Some(ALONE.lock().unwrap_or_else(|broken| broken.into_inner()));
    }
    println!("SKIPPED: Open MPI's `mpirun` is not installed");
    None
}

/// `mpirun` of so many processes, whose command is to follow.
fn mpirun(processes: usize) -> Command {
    let mut command = Command::new("mpirun");
    // Tests may have fewer cores than processes, and containers no other user.
    command.args(["--oversubscribe", "--allow-run-as-root", "-n", &processes.to_string()]);
    command
}

/// `command` by so many processes.
fn by(processes: usize, command: &Command) -> Command {
    let mut together = mpirun(processes);
    together.arg(command.get_program()).args(command.get_args());
    together
}

/// 35 images, 4 updates of 8 an epoch, 24 updates in all, and three images to evaluate on.
fn place() -> Workplace {
    let place = Workplace::new(35);
    fs::create_dir(place.path("val")).unwrap();
    for index in 0..3 {
        fs::write(place.path(&format!("val/{index}.png")), picture(100 + index)).unwrap();
    }
    place
}

fn pretrain(place: &Workplace, out: &str, batch_size: &str, more: &[&str]) -> Command {
    let validation = place.text("val");
    let mut command = place.pretrain(out, &["--epochs", "6", "--val-path", &validation]);
    command.args(["--batch-size", batch_size]).args(more);
    command
}

/// 400 updates, a checkpoint every 20: time enough to end a job in the middle.
const LONG: [&str; 5] = ["-q", "--epochs", "100", "--save-every-steps", "20"];

/// The values of `key` in the lines of the log that have it.
fn curve(folder: &Path, key: &str) -> Vec<f64> {
    let log = fs::read_to_string(folder.join("log.txt")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter_map(|line| line[key].as_f64()).collect()
}

fn assert_same_curves(a: &Path, b: &Path, lengths: [usize; 2]) {
    for (key, length) in ["loss", "val_loss"].into_iter().zip(lengths) {
        let (a, b) = (curve(a, key), curve(b, key));
        assert_eq!((a.len(), b.len()), (length, length), "{key}");
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() <= 1e-6 * b.abs(), "{key} {a} is not {b}");
        }
    }
}

/// Largest difference of a value of two models, biases of keys left out: their gradient is 0 but for rounding, of which AdamW
/// makes steps.
fn difference(a: &Path, b: &Path) -> f32 {
    let [mut a, mut b] =
        [a, b].map(|path| SafetensorsFile::open(&path.join("model.safetensors")).unwrap());
    let names: Vec<String> = a.tensors().iter().map(|tensor| tensor.name.clone()).collect();
    let names = names.iter().filter(|name| !name.ends_with("attention.key.bias"));
    let mut worst = 0.0;
    for name in names {
        let (a, b) = (a.read_f32(name).unwrap(), b.read_f32(name).unwrap());
        worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
    }
    worst
}

#[test]
fn four_processes_are_one_with_the_batch_of_all_and_always_the_same() {
    let Some(_alone) = ready() else { return };
    let place = place();
    Call::of(pretrain(&place, "one", "8", &[])).succeeded();
    let four = Call::of(by(4, &pretrain(&place, "four", "2", &[]))).succeeded();
    let checkpoint = place.path("four/ckpt-00000024");
    // The others are silent.
    assert_eq!(four.stdout.trim(), checkpoint.display().to_string());
    assert_eq!(four.stderr.matches("24 updates of 8 images").count(), 1, "{}", four.stderr);
    assert_same_curves(&place.path("four"), &place.path("one"), [24, 6]);
    let difference = difference(&checkpoint, &place.path("one/ckpt-00000024"));
    assert!(difference < 1e-6, "{difference}");

    Call::of(by(4, &pretrain(&place, "again", "2", &["-q"]))).succeeded();
    assert_eq!(result_of(&place.path("again")), result_of(&place.path("four")));
    assert_eq!(curve(&place.path("again"), "val_loss"), curve(&place.path("four"), "val_loss"));
}

#[test]
fn a_signal_to_one_stops_all_at_one_step_and_two_go_on() {
    let Some(_alone) = ready() else { return };
    let place = place();
    Call::of(pretrain(&place, "whole", "8", &LONG)).succeeded();
    let mut child = Marked::start(&place, 4, &pretrain(&place, "run", "2", &LONG));
    child.wait_for_step(&place.path("run"), 25);
    child.signal("TERM", 2);
    assert_eq!(child.ends(), Some(143));
    let folder = place.path("run");
    let steps = curve(&folder, "loss").len();
    let checkpoint = folder.join(format!("ckpt-{steps:08}"));
    assert!(checkpoint.join("MANIFEST.json").exists() && steps < 400, "{steps} steps");

    let refused = Call::of(by(3, &pretrain(&place, "run", "2", &LONG)));
    refused.failed(3, "`processes` 4, now 3");
    Call::of(by(2, &pretrain(&place, "run", "4", &LONG))).succeeded();
    assert_same_curves(&folder, &place.path("whole"), [400, 100]);
}

#[test]
fn a_killed_process_ends_all_and_the_last_checkpoint_is_good() {
    let Some(_alone) = ready() else { return };
    let place = place();
    Call::of(by(4, &pretrain(&place, "whole", "2", &LONG))).succeeded();
    for rank in [0, 3] {
        let out = format!("run-{rank}");
        let mut child = Marked::start(&place, 4, &pretrain(&place, &out, "2", &LONG));
        child.wait_for_step(&place.path(&out), 25);
        child.signal("KILL", rank);
        assert_ne!(child.ends(), Some(0));
        Call::of(by(4, &pretrain(&place, &out, "2", &LONG))).succeeded();
        assert_eq!(result_of(&place.path(&out)), result_of(&place.path("whole")), "{rank}");
    }
}

#[test]
fn what_fails_in_one_or_differs_is_said_and_ends_all() {
    let Some(_alone) = ready() else { return };
    let place = place();
    for (last, code, message) in [
        (["--config", "nowhere.json"], 3, "error: process 1 of 2: there is no file `nowhere.json`"),
        (["--seed", "5"], 1, "error: process 0 of 2: process 1 has other settings or images"),
    ] {
        let (first, other) =
            (pretrain(&place, "run", "2", &[]), pretrain(&place, "run", "2", &last));
        let mut both = by(1, &first);
        both.args([":", "-n", "1"]).arg(other.get_program()).args(other.get_args());
        let call = Call::of(both);
        assert_eq!(call.code, Some(code), "{}", call.stderr);
        assert_eq!(call.stderr.matches("error: process").count(), 1, "{}", call.stderr);
        assert!(call.stderr.contains(message), "{}", call.stderr);
    }
    let call = Call::of(by(2, &pretrain(&place, "run", "2", &["--world-size", "4"])));
    assert_eq!(call.code, Some(2), "{}", call.stderr);
    assert!(call.stderr.contains("`--world-size` is 4, but 2"), "{}", call.stderr);
}

#[test]
fn two_processes_fine_tune_and_evaluate_as_one() {
    let Some(_alone) = ready() else { return };
    let place = place();
    let model = place.model();
    for index in 0..35 {
        let part = if index < 28 { "train" } else { "val" };
        let folder = place.path(&format!("classes/{part}/{}", index % 2));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{index}.png")), picture(index)).unwrap();
    }
    let finetune = |out: &str, batch_size: &str| {
        let (data, out) = (place.text("classes"), place.text(out));
        let mut command = crate::setup::vitmae(&["finetune", "--data-path", &data, "-q", "--json"]);
        command.args(["--finetune", &model.display().to_string(), "--output-dir", &out]);
        command.args(["--batch-size", batch_size, "--epochs", "6", "--lr", "1e-3"]);
        // What is drawn by the batch differs with its size.
        command.args(["--warmup-epochs", "1", "--drop-path", "0", "--threads", "1"]);
        command
    };
    let one = Call::of(finetune("one", "4")).succeeded();
    let two = Call::of(by(2, &finetune("two", "2"))).succeeded();
    assert_same_curves(&place.path("two"), &place.path("one"), [42, 6]);
    let [one, two] = [one, two].map(|call| {
        serde_json::from_str::<serde_json::Value>(&call.stdout).unwrap()["val_accuracy"].clone()
    });
    assert!(one.is_f64() && one == two, "{one} is not {two}");
}

/// `vitmae` with `words`, and a place for what it writes.
fn judging(words: &str, out: &str) -> Command {
    let mut command = crate::setup::vitmae(&words.split_whitespace().collect::<Vec<_>>());
    command.args(out.split_whitespace()).args(["--threads", "1"]);
    command
}

#[test]
fn several_processes_judge_as_one_and_one_of_them_writes() {
    let Some(_alone) = ready() else { return };
    let place = place();
    let (model, set) =
        (place.model().display().to_string(), place.labelled().display().to_string());
    let tuned = place.text("tuned");
    let finetune = format!("finetune -q --finetune {model} --data-path {set} --output-dir {tuned}");
    Call::of(judging(&finetune, "--epochs 2 --batch-size 4 --lr 1e-3")).succeeded();
    let judged = format!("--model {model} --data-path {set}");
    let images = format!("{set}/val/even/0.png {set}/val/even/1.png {set}/val/odd/0.png");
    // Eight images: batches of three give the second of two processes one batch, the last of four none.
    for (words, files) in [
        (format!("evaluate --model {tuned} --data-path {set} --batch-size 3"), vec![]),
        (format!("evaluate --json --model {tuned} --data-path {set} --batch-size 3"), vec![]),
        (format!("knn --json {judged} --k 3 --batch-size 3"), vec![]),
        (format!("linprobe --json {judged} --batch-size 3"), vec![]),
        (format!("quality --json {judged} --masks 2"), vec!["--csv", "--anomaly"]),
        (format!("features {images} --model {model}"), vec!["--out"]),
    ] {
        let of = |processes: usize| {
            let folder = place.path(&format!("judged-{processes}"));
            fs::create_dir_all(&folder).unwrap();
            let out = |flag: &&str| match *flag {
                "--csv" => format!("--csv {}", folder.join("a.csv").display()),
                "--anomaly" => format!("--anomaly {}", folder.join("maps").display()),
                flag => format!("{flag} {}", folder.join("a.npy").display()),
            };
            let out = files.iter().map(out).collect::<Vec<_>>().join(" ");
            let command = judging(&words, &out);
            let call = Call::of(if processes == 1 { command } else { by(processes, &command) });
            let call = call.succeeded();
            let written = written_in(&folder);
            fs::remove_dir_all(&folder).unwrap();
            (call.stdout.replace(&folder.display().to_string(), "OUT"), written)
        };
        let alone = of(1);
        assert!(!alone.0.is_empty());
        assert_eq!(alone.1.len(), [0, 1, 17][files.len()], "{words}");
        for processes in [2, 4] {
            assert_eq!(of(processes), alone, "{words}, {processes} processes");
        }
    }
    let evaluate = |batch_size: &str| {
        let words = format!("evaluate --model {tuned} --data-path {set} --batch-size {batch_size}");
        judging(&words, "")
    };
    let (mut both, other) = (by(1, &evaluate("3")), evaluate("2"));
    both.args([":", "-n", "1"]).arg(other.get_program()).args(other.get_args());
    let call = Call::of(both);
    assert_eq!((call.code, call.stdout.as_str()), (Some(1), ""), "{}", call.stderr);
    let message = "error: process 0 of 2: process 1 has other settings or images";
    assert!(call.stderr.contains(message), "{}", call.stderr);
    let lars = format!("linprobe --optimizer lars {judged} --batch-size 3");
    let call = Call::of(by(2, &judging(&lars, &format!("--output-dir {}", place.text("lars")))));
    assert_eq!(call.code, Some(2), "{}", call.stderr);
    assert!(
        call.stderr.contains("`processes` is 2, expected 1 for a linear probe"),
        "{}",
        call.stderr
    );
}

/// The files below `folder`, with their bytes.
fn written_in(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(written_in(&path));
        } else {
            all.push((path.file_name().unwrap().into(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

/// A running job of which each process can be found.
struct Marked<'a> {
    place: &'a Workplace,
    child: Child,
}

impl Marked<'_> {
    fn start<'a>(place: &'a Workplace, processes: usize, command: &Command) -> Marked<'a> {
        // Each shell leaves its number, then becomes the program.
        let script = "echo $$ > \"$0-$OMPI_COMM_WORLD_RANK\"; exec \"$@\"";
        let mut job = mpirun(processes);
        job.args(["sh", "-c", script, &place.text("process")]);
        job.arg(command.get_program()).args(command.get_args());
        let child = job.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Marked { place, child }
    }

    /// Waits until the log has `step` updates.
    fn wait_for_step(&mut self, folder: &Path, step: usize) {
        let start = Instant::now();
        let log = folder.join("log.txt");
        let steps = || fs::read_to_string(&log).map_or(0, |text| text.matches("\"loss\"").count());
        while steps() < step {
            assert!(start.elapsed() < Duration::from_secs(60), "the job does not get on");
            assert_eq!(self.child.try_wait().unwrap(), None, "the job ended");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: &str, rank: usize) {
        let id = fs::read_to_string(self.place.path(&format!("process-{rank}"))).unwrap();
        let status = Command::new("kill").args(["-s", signal, id.trim()]).status().unwrap();
        assert!(status.success());
    }

    /// The launcher's exit code; a job that goes on is a failure.
    fn ends(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the job does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
