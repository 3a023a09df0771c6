//! Cross entropy of class scores.
//!
//!   loss = mean over counted rows of (ln Σ_c exp(logit_c) − Σ_c t_c·logit_c)
//!
//! `t` is the one-hot row of the label or, with smoothing s, `(1 − s)·onehot + s/classes`. A row whose
//! label is −100 is not counted; with no counted row the loss is 0/0 = NaN, as in PyTorch.
//!
//! Source: `torch.nn.functional.cross_entropy`.

/// The label of a row that does not count.
pub const IGNORED: i64 = -100;

/// The loss of `logits: [B, classes]` for `labels: [B]`.
pub fn forward(logits: &[f64], labels: &[i64], smoothing: f64) -> f64 {
    let classes = logits.len() / labels.len();
    let mut sum = 0.0;
    for (row, &label) in logits.chunks(classes).zip(labels) {
        if label != IGNORED {
            let wanted = target(classes, label, smoothing);
            let inner: f64 = row.iter().zip(&wanted).map(|(logit, t)| logit * t).sum();
            sum += log_sum_exp(row) - inner;
        }
    }
    sum / counted(labels)
}

/// `dlogits: [B, classes]` of [`forward`]: `(softmax(logits) − t) / counted rows`, 0 for ignored rows.
pub fn backward(logits: &[f64], labels: &[i64], smoothing: f64) -> Vec<f64> {
    let classes = logits.len() / labels.len();
    let mut dlogits = Vec::with_capacity(logits.len());
    for (row, &label) in logits.chunks(classes).zip(labels) {
        if label == IGNORED {
            dlogits.extend(vec![0.0; classes]);
            continue;
        }
        let (lse, wanted) = (log_sum_exp(row), target(classes, label, smoothing));
        let gradient = |c: usize| ((row[c] - lse).exp() - wanted[c]) / counted(labels);
        dlogits.extend((0..classes).map(gradient));
    }
    dlogits
}

fn counted(labels: &[i64]) -> f64 {
    labels.iter().filter(|&&label| label != IGNORED).count() as f64
}

fn target(classes: usize, label: i64, smoothing: f64) -> Vec<f64> {
    let mut row = vec![smoothing / classes as f64; classes];
    row[usize::try_from(label).expect("a label is −100 or not negative")] += 1.0 - smoothing;
    row
}

fn log_sum_exp(row: &[f64]) -> f64 {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + row.iter().map(|v| (v - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::{Tolerance, assert_close};
    use crate::draws::Draws;
    use crate::gradient_check::assert_gradient;

    #[test]
    fn two_classes_by_hand() {
        let logits = [1.0, 3.0, 500.0, 500.0];
        let first = (1.0 + 2f64.exp()).ln(); // −ln softmax of the smaller logit
        let second = 2f64.ln();
        let found = [
            forward(&logits, &[0, 1], 0.0),
            forward(&logits, &[0, IGNORED], 0.0),
            forward(&logits, &[IGNORED, 0], 0.0),
        ];
        let expected = [(first + second) / 2.0, first, second];
        assert_close("loss", &found, &expected, Tolerance::new(1e-13, 0.0));
        assert!(forward(&logits, &[IGNORED, IGNORED], 0.0).is_nan());
    }

    #[test]
    fn backward_is_the_gradient_of_forward() {
        let mut draws = Draws::new(14);
        for round in 0..24 {
            let (rows, classes) = (draws.integer(1..=4), draws.integer(2..=6));
            let logits = draws.vec(rows * classes);
            let mut labels: Vec<i64> =
                (0..rows).map(|_| draws.integer(0..=classes - 1) as i64).collect();
            if rows > 1 {
                labels[1] = IGNORED;
            }
            let smoothing = [0.0, 0.1][round % 2];
            let objective = |logits: &[f64]| forward(logits, &labels, smoothing);
            assert_gradient("dlogits", objective, &logits, &backward(&logits, &labels, smoothing));
        }
    }
}
