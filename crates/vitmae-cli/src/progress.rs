//! The trainer's events on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::bench::peak_memory;
use indicatif::{ProgressBar, ProgressStyle};
use vitmae_trainer::{Event, Spike, Step};

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How much the newest update counts in the shown loss and speed.
const SMOOTHING: f64 = 0.05;

/// Shows a run; dropping it removes the bar.
pub struct Progress {
    quiet: bool,
    bar: Option<ProgressBar>,
    loss: Option<f64>,
    seconds: f64,
    images: f64,
    data_seconds: f64,
    /// The most that the process has held, where the system tells.
    memory: String,
    last_line: Instant,
}

impl Progress {
    /// Shows nothing if `quiet`, a bar if stderr is a terminal, else lines.
    pub fn new(quiet: bool) -> Progress {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0);
            let style = "{bar:30} {pos}/{len} {msg} ETA {eta}";
            bar.set_style(
                ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar()),
            );
            bar
        });
        Progress {
            quiet,
            bar,
            loss: None,
            seconds: 0.0,
            images: 0.0,
            data_seconds: 0.0,
            memory: String::new(),
            last_line: Instant::now(),
        }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Started(run) => {
                if let Some(bar) = &self.bar {
                    bar.set_length(run.total_steps);
                }
                self.line(&format!(
                    "{} images, {} updates of {} images ({} an epoch), peak lr {:.3e}, {:.2} M \
                     parameters",
                    run.images,
                    run.total_steps,
                    run.effective_batch,
                    run.updates_per_epoch,
                    run.lr,
                    run.parameters as f64 / 1e6
                ));
            }
            Event::Resumed { folder, step } => {
                if let Some(bar) = &self.bar {
                    bar.set_position(*step);
                    bar.reset_eta();
                }
                self.line(&format!("going on from `{}` at step {step}", folder.display()));
            }
            Event::CheckpointSkipped { folder, flaw } => {
                self.line(&format!("warning: `{}` is left out: {flaw}", folder.display()));
            }
            Event::BadSample(bad) => {
                let reason = bad.reason.split("; help: ").next().unwrap_or_default();
                self.line(&format!("warning: sample {} cannot be used: {reason}", bad.sample));
            }
            Event::Evaluated { step, loss, accuracy, images } => {
                let found = accuracy.map(|share| format!(", {:.2} % right", 100.0 * share));
                let found = found.unwrap_or_default();
                self.line(&format!(
                    "step {step}: loss {loss:.5}{found} on {images} evaluation images"
                ));
            }
            Event::Sheet { epoch, path } => {
                self.line(&format!("epoch {epoch}: reconstructions in `{}`", path.display()));
            }
            Event::SheetFailed { epoch, error } => {
                self.line(&format!(
                    "warning: no picture of reconstructions of epoch {epoch}: {error}"
                ));
            }
            Event::Probed { step, accuracy } => {
                let found = 100.0 * accuracy;
                self.line(&format!("step {step}: the probe found {found:.2} % of the epoch"));
            }
            Event::EmaEvaluated { step, loss, accuracy, .. } => {
                let found = accuracy.map(|share| format!(", {:.2} % right", 100.0 * share));
                let found = found.unwrap_or_default();
                self.line(&format!("step {step}: averaged weights: loss {loss:.5}{found}"));
            }
            Event::Saved { folder, step } => {
                self.line(&format!("step {step}: saved `{}`", folder.display()));
            }
            Event::SaveFailed { step, error } => {
                self.line(&format!("warning: the checkpoint of step {step} failed: {error}"));
            }
            Event::Spike { step, spike: Spike { what, value, usual } } => {
                self.line(&format!(
                    "warning: step {step}: the {what} is {value:.4}, usually {usual:.4}"
                ));
            }
            Event::Skipped { step, loss, gradient_norm } => {
                self.line(&format!(
                    "warning: step {step}: loss {loss}, gradient norm {gradient_norm}; the update is \
                     skipped"
                ));
            }
            Event::RolledBack { failed, step, folder } => {
                self.line(&format!(
                    "warning: step {failed} is not finite; going on from `{}` at step {step} with \
                     the images behind it",
                    folder.display()
                ));
                if let Some(bar) = &self.bar {
                    bar.set_position(*step);
                }
            }
            Event::Step(step) => self.step(step),
            _ => {}
        }
    }

    fn step(&mut self, step: &Step) {
        let smooth =
            |old: f64, new: f64| if old == 0.0 { new } else { old + SMOOTHING * (new - old) };
        self.seconds = smooth(self.seconds, step.seconds);
        self.images = smooth(self.images, step.images as f64);
        self.data_seconds = smooth(self.data_seconds, step.data_seconds);
        let loss = smooth(self.loss.unwrap_or(0.0), step.loss);
        // Steady after the first updates, and a file to read.
        if !self.quiet && step.step % 64 == 1 {
            let bytes = peak_memory().unwrap_or(0);
            self.memory = match bytes {
                0 => String::new(),
                bytes => format!(" {:.1} GB", bytes as f64 / 1e9),
            };
        }
        self.loss = Some(loss);
        let numbers = format!(
            "loss {loss:.4} lr {:.2e} {:.1} img/s data {:.0}%{}",
            step.lr,
            self.images / self.seconds,
            100.0 * self.data_seconds / self.seconds,
            self.memory
        );
        if let Some(bar) = &self.bar {
            bar.set_position(step.step);
            bar.set_message(numbers);
        } else if !self.quiet && (self.last_line.elapsed() > LINE_EVERY || step.step == 1) {
            self.last_line = Instant::now();
            let left = (step.total_steps - step.step) as f64 * self.seconds;
            let (at, of) = (step.step, step.total_steps);
            errln!("step {at}/{of} epoch {:.2} {numbers} ETA {left:.0} s", step.epoch);
        }
    }

    /// One line above the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| errln!("{text}")),
            None if !self.quiet => errln!("{text}"),
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
