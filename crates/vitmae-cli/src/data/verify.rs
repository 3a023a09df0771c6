//! `vitmae data verify`: every image decoded once, in parallel.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use vitmae_trainer::data::{BadSample, Dataset};

use crate::Global;
use crate::exit;

/// Images between two looks at the progress.
const CHUNK: usize = 256;
/// Bad images and copies that are named on a terminal; all are in the JSON object.
const NAMED: usize = 20;

/// Example: vitmae data verify photos --json > report.json
///
/// Ends with code 3 if an image cannot be read.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Images of any known kind, also with parts called `train` and `val`
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

/// What was found in a part.
#[derive(Default)]
struct Found {
    images: usize,
    bad: Vec<BadSample>,
    /// Of the same pixels: a later image and the first.
    copies: Vec<(String, String)>,
    /// Number of images of each class.
    classes: BTreeMap<String, usize>,
    /// Smallest and largest side.
    sides: Option<(usize, usize)>,
    /// Number of images by channels.
    channels: BTreeMap<usize, usize>,
}

/// Runs the command.
pub fn run(args: &VerifyArgs, global: &Global) -> Result<u8> {
    let mut seen = HashMap::new();
    let mut report = serde_json::Map::new();
    let mut bad = 0;
    for (name, set) in super::named_parts(&args.path)? {
        let told = super::told(&args.path.join(name), set.len(), global);
        let found = Found::of(set.as_ref(), &mut seen, told);
        bad += found.bad.len();
        if !global.json {
            found.print(name);
        }
        report.insert(name.to_owned(), found.to_json());
    }
    if global.json {
        outln!("{:#}", Value::Object(report));
    }
    Ok(if bad > 0 { exit::INPUT } else { 0 })
}

impl Found {
    fn of(
        set: &dyn Dataset,
        seen: &mut HashMap<[u8; 16], String>,
        mut told: impl FnMut(usize),
    ) -> Found {
        let mut found = Found { images: set.len(), ..Found::default() };
        for first in (0..set.len()).step_by(CHUNK) {
            let last = (first + CHUNK).min(set.len());
            let one = |index: usize| {
                let image = set.load(index)?;
                let mut hash = Sha256::new();
                hash.update([image.width, image.channels].map(usize::to_le_bytes).concat());
                hash.update(&image.data);
                let mut print = [0; 16];
                print.copy_from_slice(&hash.finalize()[..16]);
                Ok::<_, vitmae_image::ImageError>((
                    print,
                    image.width,
                    image.height,
                    image.channels,
                ))
            };
            let images: Vec<_> = (first..last).into_par_iter().map(one).collect();
            for (index, image) in (first..last).zip(images) {
                match image {
                    Ok((print, width, height, channels)) => {
                        let (least, most) = (width.min(height), width.max(height));
                        let sides = found.sides.unwrap_or((least, most));
                        found.sides = Some((sides.0.min(least), sides.1.max(most)));
                        *found.channels.entry(channels).or_default() += 1;
                        let name = set.name(index);
                        if let Some(original) = seen.get(&print) {
                            found.copies.push((name, original.clone()));
                        } else {
                            seen.insert(print, name);
                        }
                    }
                    Err(error) => {
                        found.bad.push(BadSample::of(index as u64, set.name(index), &error));
                    }
                }
                if let Some(class) = set.class(index) {
                    *found.classes.entry(class).or_default() += 1;
                }
            }
            told(last);
        }
        found
    }

    fn print(&self, name: &str) {
        let (least, most) = self.sides.unwrap_or_default();
        outln!(
            "{name}: {} images, sides of {least} to {most} pixels, {} bad, {} copies",
            self.images,
            self.bad.len(),
            self.copies.len()
        );
        if let (Some(least), Some(most)) =
            (self.classes.values().min(), self.classes.values().max())
        {
            outln!("  {} classes of {least} to {most} images", self.classes.len());
        }
        if self.channels.len() > 1 {
            let count = |(channels, count): (&usize, &usize)| format!("{count} with {channels}");
            let all: Vec<String> = self.channels.iter().map(count).collect();
            outln!("  channels: {}", all.join(", "));
        }
        for bad in self.bad.iter().take(NAMED) {
            outln!("  bad: {}: {}", bad.path, bad.reason);
        }
        for (copy, original) in self.copies.iter().take(NAMED) {
            outln!("  copy: {copy} of {original}");
        }
        let more = [self.bad.len(), self.copies.len()].map(|count| count.saturating_sub(NAMED));
        if more[0] + more[1] > 0 {
            outln!("  {} more bad and {} more copies in `--json`", more[0], more[1]);
        }
    }

    fn to_json(&self) -> Value {
        let copies = self.copies.iter();
        let copies: Vec<Value> =
            copies.map(|(copy, original)| json!({"image": copy, "of": original})).collect();
        json!({
            "images": self.images,
            "bad": self.bad,
            "copies": copies,
            "classes": self.classes,
            "least_side": self.sides.map(|sides| sides.0),
            "most_side": self.sides.map(|sides| sides.1),
            "channels": self.channels,
        })
    }
}
