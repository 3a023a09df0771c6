//! `cargo xtask fixtures`: regenerates the reference's outputs, or checks that they are the ones signed.

mod manifest;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::command::Line;
use crate::usage::Usage;
use crate::workspace;

pub(crate) const HELP: &str = "cargo xtask fixtures [--check | --sign]

Makes Python environments with pinned packages under target/fixtures-venv (or in $VITMAE_VENV), runs the
scripts of tests/generate and replaces tests/fixtures/{images,sets,augment,training,parity,parity-later}, conversions.json, onnx.json
and event-files.json.
Downloads about 6 GB once.

  --check   only compare tests/fixtures with its MANIFEST.sha256: every hash, nothing unlisted, no file
            above 1 MB, all together at most 15 MB; needs neither Python nor a network
  --sign    only write MANIFEST.sha256 anew, after a fixture was added by hand
";

/// Where the fixtures lie.
const FIXTURES: &str = "tests/fixtures";
/// The case whose model is converted to every layout.
const CONVERTED: &str = "pretraining-batch-of-five";
/// Overrides the folder of the environments.
const VENV: &str = "VITMAE_VENV";

pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let fixtures = workspace::root().join(FIXTURES);
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            regenerate(&fixtures)?;
            sign(&fixtures)
        }
        ["--check"] => check(&fixtures),
        ["--sign"] => sign(&fixtures),
        _ => Err(Usage(format!("unknown arguments\n\n{HELP}")).into()),
    }
}

/// Compares the fixtures with their manifest.
fn check(fixtures: &Path) -> anyhow::Result<()> {
    let problems = manifest::check(fixtures)?;
    if !problems.is_empty() {
        bail!(
            "the fixtures are not those of {FIXTURES}/{}:\n  {}\n\
             help: `cargo xtask fixtures` regenerates them, `cargo xtask fixtures --sign` accepts them",
            manifest::NAME,
            problems.join("\n  ")
        );
    }
    println!("fixtures: {}", manifest::summary(fixtures)?);
    Ok(())
}

fn sign(fixtures: &Path) -> anyhow::Result<()> {
    manifest::write(fixtures)?;
    check(fixtures)
}

/// Runs every generator into a new folder, then puts its results in place.
fn regenerate(fixtures: &Path) -> anyhow::Result<()> {
    let python = Environments::make()?;
    let new = workspace::root().join("target/fixtures-new");
    if new.exists() {
        std::fs::remove_dir_all(&new)?;
    }
    std::fs::create_dir_all(&new)?;
    let into = |folder: &str| new.join(folder).display().to_string();

    python.script("images.py").argument(into("images")).run()?;
    Line::new(&python.sets, "-B tests/generate/sets.py").argument(into("sets")).run()?;
    let timm = python.timm.display().to_string();
    for (script, folder) in [("augment.py", "augment"), ("mixing.py", "training")] {
        python.script(script).environment("PYTHONPATH", &timm).argument(into(folder)).run()?;
    }
    python.script("linear_probe.py").argument(into("training")).run()?;
    let images = python.script("parity.py").argument(into("parity"));
    images.run()?;
    python.script("parity_layouts.py").argument(into("parity")).run()?;
    let newer =
        python.script("parity5.py").environment("PYTHONPATH", python.newer.display().to_string());
    newer.argument(into("parity")).argument(into("parity-later")).run()?;
    // After the others: it adds to their folder.
    python.tensorflow_script("parity_tf.py").argument(into("parity")).run()?;

    python.check_conversions(&new)?;
    python
        .onnx_script("check_onnx.py")
        .argument(into("parity"))
        .argument(into("onnx.json"))
        .run()?;
    Line::new(&python.tensorboard, "-B tests/generate/check_event_files.py")
        .argument(into("event-files.json"))
        .run()?;

    for name in [
        "images",
        "sets",
        "augment",
        "training",
        "parity",
        "parity-later",
        "conversions.json",
        "onnx.json",
        "event-files.json",
    ] {
        replace(&new.join(name), &fixtures.join(name))?;
    }
    Ok(())
}

/// The Python environments: one with the pinned packages, and beside it transformers 5 for `PYTHONPATH`,
/// so that PyTorch is installed once; timm for it too; and one of its own for TensorFlow, which pins an older NumPy,
/// for ONNX Runtime, for TensorBoard, and for what writes data sets.
struct Environments {
    python: String,
    newer: PathBuf,
    timm: PathBuf,
    tensorflow: String,
    onnx: String,
    tensorboard: String,
    sets: String,
}

impl Environments {
    /// Installs what is missing; a second call only lets pip look.
    fn make() -> anyhow::Result<Self> {
        let venv = match std::env::var_os(VENV) {
            Some(path) => std::path::absolute(path)?,
            None => workspace::root().join("target/fixtures-venv"),
        };
        let python = python_of(&venv)?;
        let install = |requirements: &[&str]| install(&python, requirements);
        install(&["parity", "images"]).run()?;
        let newer = venv.join("transformers5");
        if !newer.exists() {
            install(&["parity5"])
                .argument("--target")
                .argument(newer.display().to_string())
                .run()?;
        }
        let timm = venv.join("timm");
        if !timm.exists() {
            let line = install(&["timm"]).argument("--no-deps").argument("--target");
            line.argument(timm.display().to_string()).run()?;
        }
        let tensorflow = python_of(&venv.join("tensorflow"))?;
        self::install(&tensorflow, &["parity-tf"]).run()?;
        let onnx = python_of(&venv.join("onnx"))?;
        self::install(&onnx, &["onnx"]).run()?;
        let tensorboard = python_of(&venv.join("tensorboard"))?;
        self::install(&tensorboard, &["tensorboard"]).run()?;
        let sets = python_of(&venv.join("sets"))?;
        self::install(&sets, &["sets"]).run()?;
        Ok(Self { python, newer, timm, tensorflow, onnx, tensorboard, sets })
    }

    fn script(&self, name: &str) -> Line {
        Line::new(&self.python, "-B").argument(format!("tests/generate/{name}"))
    }

    /// Converts a model of the new cases to every layout and lets each library load what it can.
    fn check_conversions(&self, new: &Path) -> anyhow::Result<()> {
        let (model, files) = (new.join("parity").join(CONVERTED), new.join("converted"));
        let (model, result) = (model.display().to_string(), new.join("conversions.json"));
        for target in ["hf", "hf-bare", "hf5", "fb", "tf-h5", "tf-safetensors", "timm"] {
            let name = if target == "fb" { "fb.pth" } else { target };
            Line::cargo("run --quiet --release --package vitmae-cli -- convert")
                .argument(model.clone())
                .argument(format!("--to={target}"))
                .argument(files.join(name).display().to_string())
                .run()?;
        }
        let script = "check_conversions.py";
        let newer = self.script(script).environment("PYTHONPATH", self.newer.display().to_string());
        let timm = self.script(script).environment("PYTHONPATH", self.timm.display().to_string());
        let lines = [
            (self.script(script), None),
            (newer, None),
            (self.tensorflow_script(script), None),
            (timm, Some("--timm")),
        ];
        for (line, option) in lines {
            let line = line.argument(model.clone()).argument(files.display().to_string());
            option
                .into_iter()
                .fold(line.argument(result.display().to_string()), Line::argument)
                .run()?;
        }
        Ok(())
    }

    fn onnx_script(&self, name: &str) -> Line {
        Line::new(&self.onnx, "-B").argument(format!("tests/generate/{name}"))
    }

    fn tensorflow_script(&self, name: &str) -> Line {
        Line::new(&self.tensorflow, "-B").argument(format!("tests/generate/{name}"))
    }
}

/// The interpreter of the environment `venv`, which is made if it is not there.
fn python_of(venv: &Path) -> anyhow::Result<String> {
    let python = venv.join("bin/python").display().to_string();
    if !Path::new(&python).exists() {
        let line = Line::new("python3", "-m venv").argument(venv.display().to_string());
        line.run().context("Python 3.11 or later with its `venv` module is needed")?;
    }
    Ok(python)
}

/// The command that installs the packages of these lists.
fn install(python: &str, requirements: &[&str]) -> Line {
    let line = Line::new(python, "-m pip install --quiet --disable-pip-version-check");
    requirements.iter().fold(line, |line, name| {
        line.argument("--requirement").argument(format!("tests/generate/requirements-{name}.txt"))
    })
}

/// Puts the folder or file `from` in the place of `to`.
fn replace(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.is_dir() {
        std::fs::remove_dir_all(to).with_context(|| format!("`{}`", to.display()))?;
    }
    std::fs::rename(from, to).with_context(|| format!("`{}` to `{}`", from.display(), to.display()))
}
