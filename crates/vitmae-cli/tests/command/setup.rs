//! Running the binary, and folders for it to work in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use vitmae_image::{Image, encode_png};

/// A model small enough that a step takes a millisecond.
pub const TINY: &str = r#"{
    "model_type": "vit_mae", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "decoder_hidden_size": 12, "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 3, "decoder_intermediate_size": 24, "image_size": 16,
    "patch_size": 4, "layer_norm_eps": 1e-06
}"#;

/// The binary with these arguments.
pub fn vitmae(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vitmae"));
    command.args(arguments);
    command
}

/// What one call printed and how it ended.
pub struct Call {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Call {
    pub fn of(mut command: Command) -> Call {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Call { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// The call failed with `code` and one message that holds `part`, and did not panic.
    #[track_caller]
    pub fn failed(&self, code: i32, part: &str) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        let errors: Vec<_> = self.stderr.lines().filter(|l| l.starts_with("error")).collect();
        assert_eq!(errors.len(), 1, "{}", self.stderr);
        assert!(self.stderr.contains(part), "`{part}` is not in: {}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        assert_eq!(self.stdout, "");
    }

    #[track_caller]
    pub fn succeeded(self) -> Call {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }
}

/// A folder with images, a config and room for results.
pub struct Workplace {
    pub folder: TempDir,
}

impl Workplace {
    /// `images` small pictures in `images/`, and `tiny.json`.
    pub fn new(images: usize) -> Workplace {
        let place = Workplace { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("images")).unwrap();
        for index in 0..images {
            fs::write(place.path(&format!("images/{index}.png")), picture(index)).unwrap();
        }
        fs::write(place.path("tiny.json"), TINY).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `vitmae pretrain` of the tiny model into `out`: 12 updates, a checkpoint every 2.
    pub fn pretrain(&self, out: &str, more: &[&str]) -> Command {
        let (data, config, out) = (self.text("images"), self.text("tiny.json"), self.text(out));
        let mut command = vitmae(&["pretrain", "--data_path", &data, "--config", &config]);
        command.args(["--output_dir", &out, "--batch_size=4", "--epochs", "4", "--lr", "1e-3"]);
        command.args(["--warmup_epochs", "1", "--save-every-steps", "2", "--threads", "1"]);
        command.args(more);
        command
    }

    /// Labelled pictures: `set/train` and `set/val` with two classes of four each.
    pub fn labelled(&self) -> PathBuf {
        for part in ["train", "val"] {
            for (class, first) in [("even", 0), ("odd", 1)] {
                let folder = self.path(&format!("set/{part}/{class}"));
                fs::create_dir_all(&folder).unwrap();
                for index in 0..4 {
                    let name = folder.join(format!("{index}.png"));
                    fs::write(name, picture(2 * index + first)).unwrap();
                }
            }
        }
        self.path("set")
    }

    /// A trained tiny model.
    pub fn model(&self) -> PathBuf {
        Call::of(self.pretrain("trained", &["-q"])).succeeded();
        self.path("trained")
    }
}

/// A PNG of coloured waves.
pub fn picture(index: usize) -> Vec<u8> {
    let wave = |at: usize| {
        let (x, y, c) = (at / 3 % 24, at / 72, at % 3);
        let phase = (x * (index % 5 + 1) + y * (index % 3 + 1) + 7 * c + index) as f64;
        (127.0 + 120.0 * (phase * 0.4).sin()) as u8
    };
    encode_png(&Image::new(24, 20, 3, (0..24 * 20 * 3).map(wave).collect()).unwrap()).unwrap()
}

/// Every file of the newest checkpoint in `folder` but those that name the run.
pub fn result_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|path| path.join("MANIFEST.json").exists());
    names.sort();
    let newest = names.pop().unwrap();
    let mut files =
        vec![("step".to_owned(), newest.file_name().unwrap().as_encoded_bytes().into())];
    for name in ["model.safetensors", "optimizer.safetensors", "config.json"] {
        files.push((name.to_owned(), fs::read(newest.join(name)).unwrap()));
    }
    files
}
