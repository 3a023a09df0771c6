//! Dropout from counter-based noise: whether a value is dropped is a pure function of (stream, index).
//!
//!   keep = 0 with probability `rate`, else 1/(1 − rate)          y = x ⊙ keep          dx = dy ⊙ keep
//!
//! Nothing is stored between forward and backward: both ask the same function.
//!
//! Source: `torch.nn.functional.dropout`. Oracle: `vitmae_testing::reference::dropout`.

use rayon::prelude::*;

use crate::parallel::CHUNK;
use crate::random::{Stream, philox4x32};

/// Which values are dropped.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Share of values dropped, in [0, 1).
    pub rate: f32,
    /// Where the noise comes from.
    pub stream: Stream,
}

impl Dropout {
    /// 0 if value `index` is dropped, 1/(1 − rate) if it is kept.
    pub fn keep_scale(&self, index: u64) -> f32 {
        self.scale_of(self.words(index / 4)[(index % 4) as usize])
    }

    /// `keep[i] = keep_scale(start + i)`, four numbers a draw.
    pub fn keep_scales(&self, start: u64, keep: &mut [f32]) {
        let mut group = None;
        let mut words = [0; 4];
        for (i, keep) in keep.iter_mut().enumerate() {
            let index = start + i as u64;
            if group != Some(index / 4) {
                group = Some(index / 4);
                words = self.words(index / 4);
            }
            *keep = self.scale_of(words[(index % 4) as usize]);
        }
    }

    /// The noise of four values.
    fn words(&self, group: u64) -> [u32; 4] {
        philox4x32(self.stream.key(), [group as u32, (group >> 32) as u32, 0, 2])
    }

    /// The scale that a word of noise gives.
    fn scale_of(&self, word: u32) -> f32 {
        let dropped = f64::from(word) < f64::from(self.rate) * 4_294_967_296.0;
        if dropped { 0.0 } else { 1.0 / (1.0 - self.rate) }
    }
}

/// `keep[i] = dropout.keep_scale(i)`.
pub fn keep(dropout: &Dropout, keep: &mut [f32]) {
    keep.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, keep)| {
        dropout.keep_scales((chunk * CHUNK) as u64, keep);
    });
}

/// `y = x ⊙ keep`, plus `residual` if there is one.
///
/// # Panics
/// If the lengths differ.
pub fn forward(x: &[f32], residual: Option<&[f32]>, dropout: &Dropout, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "dropout: y");
    if let Some(residual) = residual {
        assert_eq!(x.len(), residual.len(), "dropout: residual");
    }
    y.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, y)| {
        let start = chunk * CHUNK;
        for (i, y) in y.iter_mut().enumerate() {
            let at = start + i;
            *y = x[at] * dropout.keep_scale(at as u64) + residual.map_or(0.0, |r| r[at]);
        }
    });
}

/// `dx = dy ⊙ keep`.
///
/// # Panics
/// If the lengths differ.
pub fn backward(dy: &[f32], dropout: &Dropout, dx: &mut [f32]) {
    forward(dy, None, dropout, dx);
}

/// Drop path, or stochastic depth: `y = x ⊙ keep_scale(image)`, plus `residual` if there is one, with one draw for each
/// of `batch` images.
///
/// # Shapes
/// `x, residual, y: [batch, …]`
///
/// # Panics
/// If the lengths differ, or are no multiple of `batch`.
///
/// Source: arXiv:1603.09382; `drop_path` of timm.
pub fn drop_path(
    x: &[f32],
    residual: Option<&[f32]>,
    dropout: &Dropout,
    batch: usize,
    y: &mut [f32],
) {
    assert_eq!(x.len(), y.len(), "drop_path: y");
    if let Some(residual) = residual {
        assert_eq!(x.len(), residual.len(), "drop_path: residual");
    }
    assert!(x.len().checked_rem(batch).unwrap_or(x.len()) == 0, "drop_path: batch");
    if x.is_empty() {
        return;
    }
    let per_image = x.len() / batch;
    y.par_chunks_mut(per_image).enumerate().for_each(|(image, y)| {
        let scale = dropout.keep_scale(image as u64);
        let x = &x[image * per_image..][..per_image];
        match residual {
            Some(residual) => {
                let residual = &residual[image * per_image..][..per_image];
                let pairs = x.iter().zip(residual);
                y.iter_mut().zip(pairs).for_each(|(y, (x, r))| *y = x * scale + r);
            }
            None => y.iter_mut().zip(x).for_each(|(y, x)| *y = x * scale),
        }
    });
}

/// `dx = dy ⊙ keep_scale(image)`.
///
/// # Panics
/// As [`drop_path`].
pub fn drop_path_backward(dy: &[f32], dropout: &Dropout, batch: usize, dx: &mut [f32]) {
    drop_path(dy, None, dropout, batch, dx);
}
