//! The learning rate: linear warm-up, then half a cosine.
//!
//!   lr(t) = lr · t / warmup                                             for t < warmup
//!   lr(t) = min + (lr − min) · ½ (1 + cos(π (t − warmup) / (total − warmup)))   after
//!
//! `t` is a fractional epoch or a step; it is set before each update, so the first one has rate 0.
//! Source: MAE, arXiv:2111.06377, appendix A.1; `blr` follows the linear scaling rule of
//! arXiv:1706.02677.

use std::f64::consts::PI;

/// Warm-up followed by a half-cosine; all times in one unit, epochs or steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmupCosine {
    /// The highest rate, at the end of the warm-up.
    pub lr: f64,
    /// The rate at `total`.
    pub min_lr: f64,
    /// Length of the warm-up.
    pub warmup: f64,
    /// Length of the whole run, the warm-up included.
    pub total: f64,
}

impl WarmupCosine {
    /// The rate at time `t >= 0`; `min_lr` from `total` on.
    pub fn at(&self, t: f64) -> f64 {
        if t < self.warmup {
            return self.lr * t / self.warmup;
        }
        let left = self.total - self.warmup;
        let done = if left > 0.0 { ((t - self.warmup) / left).min(1.0) } else { 1.0 };
        self.min_lr + (self.lr - self.min_lr) * 0.5 * (1.0 + (PI * done).cos())
    }
}

/// `blr · effective batch / 256`, where the effective batch counts every image of one update.
pub fn scaled_lr(blr: f64, effective_batch: usize) -> f64 {
    blr * effective_batch as f64 / 256.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_starts_at_zero_peaks_after_the_warm_up_and_ends_at_the_minimum() {
        let schedule = WarmupCosine { lr: 2.0, min_lr: 0.5, warmup: 4.0, total: 12.0 };
        assert_eq!(schedule.at(0.0), 0.0);
        assert_eq!(schedule.at(1.0), 0.5);
        assert_eq!(schedule.at(4.0), 2.0);
        assert!((schedule.at(8.0) - 1.25).abs() < 1e-15); // half way: the mean of both ends
        assert!((schedule.at(12.0) - 0.5).abs() < 1e-15);
        assert_eq!(schedule.at(100.0), schedule.at(12.0));
    }

    #[test]
    fn no_warm_up_and_only_warm_up_are_possible() {
        let schedule = WarmupCosine { lr: 1.0, min_lr: 0.0, warmup: 0.0, total: 2.0 };
        assert_eq!(schedule.at(0.0), 1.0);
        let schedule = WarmupCosine { lr: 1.0, min_lr: 0.25, warmup: 2.0, total: 2.0 };
        assert_eq!((schedule.at(1.0), schedule.at(2.0)), (0.5, 0.25));
    }

    #[test]
    fn the_published_recipe_has_its_rate() {
        assert_eq!(scaled_lr(1.5e-4, 4096), 2.4e-3);
    }
}
