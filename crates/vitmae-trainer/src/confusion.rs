//! What images show against what they were taken for.

/// Counts of images: row by what they show, column by what they were taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// `[classes][classes]`
    pub counts: Vec<Vec<usize>>,
}

impl Confusion {
    /// Counts `labels` and `predictions`, both below `classes` and equally many.
    pub fn new(classes: usize, labels: &[usize], predictions: &[usize]) -> Self {
        let mut counts = vec![vec![0usize; classes]; classes];
        for (&label, &prediction) in labels.iter().zip(predictions) {
            counts[label][prediction] += 1;
        }
        Self { counts }
    }

    /// Images taken for what they show.
    pub fn hits(&self) -> usize {
        (0..self.counts.len()).map(|class| self.counts[class][class]).sum()
    }

    /// Share of images taken for what they show; NaN without images.
    pub fn accuracy(&self) -> f64 {
        self.hits() as f64 / self.counts.iter().flatten().sum::<usize>() as f64
    }

    /// The same among the images of one class; none if there is no such image.
    pub fn recall(&self, class: usize) -> Option<f64> {
        let shown: usize = self.counts[class].iter().sum();
        (shown > 0).then(|| self.counts[class][class] as f64 / shown as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::Confusion;

    #[test]
    fn shares_are_those_of_the_counts() {
        let found = Confusion::new(3, &[0, 0, 1, 1, 1], &[0, 1, 1, 1, 0]);
        assert_eq!(found.counts, [[1, 1, 0], [1, 2, 0], [0, 0, 0]]);
        assert_eq!((found.hits(), found.accuracy()), (3, 0.6));
        assert_eq!([0, 1, 2].map(|class| found.recall(class)), [Some(0.5), Some(2.0 / 3.0), None]);
    }
}
