//! The exponential moving average of a parameter, in one sweep.
//!
//!   a ← decay · a + (1 − decay) · w
//!
//! In f64 inside: in f32 the two factors would not add to 1, which a decay near 1 shows in the average.
//! Oracle: `vitmae_testing::reference::ema`.

use rayon::prelude::*;

use crate::parallel::CHUNK;
use crate::simd::multiversion;

/// Moves `average` towards `value` in place; a `scale` of 0 leaves it as it is ([`crate::norm::clip_scale`]), any other is no factor.
///
/// # Panics
/// If the lengths differ.
pub fn step(average: &mut [f32], value: &[f32], scale: f32, decay: f64) {
    assert_eq!(average.len(), value.len(), "ema: lengths");
    if scale == 0.0 {
        return;
    }
    let both = average.par_chunks_mut(CHUNK).zip(value.par_chunks(CHUNK));
    both.for_each(|(average, value)| sweep(average, value, decay));
}

multiversion! {
    fn sweep(average: &mut [f32], value: &[f32], decay: f64) {
        for (a, w) in average.iter_mut().zip(value) {
            *a = (decay * f64::from(*a) + (1.0 - decay) * f64::from(*w)) as f32;
        }
    }
}
