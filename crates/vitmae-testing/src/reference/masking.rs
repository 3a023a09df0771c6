//! Random masking from noise.
//!
//!   K           = trunc(L · (1 − mask_ratio))         in f64, in that order
//!   ids_shuffle = argsort(noise), stable              the smallest noise is kept
//!   ids_restore = argsort(ids_shuffle)
//!   mask[b, l]  = 0 if ids_restore[b, l] < K else 1   (1 = removed)
//!
//! Source: `random_masking` of transformers 4.57.6, `modeling_vit_mae.py`.

/// What to keep and how to put it back.
#[derive(Debug, Clone, PartialEq)]
pub struct Masking {
    /// B.
    pub batch: usize,
    /// L.
    pub num_patches: usize,
    /// K.
    pub len_keep: usize,
    /// `[B, K]`, in the order of the noise.
    pub ids_keep: Vec<u32>,
    /// `[B, L]`, the inverse of the shuffle.
    pub ids_restore: Vec<u32>,
    /// `[B, L]`, 1 = removed.
    pub mask: Vec<f64>,
}

/// K for L patches.
pub fn len_keep(num_patches: usize, mask_ratio: f64) -> usize {
    (num_patches as f64 * (1.0 - mask_ratio)) as usize
}

/// Indices that sort `values` ascending; equal values keep their order.
pub fn argsort(values: &[f64]) -> Vec<usize> {
    let mut ids: Vec<usize> = (0..values.len()).collect();
    ids.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    ids
}

/// The masking of `noise: [B, L]`.
pub fn from_noise(noise: &[f64], batch: usize, num_patches: usize, mask_ratio: f64) -> Masking {
    assert_eq!(noise.len(), batch * num_patches, "noise");
    let kept = len_keep(num_patches, mask_ratio);
    let (mut ids_keep, mut ids_restore, mut mask) = (Vec::new(), Vec::new(), Vec::new());
    for row in noise.chunks(num_patches) {
        let shuffle = argsort(row);
        let as_noise: Vec<f64> = shuffle.iter().map(|&id| id as f64).collect();
        let restore = argsort(&as_noise);
        ids_keep.extend(shuffle[..kept].iter().map(|&id| id as u32));
        ids_restore.extend(restore.iter().map(|&id| id as u32));
        mask.extend(restore.iter().map(|&id| if id < kept { 0.0 } else { 1.0 }));
    }
    Masking { batch, num_patches, len_keep: kept, ids_keep, ids_restore, mask }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;

    #[test]
    fn the_number_kept_is_truncated_in_f64() {
        let cases = [(256, 0.9, 25), (4, 0.9, 0), (100, 0.9, 9), (196, 0.75, 49), (196, 0.9, 19)];
        for (num_patches, ratio, expected) in cases {
            assert_eq!(len_keep(num_patches, ratio), expected, "{num_patches} at {ratio}");
        }
    }

    #[test]
    fn the_example_of_four_patches() {
        let found = from_noise(&[0.7, 0.1, 0.9, 0.3], 1, 4, 0.5);
        assert_eq!(found.ids_keep, [1, 3]);
        assert_eq!(found.ids_restore, [2, 0, 3, 1]);
        assert_eq!(found.mask, [1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn equal_noise_keeps_index_order() {
        // Long enough that an unstable sort would show.
        let found = from_noise(&[0.5, 0.25].repeat(100), 1, 200, 0.5);
        let expected: Vec<u32> = (0..100).flat_map(|pair| [100 + pair, pair]).collect();
        assert_eq!(found.ids_restore, expected);
    }

    #[test]
    fn restore_inverts_the_shuffle_and_the_mask_counts() {
        let mut draws = Draws::new(18);
        for _ in 0..20 {
            let (batch, patches) = (draws.integer(1..=3), draws.integer(1..=20));
            let noise = draws.vec(batch * patches);
            let found = from_noise(&noise, batch, patches, draws.uniform());
            for b in 0..batch {
                let restore = &found.ids_restore[b * patches..][..patches];
                for (k, &id) in
                    found.ids_keep[b * found.len_keep..][..found.len_keep].iter().enumerate()
                {
                    assert_eq!(restore[id as usize] as usize, k);
                }
                let removed: f64 = found.mask[b * patches..][..patches].iter().sum();
                assert_eq!(removed as usize, patches - found.len_keep);
            }
        }
    }
}
