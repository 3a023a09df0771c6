//! `vitmae data`: look through images before a long training, pack them, measure how fast they are read.

mod bench;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::json;
use vitmae_trainer::data::{Dataset, Parts, open, open_parts, pack};

use crate::Global;
use crate::exit::Usage;

/// Example: vitmae data verify photos
#[derive(Args, Debug)]
pub struct DataArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Decode every image; tell bad ones, copies, sizes and classes
    Verify(verify::VerifyArgs),
    /// Decode every image into one file, which is read faster than images are decoded
    Pack(PackArgs),
    /// Measure how many images are made ready for training in a second
    Bench(bench::BenchArgs),
}

/// Example: vitmae data pack imagenet packed --size 256; vitmae pretrain --data-path packed …
#[derive(Args, Debug)]
struct PackArgs {
    /// Images of any known kind, also with parts called `train` and `val`
    #[arg(value_name = "PATH")]
    source: PathBuf,
    /// File that ends in `.vmpack`, or a folder for `train.vmpack` and `val.vmpack`
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Resize images whose shorter side is longer than this to it [default: as they are]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    size: Option<u32>,
    /// Leave out images that cannot be read
    #[arg(long)]
    skip_bad: bool,
}

/// Runs the command.
pub fn run(args: &DataArgs, global: &Global) -> Result<u8> {
    match &args.action {
        Action::Verify(args) => verify::run(args, global),
        Action::Pack(args) => run_pack(args, global),
        Action::Bench(args) => bench::run(args, global),
    }
}

fn run_pack(args: &PackArgs, global: &Global) -> Result<u8> {
    let mut parts = Vec::new();
    if args.out.extension().is_some_and(|ending| ending == "vmpack") {
        parts.push((open(&args.source)?, args.out.clone()));
    } else {
        if args.out.is_file() {
            let message = format!(
                "`{}` is a file\nhelp: a packed file ends in `.vmpack`; anything else is a folder",
                args.out.display()
            );
            return Err(Usage(message).into());
        }
        let Parts { train, evaluation } = open_parts(&args.source)?;
        parts.push((train, args.out.join("train.vmpack")));
        parts.extend(evaluation.map(|set| (set, args.out.join("val.vmpack"))));
        std::fs::create_dir_all(&args.out)
            .with_context(|| format!("cannot create `{}`", args.out.display()))?;
    }
    let mut results = Vec::new();
    for (set, path) in parts {
        let mut told = told(&path, set.len(), global);
        let summary =
            pack(set.as_ref(), &path, args.size.map(|s| s as usize), args.skip_bad, &mut told)?;
        if !global.quiet {
            for bad in &summary.bad {
                errln!("left out: {}: {}", bad.path, bad.reason);
            }
        }
        if !global.json {
            let (images, bytes) = (summary.images, summary.bytes as f64 / 1e6);
            outln!("{}: {images} images, {bytes:.1} MB", path.display());
        }
        results.push(json!({
            "path": path, "images": summary.images, "bytes": summary.bytes, "left_out": summary.bad,
        }));
    }
    if global.json {
        outln!("{}", json!(results));
    }
    Ok(0)
}

/// A line each tenth of the way.
pub fn told(what: &Path, total: usize, global: &Global) -> impl FnMut(usize) + use<> {
    let (what, quiet) = (what.display().to_string(), global.quiet);
    let mut tenths = 0;
    move |done| {
        if !quiet && (10 * done / total.max(1) > tenths || done == total) {
            tenths = 10 * done / total.max(1);
            errln!("{what}: {done} of {total} images");
        }
    }
}

/// The parts of what lies at a path, with their names.
fn named_parts(path: &Path) -> Result<Vec<(&'static str, Arc<dyn Dataset>)>> {
    let Parts { train, evaluation } = open_parts(path)?;
    let mut parts = vec![("train", train)];
    parts.extend(evaluation.map(|set| ("val", set)));
    Ok(parts)
}
