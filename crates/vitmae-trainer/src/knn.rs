//! Classification by the nearest neighbours of given features: no training, no random number.
//!
//!   similarity = x·t / (|x| |t|)      vote of each of the k nearest training samples = exp(similarity / T)
//!
//! Source: Wu et al., arXiv:1805.01978, section 3.4, with k = 20 and T = 0.07 as in the evaluation of DINO,
//! arXiv:2104.14294.

use vitmae_tensor::ops::{self, Precision, Weight};
use vitmae_tensor::{Device, Tensor};

use crate::TrainerError;
use crate::linear_probe::Labelled;

/// Similarities that are in memory at once, about.
const SIMILARITIES: usize = 1 << 22;

/// How neighbours vote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KnnOptions {
    /// Neighbours, at least 1.
    pub k: usize,
    /// T, above 0: the smaller, the more the nearest ones count.
    pub temperature: f64,
}

impl Default for KnnOptions {
    /// k = 20, T = 0.07.
    fn default() -> Self {
        Self { k: 20, temperature: 0.07 }
    }
}

/// The class that the neighbours of each row of `test`, `[M, D]`, vote for, among `classes`. Of equal similarities
/// the earlier sample is nearer, of equal votes the smaller class wins.
///
/// # Errors
/// [`TrainerError::Probe`] if a length does not fit, a set is empty, a label is too large, or an option is out of
/// range.
pub fn knn(
    train: Labelled<'_>,
    test: &[f32],
    classes: usize,
    options: KnnOptions,
) -> Result<Vec<usize>, TrainerError> {
    let count = train.labels.len();
    let wrong = |what, found, expected| Err(TrainerError::Probe { what, found, expected });
    if count == 0 || train.features.is_empty() || !train.features.len().is_multiple_of(count) {
        return wrong("number of training features", train.features.len(), count.max(1));
    }
    let width = train.features.len() / count;
    if !test.len().is_multiple_of(width) {
        return wrong("number of test features", test.len(), test.len().next_multiple_of(width));
    }
    if let Some(&label) = train.labels.iter().find(|&&label| label >= classes) {
        return wrong("largest label", label, classes.saturating_sub(1));
    }
    if options.k == 0 || !options.temperature.is_finite() || options.temperature <= 0.0 {
        return wrong("number of neighbours, and temperature above 0,", options.k, 1);
    }
    let device = Device::cpu();
    let known = Tensor::from_vec(&device, &[count, width], unit(train.features, width))?;
    let rows = (SIMILARITIES / count).max(1) * width;
    let mut predictions = Vec::with_capacity(test.len() / width);
    for some in test.chunks(rows) {
        let x = Tensor::from_vec(&device, &[some.len() / width, width], unit(some, width))?;
        let weight = Weight { tensor: &known, precision: Precision::F32, packed: None };
        let similarities = ops::linear(&x, weight, None, Precision::F32)?.to_vec()?;
        let vote = |row: &[f32]| vote(row, train.labels, classes, options);
        predictions.extend(similarities.chunks_exact(count).map(vote));
    }
    Ok(predictions)
}

/// Every row divided by its length; a row of zeros stays.
fn unit(features: &[f32], width: usize) -> Vec<f32> {
    let scaled = |row: &[f32]| {
        let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let scale = if square > 0.0 { square.sqrt().recip() } else { 0.0 };
        row.iter().map(|&x| (f64::from(x) * scale) as f32).collect::<Vec<_>>()
    };
    features.chunks_exact(width).flat_map(scaled).collect()
}

fn vote(similarities: &[f32], labels: &[usize], classes: usize, options: KnnOptions) -> usize {
    let mut order: Vec<usize> = (0..similarities.len()).collect();
    let nearer =
        |&a: &usize, &b: &usize| similarities[b].total_cmp(&similarities[a]).then(a.cmp(&b));
    let k = options.k.min(order.len());
    if k < order.len() {
        order.select_nth_unstable_by(k - 1, nearer);
        order.truncate(k);
    }
    // Summed in one order, so that the votes do not depend on how the nearest were found.
    order.sort_unstable_by(nearer);
    let mut votes = vec![0.0; classes];
    for at in order {
        votes[labels[at]] += (f64::from(similarities[at]) / options.temperature).exp();
    }
    let best = votes.iter().copied().fold(0.0, f64::max);
    votes.iter().position(|&vote| vote == best).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_decide_by_their_direction_alone() {
        // Two directions; lengths say nothing.
        let train =
            Labelled { features: &[1.0, 0.0, 9.0, 1.0, 0.0, 1.0, 0.1, 5.0], labels: &[0, 0, 1, 1] };
        let options = KnnOptions { k: 2, ..KnnOptions::default() };
        let test = [100.0, 1.0, 0.001, 0.1, 3.0, 2.9];
        assert_eq!(knn(train, &test, 2, options).unwrap(), [0, 1, 0]);
    }

    #[test]
    fn near_votes_outweigh_many_far_ones() {
        // One sample of class 1 in the test's own direction, three of class 0 at right angles.
        let train =
            Labelled { features: &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0], labels: &[0, 0, 0, 1] };
        let all = KnnOptions { k: 4, temperature: 0.07 };
        assert_eq!(knn(train, &[1.0, 0.0], 2, all).unwrap(), [1]);
        // So warm that only numbers count.
        let warm = KnnOptions { k: 4, temperature: 1e6 };
        assert_eq!(knn(train, &[1.0, 0.0], 2, warm).unwrap(), [0]);
    }

    #[test]
    fn ties_and_more_neighbours_than_samples_have_one_answer() {
        let train = Labelled { features: &[1.0, 1.0], labels: &[1, 0] };
        assert_eq!(knn(train, &[1.0], 3, KnnOptions::default()).unwrap(), [0]);
        let one = KnnOptions { k: 1, ..KnnOptions::default() };
        assert_eq!(knn(train, &[1.0], 3, one).unwrap(), [1], "the earlier sample is nearer");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let train = Labelled { features: &[1.0, 2.0, 3.0, 4.0], labels: &[0, 1] };
        let run = |test: &[f32], classes, k| {
            let options = KnnOptions { k, ..KnnOptions::default() };
            knn(train, test, classes, options)
        };
        assert!(run(&[1.0, 2.0], 2, 1).is_ok());
        assert!(run(&[1.0], 2, 1).is_err());
        assert!(run(&[1.0, 2.0], 1, 1).is_err());
        assert!(run(&[1.0, 2.0], 2, 0).is_err());
        assert!(
            knn(Labelled { features: &[], labels: &[] }, &[], 2, KnnOptions::default()).is_err()
        );
    }
}
