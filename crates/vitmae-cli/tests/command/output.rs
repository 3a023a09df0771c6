//! Results that nobody reads to the end, and a terminal that goes away.

use std::io;
use std::os::unix::process::ExitStatusExt;

use crate::setup::{Call, Workplace, result_of, vitmae};

const SIGPIPE: i32 = 13;

/// The writing end of a pipe of which nobody has the other.
fn unread() -> io::PipeWriter {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer
}

#[test]
fn a_reader_that_goes_away_ends_a_command_without_a_message() {
    let place = Workplace::new(12);
    let model = place.model().display().to_string();
    for arguments in [
        &["recipes", "list"][..],
        &["recipes", "list", "--json"],
        &["recipes", "show", "pretrain-base"],
        &["inspect", &model],
        &["inspect", &model, "--json"],
    ] {
        let mut command = vitmae(arguments);
        let output = command.stdout(unread()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.signal(), &*stderr), (Some(SIGPIPE), ""), "{arguments:?}");
    }
    // What `clap` prints is not ours to print.
    let output = vitmae(&["--help"]).stdout(unread()).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[test]
fn a_training_goes_on_when_nobody_reads_its_progress() {
    let place = Workplace::new(12);
    Call::of(place.pretrain("watched", &[])).succeeded();
    let output = place.pretrain("alone", &[]).stderr(unread()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(result_of(&place.path("alone")) == result_of(&place.path("watched")));
}

#[test]
#[cfg(target_os = "linux")]
fn results_that_do_not_fit_the_disk_are_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = vitmae(&["recipes", "list"]).stdout(full).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(stderr.starts_with("error: the results cannot be written: No space left"), "{stderr}");
}
