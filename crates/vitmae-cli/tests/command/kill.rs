//! Signals and kills: a run that was ended in any way goes on to the same result.
#![cfg(unix)]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::setup::{Call, Workplace, result_of, vitmae};

/// Kills, spread over a run's whole time; `VITMAE_KILLS` asks for another number.
const KILLS: u32 = 25;

#[test]
fn kill_9_at_any_moment_costs_nothing_but_time() {
    let place = Workplace::new(12);
    kill_often(&place, &|out| place.pretrain(out, &["-q", "--epochs", "10"]));
}

#[test]
fn fine_tuning_stands_kill_9_as_well() {
    let place = Workplace::new(12);
    let (model, set) = (place.model().display().to_string(), place.labelled());
    let recipe =
        "--epochs 12 --batch-size 4 --lr 1e-3 --warmup-epochs 1 --mixup 0.2 --threads 1 -q";
    kill_often(&place, &|out| {
        let mut command = vitmae(&["finetune", "--finetune", &model, "--data-path"]);
        command.arg(&set).arg("--output-dir").arg(place.path(out));
        command.args(recipe.split_whitespace());
        command
    });
}

fn kill_often(place: &Workplace, run: &dyn Fn(&str) -> Command) {
    let kills = std::env::var("VITMAE_KILLS").map_or(KILLS, |number| number.parse().unwrap());
    let start = Instant::now();
    Call::of(run("unbroken")).succeeded();
    let whole = start.elapsed();
    let expected = result_of(&place.path("unbroken"));
    for kill in 0..kills {
        let out = format!("run-{kill}");
        let mut wait = whole * (kill + 1) / (kills + 1);
        // How long a run takes depends on what else the machine does: one that ends before its kill is tried again.
        while !killed_after(started(run(&out)), wait) {
            std::fs::remove_dir_all(place.path(&out)).unwrap();
            wait = wait * 3 / 4;
        }
        // Every fourth run is killed twice, the second time while it resumes.
        if kill % 4 == 0 {
            killed_after(started(run(&out)), whole / 5);
        }
        Call::of(run(&out)).succeeded();
        for (found, expected) in result_of(&place.path(&out)).iter().zip(&expected) {
            assert!(found == expected, "kill {kill}: another {}, in {}", found.0, out);
        }
        for entry in std::fs::read_dir(place.path(&out)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.contains(".tmp-"), "kill {kill} left {name}");
        }
    }
}

/// Whether the kill hit a process that was still running.
fn killed_after(mut child: Child, wait: Duration) -> bool {
    std::thread::sleep(wait);
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

#[test]
fn a_signal_ends_the_step_saves_and_sets_the_code() {
    let place = Workplace::new(12);
    let settings = ["-q", "--epochs", "400", "--save-every-steps", "100000"];
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let out = format!("run-{signal}");
        let mut child = started(place.pretrain(&out, &settings));
        wait_for_a_step(&place, &out);
        let id = child.id().to_string();
        Command::new("kill").args(["-s", signal, &id]).status().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(code));
        let saved = result_of(&place.path(&out)); // there is a checkpoint, and it verifies
        let resumed = place.pretrain(&out, &["--epochs", "400", "--save-every-steps", "100000"]);
        let mut resumed = started(resumed);
        std::thread::sleep(Duration::from_millis(300));
        let id = resumed.id().to_string();
        Command::new("kill").args(["-s", signal, &id]).status().unwrap();
        assert_eq!(resumed.wait().unwrap().code(), Some(code));
        assert_ne!(result_of(&place.path(&out))[0], saved[0]); // it went on from there
    }
}

fn started(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until the log has its first update.
fn wait_for_a_step(place: &Workplace, out: &str) {
    let log = place.path(out).join("log.txt");
    let start = Instant::now();
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("\"step\"")) {
        assert!(start.elapsed() < Duration::from_secs(60), "the run did not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}
