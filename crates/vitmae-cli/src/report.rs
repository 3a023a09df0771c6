//! `vitmae report`: a run's numbers as tables, curves and a page, from what it has written so far.

mod history;
mod page;
mod tables;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use vitmae_trainer::Event;

use crate::chart::{self, Panel, smooth};
use crate::progress::Progress;
use crate::{Global, exit::BadInput};
use history::History;

/// Least time between two reports of a running training.
const EVERY: Duration = Duration::from_secs(30);

/// Example: vitmae report run
///
/// A training writes the same by itself, now and then and at its end.
#[derive(Args, Debug)]
pub struct ReportArgs {
    /// Output folder of a pre-training or fine-tuning
    #[arg(value_name = "DIR")]
    run: PathBuf,
}

/// Runs the command.
pub fn run(args: &ReportArgs, global: &Global) -> Result<u8> {
    if !args.run.join("log.txt").is_file() {
        let message = format!(
            "`{}` has no `log.txt`\nhelp: give the `--output-dir` of a `vitmae pretrain` or `vitmae finetune`",
            args.run.display()
        );
        return Err(BadInput(message).into());
    }
    let page = write(&args.run)?;
    if global.json {
        outln!("{}", serde_json::json!({ "report": page }));
    } else {
        outln!("{}", page.display());
    }
    Ok(0)
}

/// Writes `steps.csv`, `epochs.csv`, `curves.svg` and `report.html` into the folder of a run; gives the page's path.
pub fn write(folder: &Path) -> Result<PathBuf> {
    let history = History::read(&folder.join("log.txt"))?;
    let curves = chart::svg(&panels(&history))?;
    replace(folder, "steps.csv", &tables::steps(&history))?;
    replace(folder, "epochs.csv", &tables::epochs(&history))?;
    replace(folder, "report.html", &page::html(folder, &history, &curves))?;
    replace(folder, "curves.svg", &curves)?;
    Ok(folder.join("report.html"))
}

/// Writes a file at once, so that nobody reads half of it. What a kill leaves is used again, since these names are the same
/// each time.
fn replace(folder: &Path, name: &str, text: &str) -> Result<()> {
    let (part, path) = (folder.join(format!(".{name}.part")), folder.join(name));
    std::fs::write(&part, text)
        .and_then(|()| std::fs::rename(&part, &path))
        .with_context(|| format!("`{}` was not written", path.display()))
}

/// Keeps a running training's report up to date.
pub struct Reporter {
    folder: PathBuf,
    last: Instant,
}

impl Reporter {
    /// Reports about the run in `folder`.
    pub fn new(folder: &Path) -> Reporter {
        Reporter { folder: folder.to_path_buf(), last: Instant::now() }
    }

    /// After a checkpoint, if the last report is some time ago. A failure is a warning: the run itself is well.
    pub fn see(&mut self, event: &Event<'_>, progress: &Progress) {
        if matches!(event, Event::Saved { .. }) && self.last.elapsed() > EVERY {
            self.write(progress);
        }
    }

    /// Writes the report now.
    pub fn write(&mut self, progress: &Progress) {
        if let Err(error) = write(&self.folder) {
            progress.line(&format!("warning: there is no new report: {error:#}"));
        }
        self.last = Instant::now();
    }
}

/// What is drawn: losses and shares, then what tells how training goes.
fn panels(history: &History) -> Vec<Panel> {
    let evaluated = |wanted: &dyn Fn(&str) -> bool| {
        let keys = history.evaluation_keys().into_iter().filter(|key| wanted(key));
        keys.map(|key| (key.clone(), history.evaluations(&key))).collect::<Vec<_>>()
    };
    let of_steps = |name: &str, value: fn(&history::Step) -> f64| {
        let points: Vec<_> = history.steps.iter().map(|s| (s.step as f64, value(s))).collect();
        (name.to_owned(), points)
    };
    let (name, losses) = of_steps("training (smoothed)", |step| step.loss);
    let mut loss = vec![(name, smooth(&losses))];
    loss.extend(evaluated(&|key| key.contains("loss")));
    let panel = |title: &str, curves| Panel { title: title.to_owned(), curves };
    let mut panels = vec![panel("loss", loss)];
    let shares = evaluated(&|key| key.contains("accuracy"));
    if !shares.is_empty() {
        panels.push(panel("share found", shares));
    }
    panels.extend([
        panel("learning rate", vec![of_steps("lr", |step| step.lr)]),
        panel("gradient norm", vec![of_steps("norm", |step| step.gradient_norm)]),
        panel("images per second", vec![of_steps("speed", |step| step.images_per_second)]),
    ]);
    panels
}
