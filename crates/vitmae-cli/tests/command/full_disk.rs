//! A disk that takes no more, at any byte of any file: a clear error, and what was written before stays good.
//!
//! The system's limit on the length of a file stands for the disk: a write across it fails as one on a full disk does.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use vitmae_trainer::checkpoint::Manifest;

use crate::setup::{Call, Workplace, result_of};

/// Limits beside those around the ends of files, evenly spread.
const EVEN: u64 = 24;

/// The same command, which can write files of at most `bytes`.
fn limited(command: &Command, bytes: u64) -> Command {
    let mut limited = Command::new("sh");
    // The signal would end the process before it sees that its write failed.
    limited.args(["-c", "trap '' XFSZ; exec prlimit --fsize=\"$@\"", "sh", &bytes.to_string()]);
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

#[test]
fn a_full_disk_ends_a_run_clearly_and_spoils_nothing() {
    let place = Workplace::new(12);
    Call::of(place.pretrain("whole", &["-q"])).succeeded();
    let expected = result_of(&place.path("whole"));
    let files = fs::read_dir(place.path("whole/ckpt-00000012")).unwrap();
    let sizes: Vec<u64> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
    let longest = *sizes.iter().max().unwrap();
    let around = sizes.iter().flat_map(|&size| [1, size / 2, size - 1, size]);
    let limits: BTreeSet<u64> =
        around.chain((0..EVEN).map(|part| part * longest / EVEN)).chain([0]).collect();
    let mut failed = 0;
    for limit in limits {
        let out = format!("run-{limit}");
        let call = Call::of(limited(&place.pretrain(&out, &["-q"]), limit));
        match call.code {
            Some(0) => assert!(limit >= longest, "{limit}"),
            Some(6) => {
                failed += 1;
                let told = ["cannot write", "cannot flush", "cannot create", "no checkpoint"];
                assert!(told.iter().any(|part| call.stderr.contains(part)), "{}", call.stderr);
                assert!(call.stderr.contains("File too large"), "{limit}: {}", call.stderr);
            }
            code => panic!("limit {limit}, code {code:?}: {}", call.stderr),
        }
        // Whatever is called a checkpoint is one, and nothing half-written stays.
        for entry in fs::read_dir(place.path(&out)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(!name.contains(".tmp-"), "{limit}: {name}");
            if name.starts_with("ckpt-") {
                Manifest::verify(&path).unwrap();
            }
        }
        // With room again it ends as the run that always had it.
        Call::of(place.pretrain(&out, &["-q"])).succeeded();
        assert!(result_of(&place.path(&out)) == expected, "{limit}");
    }
    assert!(failed > EVEN, "{failed}");
}
