//! `case.json` as it is written, and its checks.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    Case, CaseError, Head, Interpolation, Kind, Layout, Numerics, Optimizer, Schedule, Tensors,
};
use crate::close::Tolerance;

/// The fields of every kind; which of them a kind needs is checked by [`Fields::check`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields {
    kind: KindName,
    numerics: Option<Numerics>,
    layout: Option<Layout>,
    weights: Option<String>,
    interpolate_pos_encoding: Option<bool>,
    interpolation: Option<Interpolation>,
    tolerance: Option<ToleranceFields>,
    /// Where the case came from; free form, for people.
    #[serde(rename = "generator")]
    _generator: Option<serde_json::Value>,
    optimizer: Option<Optimizer>,
    schedule: Option<Schedule>,
    head: Option<Head>,
    image: Option<String>,
    mask_ratio: Option<f64>,
    batch: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToleranceFields {
    atol: f64,
    rtol: f64,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KindName {
    Pretraining,
    Gradients,
    Training,
    Encoder,
    Classification,
    Processor,
    Masking,
    PretrainingHash,
}

impl KindName {
    fn text(self) -> &'static str {
        match self {
            KindName::Pretraining => "pretraining",
            KindName::Gradients => "gradients",
            KindName::Training => "training",
            KindName::Encoder => "encoder",
            KindName::Classification => "classification",
            KindName::Processor => "processor",
            KindName::Masking => "masking",
            KindName::PretrainingHash => "pretraining-hash",
        }
    }

    fn has_weights(self) -> bool {
        !matches!(self, KindName::Processor | KindName::Masking | KindName::PretrainingHash)
    }
}

impl Fields {
    /// The case without its tensors; every field that the kind needs is there and in range.
    pub(super) fn check(self, path: PathBuf) -> Result<Case, CaseError> {
        let name = self.kind;
        let missing =
            |field| CaseError::MissingField { path: path.clone(), kind: name.text(), field };
        let kind = match name {
            KindName::Pretraining => Kind::Pretraining,
            KindName::Gradients => Kind::Gradients,
            KindName::Training => Kind::Training {
                optimizer: self.optimizer.ok_or_else(|| missing("optimizer"))?,
                schedule: self.schedule.ok_or_else(|| missing("schedule"))?,
            },
            KindName::Encoder => Kind::Encoder,
            KindName::Classification => {
                Kind::Classification { head: self.head.ok_or_else(|| missing("head"))? }
            }
            KindName::Processor => {
                Kind::Processor { image: self.image.clone().ok_or_else(|| missing("image"))? }
            }
            KindName::Masking => {
                Kind::Masking { mask_ratio: self.mask_ratio.ok_or_else(|| missing("mask_ratio"))? }
            }
            KindName::PretrainingHash => {
                Kind::PretrainingHash { batch: self.batch.ok_or_else(|| missing("batch"))? }
            }
        };
        let (mut layout, mut weights) = (None, None);
        if name.has_weights() {
            layout = Some(self.layout.ok_or_else(|| missing("layout"))?);
            weights = Some(self.weights.clone().ok_or_else(|| missing("weights"))?);
        }
        let tolerance = match self.tolerance {
            Some(ToleranceFields { atol, rtol }) => Tolerance::new(atol, rtol),
            None if name == KindName::Masking => Tolerance::EXACT,
            None => return Err(missing("tolerance")),
        };
        let interpolate = self.interpolate_pos_encoding.unwrap_or(false);
        let interpolation = interpolate.then(|| self.interpolation.unwrap_or_default());
        let case = Case {
            name: String::new(),
            folder: PathBuf::new(),
            kind,
            numerics: self.numerics.unwrap_or_default(),
            layout,
            weights,
            interpolation,
            tolerance,
            tensors: Tensors::default(),
        };
        check_ranges(&case, path)?;
        Ok(case)
    }
}

/// Refuses values that would let a case pass by accident, and file names that leave the folder.
fn check_ranges(case: &Case, path: PathBuf) -> Result<(), CaseError> {
    let value = |field, found: String, expected| {
        Err(CaseError::Value { path: path.clone(), field, found, expected })
    };
    let Tolerance { abs, rel } = case.tolerance;
    for (field, part) in [("tolerance.atol", abs), ("tolerance.rtol", rel)] {
        if !(part.is_finite() && part >= 0.0) {
            return value(field, part.to_string(), "a finite number that is not negative");
        }
    }
    let mut files: Vec<_> = case.weights.iter().map(|name| ("weights", name)).collect();
    match &case.kind {
        Kind::Masking { mask_ratio } if !(0.0..=1.0).contains(mask_ratio) => {
            return value("mask_ratio", mask_ratio.to_string(), "a number in 0..=1");
        }
        Kind::PretrainingHash { batch: 0 } => return value("batch", "0".to_owned(), "1 or more"),
        Kind::Training { schedule, .. } if schedule.total_steps <= schedule.warmup_steps => {
            let found = schedule.total_steps.to_string();
            return value("schedule.total_steps", found, "more than `schedule.warmup_steps`");
        }
        Kind::Processor { image } => files.push(("image", image)),
        _ => {}
    }
    for (field, name) in files {
        // One plain component: not empty, no folder, no `..`, not absolute.
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return value(field, format!("`{name}`"), "the name of a file in the case's folder");
        }
    }
    Ok(())
}
