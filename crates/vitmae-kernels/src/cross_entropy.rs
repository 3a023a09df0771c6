//! Cross entropy of class scores.
//!
//!   loss = mean over counted rows of (ln Σ_c exp(logit_c) − Σ_c t_c·logit_c)
//!
//! `t` is the one-hot row of the label or, with smoothing s, `(1 − s)·onehot + s/classes`. A row labelled
//! −100 does not count; with no counted row the loss is 0/0 = NaN, as in PyTorch.
//!
//! Labels come from the host, where they are checked. Scores are taken relative to the largest of their
//! row, which changes nothing, because the t_c of a row sum to 1.
//!
//! Source: `torch.nn.functional.cross_entropy`. Oracle: `vitmae_testing::reference::cross_entropy`; CPU
//! twin: `vitmae_cpu::cross_entropy`.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::launch::ROW_UNITS;
use crate::reduce::{cube_max, cube_sum};
use crate::{Array, Client, Dtype, Ids, launch};

/// The label that does not count.
pub const IGNORED: i64 = -100;

/// [`IGNORED`] on the device.
const NO_LABEL: u32 = u32::MAX;

/// Writes the loss, one value.
///
/// # Shapes
/// `logits: [B, classes]`, `labels: [B]` in `0..classes` or −100, `loss: [1]` f32
///
/// # Panics
/// If a length, a type or a label does not fit, or there is no row.
pub fn forward(client: &Client, logits: &Array, labels: &[i64], smoothing: f32, loss: &Array) {
    let rows = Rows::new(client, logits, labels);
    assert!(logits.len > 0, "cross_entropy: no scores");
    assert_eq!((loss.len, loss.dtype), (1, Dtype::F32), "cross_entropy: loss");
    let losses = Array::empty(client, labels.len(), Dtype::F32);
    let (count, units) = launch::rows(client, labels.len());
    // SAFETY: guarded by the number of rows and of classes.
    unsafe {
        rows_kernel::launch_unchecked(
            client,
            count,
            units,
            logits.arg(),
            rows.labels.arg(),
            losses.arg(),
            labels.len() as u32,
            rows.classes as u32,
            smoothing,
            logits.dtype.elem(),
        );
    }
    let (count, units) = launch::rows(client, 1);
    // SAFETY: guarded by the number of rows; one cube writes one value.
    unsafe {
        mean_kernel::launch_unchecked(
            client,
            count,
            units,
            losses.arg(),
            loss.arg(),
            labels.len() as u32,
            rows.counted,
        );
    }
}

/// `scale` times the gradient of the loss, `[B, classes]`.
///
/// # Shapes
/// `logits, dlogits: [B, classes]`, `labels: [B]` in `0..classes` or −100
///
/// # Panics
/// If a length, a type or a label does not fit.
pub fn backward(
    client: &Client,
    logits: &Array,
    labels: &[i64],
    smoothing: f32,
    scale: f32,
    dlogits: &Array,
) {
    let rows = Rows::new(client, logits, labels);
    let fits = dlogits.len == logits.len && dlogits.dtype == logits.dtype;
    assert!(fits, "cross_entropy: dlogits");
    if dlogits.len == 0 {
        return;
    }
    let (count, units) = launch::rows(client, labels.len());
    // SAFETY: guarded by the number of rows and of classes.
    unsafe {
        backward_kernel::launch_unchecked(
            client,
            count,
            units,
            logits.arg(),
            rows.labels.arg(),
            dlogits.arg(),
            labels.len() as u32,
            rows.classes as u32,
            smoothing,
            // With no counted row every row is ignored and the factor is not used.
            scale / rows.counted.max(1.0),
            logits.dtype.elem(),
        );
    }
}

/// Checked labels.
struct Rows {
    labels: Ids,
    classes: usize,
    counted: f32,
}

impl Rows {
    fn new(client: &Client, logits: &Array, labels: &[i64]) -> Self {
        let classes = logits.len.checked_div(labels.len()).unwrap_or(0);
        assert_eq!(logits.len, classes * labels.len(), "cross_entropy: logits");
        let fits = |&label: &i64| label == IGNORED || (0..classes as i64).contains(&label);
        assert!(labels.iter().all(fits), "cross_entropy: a label is not below {classes}");
        let ids = labels.iter().map(|&label| u32::try_from(label).unwrap_or(NO_LABEL));
        let ids: Vec<u32> = ids.collect();
        let counted = labels.iter().filter(|&&label| label != IGNORED).count() as f32;
        Self { labels: Ids::from_slice(client, &ids), classes, counted }
    }
}

/// The largest score of a row, and `ln Σ exp(score − largest)`. The whole cube works on one row, and none of
/// its units may have left.
#[cube]
fn log_sum_exp<F: Float>(logits: &[F], start: usize, end: usize) -> (f32, f32) {
    // There is no infinity literal; a row has a value, which is not below the least one.
    let mut largest = f32::min_value();
    let mut i = start + UNIT_POS as usize;
    while i < end {
        let logit = f32::cast_from(logits[i]);
        largest = select(logit > largest, logit, largest);
        i += comptime!(ROW_UNITS as usize);
    }
    let largest = cube_max(largest, ROW_UNITS);
    let mut sum = 0.0f32;
    i = start + UNIT_POS as usize;
    while i < end {
        sum += f32::exp(f32::cast_from(logits[i]) - largest);
        i += comptime!(ROW_UNITS as usize);
    }
    (largest, f32::ln(cube_sum(sum, ROW_UNITS)))
}

/// One cube computes the loss of one row, 0 for an ignored one.
#[cube(launch_unchecked)]
fn rows_kernel<F: Float>(
    logits: &[F],
    labels: &[u32],
    losses: &mut [f32],
    rows: u32,
    classes: u32,
    smoothing: f32,
    #[define(F)] _dtype: ElemType,
) {
    // A cube behind the last row repeats it, so that units meet at every barrier, and writes nothing.
    let row = select(CUBE_POS < rows as usize, CUBE_POS, rows as usize - 1);
    let start = row * classes as usize;
    let end = start + classes as usize;
    let (largest, total) = log_sum_exp(logits, start, end);
    let mut sum = 0.0f32;
    let mut i = start + UNIT_POS as usize;
    while i < end {
        sum += f32::cast_from(logits[i]) - largest;
        i += comptime!(ROW_UNITS as usize);
    }
    let mean = cube_sum(sum, ROW_UNITS) / f32::cast_from(classes);
    if UNIT_POS == 0 && CUBE_POS < rows as usize {
        let label = labels[row];
        let mut loss = 0.0f32;
        if label < classes {
            let own = f32::cast_from(logits[start + label as usize]) - largest;
            loss = total - (1.0f32 - smoothing) * own - smoothing * mean;
        }
        losses[row] = loss;
    }
}

/// One cube: the mean over the counted rows.
#[cube(launch_unchecked)]
fn mean_kernel(losses: &[f32], loss: &mut [f32], rows: u32, counted: f32) {
    let mut sum = 0.0f32;
    let mut row = UNIT_POS as usize;
    while row < rows as usize {
        sum += losses[row];
        row += comptime!(ROW_UNITS as usize);
    }
    let total = cube_sum(sum, ROW_UNITS);
    if ABSOLUTE_POS == 0 {
        loss[0] = total / counted;
    }
}

/// One cube writes the gradient of one row.
#[cube(launch_unchecked)]
fn backward_kernel<F: Float>(
    logits: &[F],
    labels: &[u32],
    dlogits: &mut [F],
    rows: u32,
    classes: u32,
    smoothing: f32,
    factor: f32,
    #[define(F)] _dtype: ElemType,
) {
    let exists = CUBE_POS < rows as usize;
    let row = select(exists, CUBE_POS, rows as usize - 1);
    let start = row * classes as usize;
    let end = start + classes as usize;
    let (largest, total) = log_sum_exp(logits, start, end);
    let label = labels[row];
    let mut i = start + UNIT_POS as usize;
    while i < end && exists {
        let mut gradient = 0.0f32;
        if label < classes {
            let class = (i - start) as u32;
            let wanted = select(class == label, 1.0f32 - smoothing, 0.0f32)
                + smoothing / f32::cast_from(classes);
            let share = f32::exp(f32::cast_from(logits[i]) - largest - total);
            gradient = factor * (share - wanted);
        }
        dlogits[i] = F::cast_from(gradient);
        i += comptime!(ROW_UNITS as usize);
    }
}
