//! Cross entropy of class scores.
//!
//!   loss = mean over counted rows of (ln Σ_c exp(logit_c) − Σ_c t_c·logit_c)
//!
//! `t` is the one-hot row of the label or, with smoothing s, `(1 − s)·onehot + s/classes`. A row labelled
//! −100 does not count; with no counted row the loss is 0/0 = NaN, as in PyTorch.
//!
//! Source: `torch.nn.functional.cross_entropy`. Oracle: `vitmae_testing::reference::cross_entropy`.
//! Rows are few and short, so everything runs in f64 on the calling thread.

/// The label that does not count.
pub const IGNORED: i64 = -100;

/// The loss.
///
/// # Shapes
/// `logits: [B, classes]`, `labels: [B]` in `0..classes` or −100
///
/// # Panics
/// If a length or a label does not fit.
pub fn forward(logits: &[f32], labels: &[i64], smoothing: f32) -> f32 {
    let classes = classes(logits, labels);
    let smoothing = f64::from(smoothing);
    let (mut sum, mut counted) = (0.0, 0.0);
    for (row, &label) in logits.chunks_exact(classes.max(1)).zip(labels) {
        if label == IGNORED {
            continue;
        }
        let (max, log_sum) = max_and_log_sum(row);
        // Differences from the maximum first: next to 1e30 the logarithm would be lost.
        let below = |x: f32| max - f64::from(x);
        let mean = row.iter().map(|&x| below(x)).sum::<f64>() / classes as f64;
        sum += log_sum + (1.0 - smoothing) * below(row[label as usize]) + smoothing * mean;
        counted += 1.0;
    }
    (sum / counted) as f32
}

/// `scale` times the gradient of the loss, `[B, classes]`.
///
/// # Panics
/// If a length or a label does not fit.
pub fn backward(logits: &[f32], labels: &[i64], smoothing: f32, scale: f32, dlogits: &mut [f32]) {
    let classes = classes(logits, labels);
    assert_eq!(dlogits.len(), logits.len(), "cross_entropy: dlogits");
    let smoothing = f64::from(smoothing);
    let counted = labels.iter().filter(|&&label| label != IGNORED).count() as f64;
    let factor = f64::from(scale) / counted;
    let rows = logits.chunks_exact(classes.max(1)).zip(labels);
    for (out, (row, &label)) in dlogits.chunks_exact_mut(classes.max(1)).zip(rows) {
        if label == IGNORED {
            out.fill(0.0);
            continue;
        }
        let (max, log_sum) = max_and_log_sum(row);
        for (class, (out, &logit)) in out.iter_mut().zip(row).enumerate() {
            let onehot = f64::from(u8::from(class as i64 == label));
            let wanted = (1.0 - smoothing) * onehot + smoothing / classes as f64;
            *out = (factor * ((f64::from(logit) - max - log_sum).exp() - wanted)) as f32;
        }
    }
}

/// `m = max_c logit_c` and `ln Σ_c exp(logit_c − m)`.
fn max_and_log_sum(row: &[f32]) -> (f64, f64) {
    let max = row.iter().fold(f64::NEG_INFINITY, |max, &x| max.max(x.into()));
    (max, row.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln())
}

fn classes(logits: &[f32], labels: &[i64]) -> usize {
    let classes = logits.len().checked_div(labels.len()).unwrap_or(0);
    assert_eq!(logits.len(), classes * labels.len(), "cross_entropy: logits");
    let fits = |&label: &i64| label == IGNORED || (0..classes as i64).contains(&label);
    assert!(labels.iter().all(fits), "cross_entropy: a label is not below {classes}");
    classes
}
