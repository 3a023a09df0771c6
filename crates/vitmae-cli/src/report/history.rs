//! What `log.txt` says of a run, with the parts left out that were made again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

/// One update.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Step {
    /// Its number, from 1.
    pub step: u64,
    /// Where it stands, in epochs.
    pub epoch: f64,
    /// Mean loss of its batches.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Global norm of its gradient.
    pub gradient_norm: f64,
    /// Images of all processes.
    pub images_per_second: f64,
}

/// A run so far.
#[derive(Debug, Default, PartialEq)]
pub struct History {
    /// Updates in order, each once.
    pub steps: Vec<Step>,
    /// Numbers of epochs by the update they end with: `train_loss`, `train_lr` and what an evaluation found.
    pub epochs: BTreeMap<u64, BTreeMap<String, f64>>,
    /// Everything else: resumes, skipped updates, spikes, rollbacks.
    pub notes: Vec<Value>,
}

impl History {
    /// Reads a log; a line cut by a killed run is left out.
    pub fn read(path: &Path) -> Result<History> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("`{}` cannot be read", path.display()))?;
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let mut history = History::default();
        lines.for_each(|line| history.add(line));
        Ok(history)
    }

    fn add(&mut self, line: Value) {
        let step = line["step"].as_u64().unwrap_or(0);
        match line["kind"].as_str() {
            Some("step") => self.steps.extend(serde_json::from_value::<Step>(line)),
            Some(kind @ ("epoch" | "evaluation")) => {
                // As in the original's log, the line of an epoch counts from 0.
                let first = f64::from(u8::from(kind == "epoch"));
                let numbers = self.epochs.entry(step).or_default();
                for (key, value) in line.as_object().into_iter().flatten() {
                    let Some(value) = value.as_f64() else { continue };
                    let value = if key == "epoch" { value + first } else { value };
                    numbers.insert(key.clone(), value);
                }
            }
            Some(kind) => {
                if ["resume", "rollback"].contains(&kind) {
                    self.steps.retain(|made| made.step <= step);
                    self.epochs.retain(|&ends, _| ends <= step);
                }
                self.notes.push(line);
            }
            None => {}
        }
    }

    /// Names of what evaluations found.
    pub fn evaluation_keys(&self) -> BTreeSet<String> {
        let own = ["step", "epoch", "train_loss", "train_lr"];
        let keys = self.epochs.values().flat_map(BTreeMap::keys);
        keys.filter(|key| !own.contains(&key.as_str())).cloned().collect()
    }

    /// What evaluations found under `key`, by update.
    pub fn evaluations(&self, key: &str) -> Vec<(f64, f64)> {
        let found = |(&step, numbers): (&u64, &BTreeMap<String, f64>)| {
            Some((step as f64, *numbers.get(key)?))
        };
        self.epochs.iter().filter_map(found).collect()
    }

    /// The last number under `key`.
    pub fn last(&self, key: &str) -> Option<f64> {
        self.epochs.values().rev().find_map(|numbers| numbers.get(key)).copied()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A run of two epochs that was killed after update 3, resumed at 2, and killed again while it wrote.
    pub const LOG: &str = r#"{"kind":"step","step":1,"epoch":0.0,"loss":2.0,"lr":0.1,"gradient_norm":3.0,"images_per_second":10.0}
{"kind":"step","step":2,"epoch":0.5,"loss":1.5,"lr":0.2,"gradient_norm":2.0,"images_per_second":10.0}
{"kind":"epoch","train_lr":0.2,"train_loss":1.75,"epoch":0,"step":2}
{"kind":"evaluation","step":2,"epoch":1,"val_loss":1.4,"val_accuracy":0.5}
{"kind":"step","step":3,"epoch":1.0,"loss":9.0,"lr":0.3,"gradient_norm":9.0,"images_per_second":10.0}
{"kind":"resume","step":2}
{"kind":"step","step":3,"epoch":1.0,"loss":1.2,"lr":0.3,"gradient_norm":1.0,"images_per_second":20.0}
{"kind":"spike","step":3,"what":"loss","value":1.2,"usual":0.5}
{"kind":"step","st"#;

    pub fn history() -> History {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.txt");
        std::fs::write(&path, LOG).unwrap();
        History::read(&path).unwrap()
    }

    #[test]
    fn what_was_made_again_counts_once() {
        let history = history();
        let losses: Vec<f64> = history.steps.iter().map(|step| step.loss).collect();
        assert_eq!(losses, [2.0, 1.5, 1.2]);
        assert_eq!(history.notes.len(), 2);
        assert_eq!(history.epochs.len(), 1);
        assert_eq!((history.last("epoch"), history.last("train_loss")), (Some(1.0), Some(1.75)));
        assert_eq!(history.evaluations("val_loss"), [(2.0, 1.4)]);
        let keys: Vec<_> = history.evaluation_keys().into_iter().collect();
        assert_eq!(keys, ["val_accuracy", "val_loss"]);
    }
}
