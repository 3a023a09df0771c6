//! How well a linear classifier does on given features: multinomial logistic regression.
//!
//!   minimise  (1/N) Σ −log softmax(W x + b)_label  +  ½ λ ‖W‖²      over W, b
//!
//! with x standardised by the training set's mean and standard deviation. The minimum is unique, and
//! L-BFGS in f64 on one thread reaches it without any random number, so the same features always
//! give the same accuracy. λ is chosen on every fifth training sample, then all are used.
//!
//! [`ProbeHead`] is what the original trains instead, by [`train_probe`](crate::train_probe).

use crate::TrainerError;

mod batch_norm;
mod head;
mod lbfgs;

pub use batch_norm::BatchNorm;
pub use head::{ProbeGradient, ProbeHead};

/// Regularisations tried.
const STRENGTHS: [f64; 6] = [1.0, 0.1, 0.03, 0.01, 0.001, 0.0001];
/// Iterations at most.
const ITERATIONS: usize = 200;

/// Features and labels of a set of samples.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// `[N, D]`
    pub features: &'a [f32],
    /// `[N]`, each below the number of classes.
    pub labels: &'a [usize],
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeResult {
    /// Share of test samples that are classified correctly.
    pub accuracy: f64,
    /// The λ chosen.
    pub strength: f64,
    /// Training samples used.
    pub train: usize,
    /// Test samples.
    pub test: usize,
}

/// Trains on `train` and counts the hits on `test`.
///
/// # Errors
/// [`TrainerError::Probe`] if a length does not fit, a set is empty or a label is too large.
pub fn linear_probe(
    train: Labelled<'_>,
    test: Labelled<'_>,
    classes: usize,
) -> Result<ProbeResult, TrainerError> {
    let width = width(train, classes)?;
    let found = self::width(test, classes)?;
    if found != width {
        let what = "width of the test features";
        return Err(TrainerError::Probe { what, found, expected: width });
    }
    let scale = Standardiser::of(train.features, width);
    let train_x = scale.apply(train.features);
    let test_x = scale.apply(test.features);

    let strength = choose_strength(&train_x, train.labels, width, classes);
    let model = fit(&train_x, train.labels, width, classes, strength);
    let accuracy = accuracy(&model, &test_x, test.labels, width, classes);
    let (train, test) = (train.labels.len(), test.labels.len());
    Ok(ProbeResult { accuracy, strength, train, test })
}

/// Width of the features, after checking that everything fits.
fn width(set: Labelled<'_>, classes: usize) -> Result<usize, TrainerError> {
    let count = set.labels.len();
    let wrong = |what, found, expected| Err(TrainerError::Probe { what, found, expected });
    if count == 0 || classes < 2 {
        return wrong("number of samples or classes", count.min(classes), 2);
    }
    if set.features.is_empty() || !set.features.len().is_multiple_of(count) {
        let expected = set.features.len().div_ceil(count).max(1) * count;
        return wrong("number of feature values", set.features.len(), expected);
    }
    match set.labels.iter().find(|&&label| label >= classes) {
        Some(&label) => wrong("largest label", label, classes - 1),
        None => Ok(set.features.len() / count),
    }
}

/// Subtracts the mean and divides by the standard deviation; a constant feature becomes 0.
struct Standardiser {
    mean: Vec<f64>,
    scale: Vec<f64>,
}

impl Standardiser {
    fn of(features: &[f32], width: usize) -> Standardiser {
        let count = (features.len() / width) as f64;
        let mut mean = vec![0.0; width];
        let mut square = vec![0.0; width];
        for row in features.chunks_exact(width) {
            row.iter().zip(&mut mean).for_each(|(&x, mean)| *mean += f64::from(x) / count);
        }
        for row in features.chunks_exact(width) {
            let deviations = row.iter().zip(&mean).map(|(&x, mean)| f64::from(x) - mean);
            deviations.zip(&mut square).for_each(|(d, square)| *square += d * d / count);
        }
        let inverse =
            |variance: &f64| if *variance > 1e-12 { variance.sqrt().recip() } else { 0.0 };
        Standardiser { scale: square.iter().map(inverse).collect(), mean }
    }

    fn apply(&self, features: &[f32]) -> Vec<f64> {
        let width = self.mean.len();
        let scaled = |(at, &x): (usize, &f32)| {
            let column = at % width;
            (f64::from(x) - self.mean[column]) * self.scale[column]
        };
        features.iter().enumerate().map(scaled).collect()
    }
}

/// The strength that does best on every fifth sample, trained on the others; the larger of equals.
fn choose_strength(x: &[f64], labels: &[usize], width: usize, classes: usize) -> f64 {
    let part = |held_out: bool| {
        let chosen = (0..labels.len()).filter(|at| (at % 5 == 4) == held_out);
        let (mut rows, mut some) = (Vec::new(), Vec::new());
        for at in chosen {
            rows.extend_from_slice(&x[at * width..][..width]);
            some.push(labels[at]);
        }
        (rows, some)
    };
    let ((fit_x, fit_y), (held_x, held_y)) = (part(false), part(true));
    if held_y.is_empty() {
        return STRENGTHS[2];
    }
    let mut best = (f64::NEG_INFINITY, STRENGTHS[0]);
    for strength in STRENGTHS {
        let model = fit(&fit_x, &fit_y, width, classes, strength);
        let hits = accuracy(&model, &held_x, &held_y, width, classes);
        if hits > best.0 {
            best = (hits, strength);
        }
    }
    best.1
}

/// The weights `[D + 1, classes]`, the bias last.
fn fit(x: &[f64], labels: &[usize], width: usize, classes: usize, strength: f64) -> Vec<f64> {
    let objective = |weights: &[f64], gradient: &mut [f64]| {
        loss(weights, gradient, x, labels, (width, classes), strength)
    };
    lbfgs::minimise(vec![0.0; (width + 1) * classes], ITERATIONS, objective)
}

/// The regularised loss; `gradient` is overwritten.
fn loss(
    weights: &[f64],
    gradient: &mut [f64],
    x: &[f64],
    labels: &[usize],
    (width, classes): (usize, usize),
    strength: f64,
) -> f64 {
    gradient.fill(0.0);
    let count = labels.len() as f64;
    let mut sum = 0.0;
    let mut scores = vec![0.0; classes];
    for (row, &label) in x.chunks_exact(width).zip(labels) {
        score(weights, row, &mut scores);
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - max).exp()).sum();
        sum += total.ln() + max - scores[label];
        for (class, score) in scores.iter_mut().enumerate() {
            *score = ((*score - max).exp() / total - f64::from(u8::from(class == label))) / count;
        }
        for (gradient, &x) in gradient.chunks_exact_mut(classes).zip(row.iter().chain(&[1.0])) {
            gradient.iter_mut().zip(&scores).for_each(|(g, error)| *g += x * error);
        }
    }
    let regularised = width * classes; // the bias is free
    let mut norm = 0.0;
    for (gradient, weight) in gradient[..regularised].iter_mut().zip(weights) {
        *gradient += strength * weight;
        norm += weight * weight;
    }
    sum / count + 0.5 * strength * norm
}

fn score(weights: &[f64], row: &[f64], scores: &mut [f64]) {
    scores.fill(0.0);
    for (weights, &x) in weights.chunks_exact(scores.len()).zip(row.iter().chain(&[1.0])) {
        scores.iter_mut().zip(weights).for_each(|(score, weight)| *score += x * weight);
    }
}

fn accuracy(weights: &[f64], x: &[f64], labels: &[usize], width: usize, classes: usize) -> f64 {
    let mut scores = vec![0.0; classes];
    let hits = x.chunks_exact(width).zip(labels).filter(|(row, label)| {
        score(weights, row, &mut scores);
        let best = (0..classes).fold(0, |best, c| if scores[c] > scores[best] { c } else { best });
        best == **label
    });
    hits.count() as f64 / labels.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitmae_cpu::random::Stream;

    /// Three clouds in the plane, `spread` wide, around the corners of a triangle.
    fn clouds(seed: u64, count: usize, spread: f64) -> (Vec<f32>, Vec<usize>) {
        let noise = Stream::new(seed, "clouds", 0, 0);
        let labels: Vec<usize> = (0..count).map(|at| at % 3).collect();
        let corner = [(0.0, 0.0), (4.0, 0.0), (0.0, 4.0)];
        let features = labels.iter().enumerate().flat_map(|(at, &label)| {
            let (x, y) = corner[label];
            let at = at as u64 * 2;
            [x + spread * noise.normal(at), y + spread * noise.normal(at + 1)].map(|x| x as f32)
        });
        (features.collect(), labels)
    }

    fn probe(spread: f64) -> ProbeResult {
        let (x, y) = clouds(1, 300, spread);
        let (test_x, test_y) = clouds(2, 300, spread);
        let train = Labelled { features: &x, labels: &y };
        linear_probe(train, Labelled { features: &test_x, labels: &test_y }, 3).unwrap()
    }

    #[test]
    fn separate_clouds_are_told_apart_and_noise_is_not() {
        assert_eq!(probe(0.3).accuracy, 1.0);
        let blurred = probe(50.0).accuracy;
        assert!((0.2..0.5).contains(&blurred), "{blurred}");
        assert_eq!(probe(2.0), probe(2.0));
    }

    #[test]
    fn the_gradient_is_that_of_the_loss_and_vanishes_at_the_minimum() {
        let (x, y) = clouds(3, 30, 1.0);
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let objective = |w: &[f64], gradient: &mut [f64]| loss(w, gradient, &x, &y, (2, 3), 0.05);
        let point: Vec<f64> = (0..9).map(|i| (i as f64 * 0.7).sin()).collect();
        let mut gradient = vec![0.0; 9];
        objective(&point, &mut gradient);
        for at in 0..9 {
            let shifted = |h: f64| {
                let mut point = point.clone();
                point[at] += h;
                objective(&point, &mut [0.0; 9])
            };
            let slope = (shifted(1e-6) - shifted(-1e-6)) / 2e-6;
            assert!((slope - gradient[at]).abs() < 1e-8, "{at}: {slope} {}", gradient[at]);
        }
        let best = fit(&x, &y, 2, 3, 0.05);
        objective(&best, &mut gradient);
        assert!(gradient.iter().all(|g| g.abs() < 1e-6), "{gradient:?}");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let probe = |x: &[f32], y: &[usize]| {
            let set = Labelled { features: x, labels: y };
            linear_probe(set, set, 3).unwrap_err().to_string()
        };
        assert_eq!(
            probe(&[1.0; 5], &[0, 1]),
            "linear probe: number of feature values is 5, expected 6"
        );
        assert_eq!(probe(&[1.0; 4], &[0, 3]), "linear probe: largest label is 3, expected 2");
        assert!(probe(&[], &[]).contains("number of samples"));
    }
}
