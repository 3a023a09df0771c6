//! Which patches are removed together: the strategies that the paper compares.
//!
//! A strategy gives each patch of an image a number; those of the smallest are kept. Everything is a function of a stream, so
//! a mask depends on seed, epoch and sample alone.
//!
//! Source: arXiv:2111.06377, section 4.1 and figure 6. Blocks are those of BEiT, arXiv:2106.08254, algorithm 1.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use vitmae_cpu::random::Stream;

use crate::checkpoint::hex;

/// How removed patches lie to each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MaskStrategy {
    /// Independently: Hugging Face's and the original's.
    #[default]
    Random,
    /// In rectangles that may overlap.
    Block,
    /// Evenly: of each square of four one is kept at ratio 0.75, the same everywhere.
    Grid,
    /// As one of these masks says, which is drawn for each image in each epoch: `[N][L]`, N at least 1, true is removed. Each
    /// removes as many patches as the ratio.
    Given(Arc<Vec<Vec<bool>>>),
}

/// The share of patches that a run removes: from `first` in update 0 along a line to `last` in its last update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaskRatio {
    /// Of the first update.
    pub first: f64,
    /// Of the last update.
    pub last: f64,
    /// Updates of the run.
    pub updates: u64,
}

impl MaskRatio {
    /// The same for all updates.
    pub fn constant(ratio: f64) -> MaskRatio {
        MaskRatio { first: ratio, last: ratio, updates: 1 }
    }

    /// The ratio of an update, counted from 0; behind the last it stays.
    pub fn at(self, update: u64) -> f64 {
        let last = self.updates.saturating_sub(1);
        match update {
            0 => self.first,
            update if update >= last => self.last,
            update => self.first + (self.last - self.first) * update as f64 / last as f64,
        }
    }
}

/// Tries at a rectangle that fits before the rest is removed independently.
const TRIES: usize = 10;

impl MaskStrategy {
    /// Noise for `Masking::from_noise`, `[rows · columns]` in [0, 4), of which the share `ratio` will be removed.
    pub fn noise(&self, (rows, columns): (usize, usize), ratio: f64, stream: &Stream) -> Vec<f64> {
        let count = rows * columns;
        let uniform = (0..count as u64).map(|patch| stream.uniform(patch));
        match self {
            Self::Random => uniform.collect(),
            Self::Grid => {
                // Of a square: first one corner, then the one across, then the others.
                let rank = |patch: usize| match (patch / columns % 2, patch % columns % 2) {
                    (0, 0) => 0.0,
                    (1, 1) => 1.0,
                    (0, _) => 2.0,
                    _ => 3.0,
                };
                uniform.enumerate().map(|(patch, noise)| rank(patch) + noise).collect()
            }
            Self::Block => {
                let removed = blocks((rows, columns), (ratio * count as f64) as usize, stream);
                uniform.zip(removed).map(|(noise, removed)| noise + f64::from(removed)).collect()
            }
            Self::Given(masks) => {
                let mask = &masks[(stream.bits(0) % masks.len() as u64) as usize];
                mask.iter().map(|&removed| f64::from(removed)).collect()
            }
        }
    }

    /// A text that is another for another way to mask.
    pub(crate) fn identity(&self) -> String {
        let Self::Given(masks) = self else { return format!("{self:?}").to_lowercase() };
        let mut hash = Sha256::new();
        for mask in masks.iter() {
            hash.update(mask.iter().map(|&removed| u8::from(removed)).collect::<Vec<u8>>());
        }
        format!("{} given, {}", masks.len(), hex(&hash.finalize()))
    }
}

/// At most `target` patches in rectangles.
fn blocks((rows, columns): (usize, usize), target: usize, stream: &Stream) -> Vec<bool> {
    let count = rows * columns;
    let mut index = count as u64; // Behind the draws of the patches.
    let mut draw = || {
        index += 1;
        stream.uniform(index - 1)
    };
    let mut removed = vec![false; count];
    let mut left = target;
    // BEiT's smallest block has 16 of 196 patches.
    let least = (count as f64 / 12.25).max(1.0);
    while left > 0 {
        let found = (0..TRIES).find_map(|_| {
            let area = least + (left as f64 - least).max(0.0) * draw();
            let ratio = ((2.0 * draw() - 1.0) * (1.0f64 / 0.3).ln()).exp();
            let height = (area * ratio).sqrt().round() as usize;
            let width = (area / ratio).sqrt().round() as usize;
            let fits = (1..=rows).contains(&height) && (1..=columns).contains(&width);
            let top = (draw() * (rows + 1).saturating_sub(height) as f64) as usize;
            let left_edge = (draw() * (columns + 1).saturating_sub(width) as f64) as usize;
            let block: Vec<usize> = (top..top + height)
                .flat_map(|y| (left_edge..left_edge + width).map(move |x| y * columns + x))
                .collect();
            let new = || block.iter().filter(|&&patch| !removed[patch]).count();
            (fits && (1..=left).contains(&new())).then_some(block)
        });
        let Some(block) = found else { break };
        for patch in block {
            left -= usize::from(!removed[patch]);
            removed[patch] = true;
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use vitmae_model::Masking;

    use super::*;

    /// Removed patches of an image of 14 × 14, and how many pairs of neighbours agree.
    fn mask(strategy: MaskStrategy, ratio: f64, sample: u64) -> (Vec<bool>, f64) {
        let stream = Stream::new(5, "mask", 0, sample);
        let noise = strategy.noise((14, 14), ratio, &stream);
        let mask = Masking::from_noise(&noise, 1, 196, ratio).unwrap().mask;
        let removed: Vec<bool> = mask.iter().map(|&m| m == 1.0).collect();
        let pairs = (0..196).filter(|at| at % 14 < 13);
        let alike = pairs.clone().filter(|&at| removed[at] == removed[at + 1]).count();
        (removed, alike as f64 / pairs.count() as f64)
    }

    #[test]
    fn every_strategy_removes_its_share_and_a_sample_keeps_its_mask() {
        for strategy in [MaskStrategy::Random, MaskStrategy::Block, MaskStrategy::Grid] {
            for (ratio, expected) in [(0.5, 98), (0.75, 147), (0.9, 177)] {
                for sample in 0..20 {
                    let (removed, _) = mask(strategy.clone(), ratio, sample);
                    assert_eq!(removed.iter().filter(|&&r| r).count(), expected, "{strategy:?}");
                    assert_eq!(mask(strategy.clone(), ratio, sample).0, removed);
                }
            }
        }
    }

    #[test]
    fn given_masks_are_used_as_they_are_and_all_of_them() {
        let row = |first: usize| (0..196).map(|at| (at + first) % 4 < 3).collect::<Vec<bool>>();
        let rows = vec![row(0), row(1), row(2)];
        let given = MaskStrategy::Given(Arc::new(rows.clone()));
        let mut used = [0; 3];
        for sample in 0..60 {
            let (removed, _) = mask(given.clone(), 0.75, sample);
            used[rows.iter().position(|row| *row == removed).unwrap()] += 1;
            assert_eq!(mask(given.clone(), 0.75, sample).0, removed);
        }
        assert!(used.iter().all(|&count| count > 8), "{used:?}");
        let other = MaskStrategy::Given(Arc::new(vec![row(0), row(2), row(1)]));
        assert_ne!(given.identity(), other.identity());
        assert!(given.identity().starts_with("3 given, "));
        assert_eq!(MaskStrategy::Block.identity(), "block");
    }

    #[test]
    fn the_ratio_goes_along_a_line_and_stays_at_its_end() {
        let ratio = MaskRatio { first: 0.9, last: 0.5, updates: 5 };
        let found: Vec<f64> = (0..7).map(|update| ratio.at(update)).collect();
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-15);
        assert!(near(&found, &[0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.5]), "{found:?}");
        assert_eq!((found[0], found[4]), (0.9, 0.5));
        assert!((0..9).all(|update| MaskRatio::constant(0.75).at(update) == 0.75));
        assert_eq!(MaskRatio { updates: 1, ..ratio }.at(0), 0.9);
    }

    #[test]
    fn random_noise_is_that_of_the_stream() {
        let stream = Stream::new(1, "mask", 2, 3);
        let expected: Vec<f64> = (0..6).map(|patch| stream.uniform(patch)).collect();
        assert_eq!(MaskStrategy::Random.noise((2, 3), 0.75, &stream), expected);
    }

    #[test]
    fn blocks_cluster_and_the_grid_is_even() {
        let mean = |strategy: MaskStrategy| {
            (0..50).map(|sample| mask(strategy.clone(), 0.5, sample).1).sum::<f64>() / 50.0
        };
        let (random, block) = (mean(MaskStrategy::Random), mean(MaskStrategy::Block));
        assert!((random - 0.5).abs() < 0.05, "{random}");
        assert!(block > 0.75, "{block}");
        let (removed, _) = mask(MaskStrategy::Grid, 0.75, 1);
        for (patch, removed) in removed.into_iter().enumerate() {
            assert_eq!(removed, !(patch / 14 % 2 == 0 && patch % 14 % 2 == 0), "{patch}");
        }
        assert_ne!(mask(MaskStrategy::Block, 0.75, 1).0, mask(MaskStrategy::Block, 0.75, 2).0);
    }

    #[test]
    fn small_grids_and_extreme_shares_end() {
        for grid in [(1, 1), (1, 7), (2, 2), (3, 5)] {
            for ratio in [0.0, 0.3, 0.99, 1.0] {
                let noise = MaskStrategy::Block.noise(grid, ratio, &Stream::new(1, "mask", 0, 0));
                assert_eq!(noise.len(), grid.0 * grid.1);
            }
        }
    }
}
