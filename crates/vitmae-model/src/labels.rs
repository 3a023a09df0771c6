//! What a classifier is trained towards: labels, and Hugging Face's three losses of them.
//!
//! Scores are few, so that the two losses that no kernel has run in f64 on the calling thread, whatever the
//! device.
//!
//! Source: `ViTForImageClassification.forward` of transformers 4.57.6.

use vitmae_tensor::{Tensor, ops};

use crate::{ModelError, VitMaeConfig};

/// The labels of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Labels<'a> {
    /// `[B]`: a class in `0..classes` for each image; −100 does not count.
    Classes(&'a [i64]),
    /// `[B, classes]`: a number for each score, 0 or 1 with several labels an image.
    Values(&'a [f32]),
    /// `[B, classes]`: how much each image is of each class, for mixed images and smoothed labels.
    Shares(&'a [f32]),
}

impl<'a> From<&'a [i64]> for Labels<'a> {
    fn from(classes: &'a [i64]) -> Self {
        Labels::Classes(classes)
    }
}

impl<'a> From<&'a [f32]> for Labels<'a> {
    fn from(values: &'a [f32]) -> Self {
        Labels::Values(values)
    }
}

/// How labels are meant; Hugging Face's `problem_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemType {
    /// Scores are numbers to be met: mean squared error.
    Regression,
    /// One class an image: cross entropy.
    SingleLabel,
    /// Any number of classes an image: binary cross entropy of each score.
    MultiLabel,
}

impl ProblemType {
    /// As the configuration says; where it is silent, [`Regression`](Self::Regression) for a single score,
    /// else one label an image for [`Labels::Classes`] and several for [`Labels::Values`].
    ///
    /// # Errors
    /// [`ModelError::Recorded`] for a problem type that is none of Hugging Face's.
    pub fn of(config: &VitMaeConfig, labels: Labels<'_>) -> Result<Self, ModelError> {
        match (config.problem_type(), labels) {
            (Some("regression"), _) => Ok(Self::Regression),
            (Some("single_label_classification"), _) => Ok(Self::SingleLabel),
            (Some("multi_label_classification"), _) => Ok(Self::MultiLabel),
            (Some(found), _) => {
                let (key, found) = ("problem_type", found.to_owned());
                Err(ModelError::Recorded { key, found, expected: crate::config::PROBLEM_TYPES })
            }
            (None, _) if config.num_labels() == 1 => Ok(Self::Regression),
            (None, Labels::Classes(_) | Labels::Shares(_)) => Ok(Self::SingleLabel),
            (None, Labels::Values(_)) => Ok(Self::MultiLabel),
        }
    }

    /// The loss of `logits: [B, classes]`, one value.
    pub(crate) fn loss(self, logits: &Tensor, labels: Labels<'_>) -> Result<Tensor, ModelError> {
        match self.targets(logits, labels)? {
            Targets::Classes(classes) => Ok(ops::cross_entropy(logits, classes, 0.0)?),
            Targets::Shares(shares) => {
                let (scores, classes) = (logits.to_vec()?, logits.shape()[1]);
                let rows = scores.chunks(classes).zip(shares.chunks(classes));
                let sum: f64 =
                    rows.map(|(scores, shares)| soft_cross_entropy(scores, shares)).sum();
                let loss = (sum / logits.shape()[0] as f64) as f32;
                Ok(Tensor::from_slice(logits.device(), &[], &[loss])?)
            }
            Targets::Values(targets) => {
                let scores = logits.to_vec()?;
                let pairs = scores.iter().zip(&targets);
                let sum: f64 = pairs.map(|(&x, &t)| self.term(x.into(), t)).sum();
                let loss = (sum / targets.len() as f64) as f32;
                Ok(Tensor::from_slice(logits.device(), &[], &[loss])?)
            }
        }
    }

    /// `scale` times the gradient of [`loss`](Self::loss), `[B, classes]`.
    pub(crate) fn backward(
        self,
        logits: &Tensor,
        labels: Labels<'_>,
        scale: f32,
    ) -> Result<Tensor, ModelError> {
        match self.targets(logits, labels)? {
            Targets::Classes(classes) => {
                Ok(ops::cross_entropy_backward(logits, classes, 0.0, scale)?)
            }
            Targets::Shares(shares) => {
                let (scores, classes) = (logits.to_vec()?, logits.shape()[1]);
                let factor = f64::from(scale) / logits.shape()[0] as f64;
                let rows = scores.chunks(classes).zip(shares.chunks(classes));
                let gradient = rows.flat_map(|(scores, shares)| {
                    let (largest, sum) = normaliser(scores);
                    let total: f64 = shares.iter().map(|&t| f64::from(t)).sum();
                    scores.iter().zip(shares).map(move |(&x, &t)| {
                        let p = (f64::from(x) - largest).exp() / sum;
                        (factor * (p * total - f64::from(t))) as f32
                    })
                });
                Ok(Tensor::from_vec(logits.device(), logits.shape(), gradient.collect())?)
            }
            Targets::Values(targets) => {
                let factor = f64::from(scale) / targets.len() as f64;
                let scores = logits.to_vec()?;
                let pairs = scores.iter().zip(&targets);
                let slope = |(&x, &t): (&f32, &f64)| (factor * self.slope(x.into(), t)) as f32;
                let gradient: Vec<f32> = pairs.map(slope).collect();
                Ok(Tensor::from_vec(logits.device(), logits.shape(), gradient)?)
            }
        }
    }

    /// The loss of one score.
    fn term(self, x: f64, target: f64) -> f64 {
        match self {
            // −t·ln σ(x) − (1 − t)·ln(1 − σ(x)), without an exponential that overflows.
            Self::MultiLabel => x.max(0.0) - x * target + (-x.abs()).exp().ln_1p(),
            _ => (x - target).powi(2),
        }
    }

    /// The derivative of [`term`](Self::term).
    fn slope(self, x: f64, target: f64) -> f64 {
        match self {
            Self::MultiLabel => 1.0 / (1.0 + (-x).exp()) - target,
            _ => 2.0 * (x - target),
        }
    }

    /// The labels as this problem needs them, checked.
    fn targets<'a>(self, logits: &Tensor, labels: Labels<'a>) -> Result<Targets<'a>, ModelError> {
        let &[batch, classes] = logits.shape() else {
            unreachable!("the scores are a matrix, made by a linear layer")
        };
        let (found, expected) = match (self, labels) {
            (Self::SingleLabel, Labels::Classes(labels)) => (labels.len(), batch),
            (Self::SingleLabel, Labels::Shares(shares)) => (shares.len(), batch * classes),
            (Self::SingleLabel, Labels::Values(_)) => {
                return Err(ModelError::LabelKind {
                    problem: "single_label_classification",
                    expected: "one class for each image, `Labels::Classes`, or shares of classes, `Labels::Shares`",
                });
            }
            (Self::MultiLabel, Labels::Classes(_) | Labels::Shares(_)) => {
                return Err(ModelError::LabelKind {
                    problem: "multi_label_classification",
                    expected: "0 or 1 for each image and class, `Labels::Values`",
                });
            }
            (Self::Regression, Labels::Shares(_)) => {
                return Err(ModelError::LabelKind {
                    problem: "regression",
                    expected: "a number for each score, `Labels::Values`",
                });
            }
            (Self::Regression, Labels::Classes(labels)) => (labels.len(), batch * classes),
            (_, Labels::Values(values)) => (values.len(), batch * classes),
        };
        if found != expected {
            return Err(ModelError::Labels { found, expected, batch });
        }
        Ok(match (self, labels) {
            (Self::SingleLabel, Labels::Classes(labels)) => Targets::Classes(labels),
            (_, Labels::Shares(shares)) => Targets::Shares(shares),
            (_, Labels::Classes(numbers)) => {
                Targets::Values(numbers.iter().map(|&number| number as f64).collect())
            }
            (_, Labels::Values(values)) => {
                Targets::Values(values.iter().map(|&value| value.into()).collect())
            }
        })
    }
}

/// Labels that fit the scores.
enum Targets<'a> {
    Classes(&'a [i64]),
    Shares(&'a [f32]),
    Values(Vec<f64>),
}

/// The largest score, and Σ exp(score − largest).
fn normaliser(scores: &[f32]) -> (f64, f64) {
    let largest = scores.iter().fold(f64::NEG_INFINITY, |most, &x| most.max(x.into()));
    (largest, scores.iter().map(|&x| (f64::from(x) - largest).exp()).sum())
}

/// −Σ share · ln softmax(scores).
fn soft_cross_entropy(scores: &[f32], shares: &[f32]) -> f64 {
    let (largest, sum) = normaliser(scores);
    let of_all = largest + sum.ln();
    scores.iter().zip(shares).map(|(&x, &t)| f64::from(t) * (of_all - f64::from(x))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitmae_tensor::Device;

    fn config(labels: usize, problem: Option<&str>) -> VitMaeConfig {
        let mut config = VitMaeConfig::default();
        config.extra.insert("num_labels".into(), labels.into());
        config.extra.insert("problem_type".into(), problem.into());
        config.validate().unwrap();
        config
    }

    #[test]
    fn the_problem_is_told_by_config_then_by_scores_then_by_labels() {
        let (classes, values) = (Labels::Classes(&[1]), Labels::Values(&[1.0]));
        let of = |labels, problem, given| ProblemType::of(&config(labels, problem), given).unwrap();
        assert_eq!(of(1, None, classes), ProblemType::Regression);
        assert_eq!(of(1, Some("multi_label_classification"), values), ProblemType::MultiLabel);
        assert_eq!(of(3, None, classes), ProblemType::SingleLabel);
        assert_eq!(of(3, None, values), ProblemType::MultiLabel);
        assert_eq!(of(3, Some("regression"), values), ProblemType::Regression);
        assert_eq!(of(3, Some("single_label_classification"), values), ProblemType::SingleLabel);
        let mut wrong = VitMaeConfig::default();
        wrong.extra.insert("problem_type".into(), "ranking".into());
        assert_eq!(
            wrong.validate().unwrap_err().to_string(),
            "config: `problem_type` is the string \"ranking\", expected `regression`, \
             `single_label_classification` or `multi_label_classification`"
        );
    }

    #[test]
    fn gradients_are_those_of_the_losses_and_large_scores_stay_finite() {
        let device = Device::cpu();
        let scores = [0.5f32, -1.25, 3.0, 0.0, -200.0, 200.0];
        let targets = [1.0f32, 0.0, 0.25, 1.0, 0.0, 1.0];
        let labels = Labels::Values(&targets);
        for problem in [ProblemType::Regression, ProblemType::MultiLabel] {
            let logits = Tensor::from_slice(&device, &[2, 3], &scores).unwrap();
            assert!(problem.loss(&logits, labels).unwrap().item().unwrap().is_finite());
            let gradient = problem.backward(&logits, labels, 6.0).unwrap().to_vec().unwrap();
            for ((&x, &t), gradient) in scores.iter().zip(&targets).zip(gradient) {
                let (x, t, h) = (f64::from(x), f64::from(t), 1e-4);
                let slope = (problem.term(x + h, t) - problem.term(x - h, t)) / (2.0 * h);
                assert!((f64::from(gradient) - slope).abs() < 1e-5, "{problem:?} {x} {t}");
            }
        }
    }

    #[test]
    fn shares_of_one_class_are_its_label_and_mixed_ones_have_the_losses_gradient() {
        let device = Device::cpu();
        let scores = [0.5f32, -1.25, 3.0, 0.0, -200.0, 200.0];
        let logits = Tensor::from_slice(&device, &[2, 3], &scores).unwrap();
        let problem = ProblemType::SingleLabel;
        let loss = |scores: &[f32], labels| {
            let logits = Tensor::from_slice(&device, &[2, 3], scores).unwrap();
            problem.loss(&logits, labels).unwrap().item().unwrap()
        };
        let backward = |labels| problem.backward(&logits, labels, 3.0).unwrap().to_vec().unwrap();
        let (one, same) = (Labels::Classes(&[1, 2]), [0.0f32, 1.0, 0.0, 0.0, 0.0, 1.0]);
        let close = |a: f32, b: f32| (a - b).abs() < 1e-6 * (1.0 + b.abs());
        assert!(close(loss(&scores, one), loss(&scores, Labels::Shares(&same))));
        let pairs = backward(Labels::Shares(&same)).into_iter().zip(backward(one));
        assert!(pairs.into_iter().all(|(a, b)| close(a, b)));

        let shares = [0.2f32, 0.7, 0.1, 0.5, 0.25, 0.25];
        for (at, gradient) in backward(Labels::Shares(&shares)).into_iter().enumerate() {
            let moved = |by: f32| {
                let mut scores = scores;
                scores[at] += by;
                loss(&scores, Labels::Shares(&shares))
            };
            let slope = 3.0 * (moved(0.05) - moved(-0.05)) / 0.1;
            assert!((gradient - slope).abs() < 2e-3, "{at}: {gradient} and {slope}");
        }
    }

    #[test]
    fn labels_that_do_not_fit_are_named() {
        let logits = Tensor::zeros(&Device::cpu(), &[2, 3]).unwrap();
        let message = |problem: ProblemType, labels| {
            problem.loss(&logits, labels).map(drop).unwrap_err().to_string()
        };
        assert_eq!(
            message(ProblemType::SingleLabel, Labels::Classes(&[1])),
            "classifier: 1 labels for 2 images, expected 2"
        );
        assert_eq!(
            message(ProblemType::MultiLabel, Labels::Values(&[1.0; 5])),
            "classifier: 5 labels for 2 images, expected 6"
        );
        assert_eq!(
            message(ProblemType::MultiLabel, Labels::Classes(&[1, 2])),
            "classifier: `problem_type` is `multi_label_classification`, which takes 0 or 1 for each \
             image and class, `Labels::Values`"
        );
        assert_eq!(
            message(ProblemType::SingleLabel, Labels::Values(&[1.0; 6])),
            "classifier: `problem_type` is `single_label_classification`, which takes one class for \
             each image, `Labels::Classes`, or shares of classes, `Labels::Shares`"
        );
    }
}
