//! Bad input: the documented exit code, one clear message, no panic, nothing lost.

use std::fs;

use crate::setup::{Call, TINY, Workplace, picture, vitmae};

/// A valid PNG header of any size, and nothing behind it.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let mut crc = u32::MAX;
    for byte in &chunk {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)));
    }
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    file.extend(chunk);
    file.extend((!crc).to_be_bytes());
    file
}

#[test]
fn images_that_cannot_be_used() {
    let place = Workplace::new(12);
    let model = place.model().display().to_string();
    let whole = picture(1);
    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("cut.png", whole[..whole.len() / 2].to_vec(), "is damaged or truncated"),
        ("bomb.png", png_header(50_000, 50_000), "50000, the limit is 32768"),
        ("text.jpg", b"hello".to_vec(), "which is not JPEG, PNG or WebP"),
        ("empty.png", vec![], "which is not JPEG, PNG or WebP"),
    ];
    let out = place.text("sheet.png");
    fs::write(place.path("sheet.png"), "an older result").unwrap();
    for (name, bytes, part) in cases {
        fs::write(place.path(name), bytes).unwrap();
        let image = place.text(name);
        let call = vitmae(&["reconstruct", &image, "--model", &model, "--out", &out]);
        Call::of(call).failed(3, part);
        let features = place.text("x.npy");
        let call = vitmae(&["features", &image, "--model", &model, "--out", &features]);
        Call::of(call).failed(3, part);
        assert!(!place.path("x.npy").exists());
    }
    let missing = place.text("missing.png");
    let call = vitmae(&["reconstruct", &missing, "--model", &model, "--out", &out]);
    Call::of(call).failed(3, "cannot read image");
    assert_eq!(fs::read_to_string(place.path("sheet.png")).unwrap(), "an older result");
}

#[test]
fn bad_images_in_training_follow_the_policy() {
    let place = Workplace::new(12);
    fs::write(place.path("images/5.png"), png_header(50_000, 50_000)).unwrap();
    let call = Call::of(place.pretrain("run", &["--on_bad_sample", "error"]));
    call.failed(3, "5.png` cannot be used");
    let call = Call::of(place.pretrain("run", &[])).succeeded();
    assert_eq!(call.stderr.matches("warning: sample").count(), 1, "{}", call.stderr);
    let list = fs::read_to_string(place.path("run/bad_samples.jsonl")).unwrap();
    assert_eq!(list.lines().count(), 1);
    assert!(list.contains("the limit is 32768"), "{list}");
}

#[test]
fn folders_of_images_that_hold_none() {
    let place = Workplace::new(0);
    Call::of(place.pretrain("run", &[])).failed(3, "holds no images");
    fs::remove_dir(place.path("images")).unwrap();
    Call::of(place.pretrain("run", &[])).failed(3, "cannot list");
    let place = Workplace::new(3);
    Call::of(place.pretrain("run", &[])).failed(3, "3 images are fewer than one update of 4");
}

#[test]
fn weights_that_cannot_be_used() {
    let place = Workplace::new(12);
    let folder = place.model();
    let model = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let model = model.filter(|path| path.is_dir()).max().unwrap();
    let image = place.text("images/1.png");
    let out = place.text("sheet.png");
    let reconstruct = |model: &std::path::Path| {
        let model = model.display().to_string();
        Call::of(vitmae(&["reconstruct", &image, "--model", &model, "--out", &out]))
    };
    reconstruct(&model).succeeded();

    let copy = place.path("copy");
    fs::create_dir(&copy).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(model.join(name), copy.join(name)).unwrap();
    }
    let weights = fs::read(copy.join("model.safetensors")).unwrap();
    let spoiled: [(Vec<u8>, &str); 3] = [
        (weights[..weights.len() - 10].to_vec(), "the file is truncated"),
        (weights[..4].to_vec(), "4 bytes"),
        ([&u64::MAX.to_le_bytes()[..], &weights[8..]].concat(), "header"),
    ];
    for (bytes, part) in spoiled {
        fs::write(copy.join("model.safetensors"), bytes).unwrap();
        reconstruct(&copy).failed(3, part);
    }
    fs::write(copy.join("model.safetensors"), &weights).unwrap();
    let contradiction = TINY.replace("\"hidden_size\": 16", "\"hidden_size\": 24");
    fs::write(copy.join("config.json"), contradiction).unwrap();
    reconstruct(&copy).failed(3, "`hidden_size` is 16 in the weights and 24 in the config");
    fs::write(copy.join("config.json"), TINY.replace("\"patch_size\": 4", "\"patch_size\": 5"))
        .unwrap();
    reconstruct(&copy).failed(3, "not divisible");
    fs::write(copy.join("config.json"), "{").unwrap();
    reconstruct(&copy).failed(3, "not valid JSON");
    reconstruct(&place.path("nothing")).failed(3, "cannot open");
}

#[test]
fn outputs_that_cannot_be_written() {
    let place = Workplace::new(12);
    fs::write(place.path("file"), "in the way").unwrap();
    Call::of(place.pretrain("file/run", &[])).failed(6, "cannot create");
    let model = place.model().display().to_string();
    let (image, out) = (place.text("images/1.png"), place.text("file/sheet.png"));
    let call = vitmae(&["reconstruct", &image, "--model", &model, "--out", &out]);
    Call::of(call).failed(6, "was not written");
    assert_eq!(fs::read_to_string(place.path("file")).unwrap(), "in the way");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_never_costs_the_last_good_checkpoint() {
    use crate::setup::result_of;
    use std::process::Command;

    let place = Workplace::new(12);
    let unbroken = Call::of(place.pretrain("unbroken", &["-q"])).succeeded();
    assert!(unbroken.stdout.contains("ckpt-00000012"));
    // Files may not grow beyond so many blocks of 512 bytes; the last one is enough for a
    // checkpoint's small files but not for its weights.
    for blocks in [0, 1, 4, 16, 40] {
        let out = format!("run-{blocks}");
        let mut first = place.pretrain(&out, &["-q", "--epochs", "4"]);
        first.args(["--keep-last", "1"]);
        // Stopped in the middle by a kill after the first checkpoint would be slow to time:
        // an own run of the same settings is copied instead.
        let source = place.path("unbroken");
        copy_until_half(&source, &place.path(&out));
        let before = result_of(&place.path(&out));
        let mut limited = Command::new("sh");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        limited.args(["-c", &script, "sh"]).arg(first.get_program()).args(first.get_args());
        let call = Call::of(limited);
        call.failed(6, "cannot");
        assert_eq!(result_of(&place.path(&out)), before, "{blocks} blocks");
        Call::of(first).succeeded();
        assert_eq!(result_of(&place.path(&out)), result_of(&source), "{blocks} blocks");
    }

    /// Copies a finished run without its last checkpoint.
    fn copy_until_half(from: &std::path::Path, to: &std::path::Path) {
        fs::create_dir(to).unwrap();
        let mut folders: Vec<_> = fs::read_dir(from).unwrap().map(|e| e.unwrap().path()).collect();
        folders.retain(|path| path.is_dir());
        folders.sort();
        folders.pop();
        for folder in folders {
            let target = to.join(folder.file_name().unwrap());
            fs::create_dir(&target).unwrap();
            for file in fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()) {
                fs::copy(&file, target.join(file.file_name().unwrap())).unwrap();
            }
        }
    }
}

#[test]
fn wrong_usage_and_devices() {
    let place = Workplace::new(12);
    Call::of(place.pretrain("run", &["--device", "cuda:0"])).failed(5, "--features cuda");
    Call::of(vitmae(&["bench", "--device", "gpu"])).failed(5, "--features wgpu");
    Call::of(place.pretrain("run", &["--device", "abacus"])).failed(2, "expected auto, cpu");
    Call::of(place.pretrain("run", &["--mask_ratio", "1.5"])).failed(2, "`--mask-ratio` is 1.5");
    Call::of(place.pretrain("run", &["--no-such-flag"])).failed(2, "--no-such-flag");
    Call::of(vitmae(&["bench", "--model", "giant"])).failed(2, "there is no model `giant`");
    Call::of(vitmae(&["bench", "--precision", "f8"]))
        .failed(2, "[possible values: f32, bf16, int8]");
    assert!(!place.path("run").exists());
}

#[test]
fn a_loss_that_is_no_number_has_its_own_code() {
    let place = Workplace::new(12);
    let call = place.pretrain("run", &["--lr", "1e38", "--warmup_epochs", "0", "-q"]);
    Call::of(call).failed(4, "no update was made");
    assert!(place.path("run/nan_dump").is_dir());
}

#[cfg(not(feature = "mpi"))]
#[test]
fn one_of_several_processes_is_refused_by_a_build_for_one() {
    let place = Workplace::new(8);
    Call::of(with_size(place.pretrain("one", &["-q"]), "1")).succeeded();
    let call = Call::of(with_size(place.pretrain("four", &[]), "4"));
    call.failed(2, "this is one of 4 processes, but this build cannot work with several");
    assert!(!place.path("four").exists());
    let call = Call::of(place.pretrain("four", &["--world_size", "4"]));
    call.failed(2, "`--world-size` is 4, but 1 is running");
}

#[cfg(not(feature = "mpi"))]
fn with_size(mut command: std::process::Command, size: &str) -> std::process::Command {
    command.env("OMPI_COMM_WORLD_SIZE", size);
    command
}
