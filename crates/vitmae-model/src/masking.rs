//! Which patches of each image are removed.
//!
//!   K           = trunc(L · (1 − ratio))          in f64, in that order
//!   ids_shuffle = argsort(noise), stable          the smallest noise is kept
//!   ids_restore = argsort(ids_shuffle)
//!   mask[b, l]  = 0 if ids_restore[b, l] < K else 1
//!
//! Traps: in the mask **1 is removed, 0 is kept**; 100 patches at ratio 0.9 keep 9, since
//! 100·(1 − 0.9) = 9.999…; equal noise keeps index order here, which PyTorch's sort does not promise.
//!
//! Source: `random_masking` of transformers 4.57.6, `modeling_vit_mae.py`.

use vitmae_tensor::{Device, Indices, Tensor, TensorError};

use crate::ModelError;

/// The removed and the kept patches of a batch; every image keeps the same number.
#[derive(Clone, Debug, PartialEq)]
pub struct Masking {
    /// B
    pub batch: usize,
    /// L
    pub num_patches: usize,
    /// K, the number of kept patches.
    pub len_keep: usize,
    /// Kept patches in the order in which the encoder sees them, `[B, K]`.
    pub ids_keep: Vec<u32>,
    /// Place of each patch in the shuffled order, kept ones first, `[B, L]`.
    pub ids_restore: Vec<u32>,
    /// `[B, L]`, 1 = removed, 0 = kept.
    pub mask: Vec<f32>,
}

impl Masking {
    /// Keeps the patches of smallest noise.
    ///
    /// # Shapes
    /// `noise: [B, L]`, any numbers; `ratio` in 0..=1 is the share removed
    ///
    /// # Errors
    /// [`ModelError::MaskingLength`], [`ModelError::MaskRatio`], [`ModelError::Noise`] for NaN.
    pub fn from_noise(
        noise: &[f64],
        batch: usize,
        num_patches: usize,
        ratio: f64,
    ) -> Result<Self, ModelError> {
        check_length("noise", noise.len(), batch, num_patches)?;
        if let Some(index) = noise.iter().position(|noise| noise.is_nan()) {
            return Err(ModelError::Noise { index });
        }
        let len_keep = len_keep(num_patches, ratio)?;
        let mut shuffled = Vec::with_capacity(noise.len());
        for row in noise.chunks_exact(num_patches.max(1)) {
            let mut ids: Vec<u32> = (0..num_patches as u32).collect();
            ids.sort_by(|&a, &b| row[a as usize].total_cmp(&row[b as usize]));
            shuffled.extend(ids);
        }
        Ok(Self::from_shuffled(&shuffled, batch, num_patches, len_keep))
    }

    /// Keeps what a caller's mask keeps, in grid order.
    ///
    /// # Shapes
    /// `removed: [B, L]`, or `[L]` for the same mask on every image
    ///
    /// # Errors
    /// [`ModelError::MaskingLength`], [`ModelError::UnevenMask`].
    pub fn from_mask(
        removed: &[bool],
        batch: usize,
        num_patches: usize,
    ) -> Result<Self, ModelError> {
        let one_for_all = removed.len() == num_patches;
        let removed = if one_for_all { removed.repeat(batch) } else { removed.to_vec() };
        check_length("mask", removed.len(), batch, num_patches)?;
        let mut ids_keep = Vec::new();
        let mut len_keep = None;
        for (image, row) in removed.chunks_exact(num_patches.max(1)).enumerate() {
            let kept = (0..num_patches as u32).filter(|&patch| !row[patch as usize]);
            let before = ids_keep.len();
            ids_keep.extend(kept);
            let found = ids_keep.len() - before;
            let expected = *len_keep.get_or_insert(found);
            if found != expected {
                return Err(ModelError::UnevenMask { image, found, expected });
            }
        }
        Self::from_kept(&ids_keep, batch, num_patches)
    }

    /// Keeps the named patches, in the order given.
    ///
    /// # Shapes
    /// `ids_keep: [B, K]`, each below L, none twice in an image; removed patches follow in grid order
    ///
    /// # Errors
    /// [`ModelError::MaskingLength`], [`ModelError::KeptPatch`], [`ModelError::KeptTwice`].
    pub fn from_kept(
        ids_keep: &[u32],
        batch: usize,
        num_patches: usize,
    ) -> Result<Self, ModelError> {
        let len_keep = ids_keep.len().checked_div(batch).unwrap_or(0);
        check_length("ids_keep", ids_keep.len(), batch, len_keep)?;
        let mut shuffled = Vec::with_capacity(batch * num_patches);
        for image in 0..batch {
            let kept = &ids_keep[image * len_keep..][..len_keep];
            let mut seen = vec![false; num_patches];
            for &patch in kept {
                let Some(seen) = seen.get_mut(patch as usize) else {
                    return Err(ModelError::KeptPatch { image, patch, patches: num_patches });
                };
                if std::mem::replace(seen, true) {
                    return Err(ModelError::KeptTwice { image, patch });
                }
            }
            shuffled.extend(kept);
            shuffled.extend((0..num_patches as u32).filter(|&patch| !seen[patch as usize]));
        }
        Ok(Self::from_shuffled(&shuffled, batch, num_patches, len_keep))
    }

    /// Keeps every patch, in grid order.
    pub fn none(batch: usize, num_patches: usize) -> Self {
        let ids: Vec<u32> = (0..batch).flat_map(|_| 0..num_patches as u32).collect();
        Self::from_shuffled(&ids, batch, num_patches, num_patches)
    }

    fn from_shuffled(shuffled: &[u32], batch: usize, num_patches: usize, len_keep: usize) -> Self {
        let mut ids_keep = Vec::with_capacity(batch * len_keep);
        let mut ids_restore = vec![0; shuffled.len()];
        let mut mask = vec![1.0; shuffled.len()];
        for (image, row) in shuffled.chunks_exact(num_patches.max(1)).enumerate() {
            ids_keep.extend(&row[..len_keep]);
            for (place, &patch) in row.iter().enumerate() {
                let at = image * num_patches + patch as usize;
                ids_restore[at] = place as u32;
                if place < len_keep {
                    mask[at] = 0.0;
                }
            }
        }
        Self { batch, num_patches, len_keep, ids_keep, ids_restore, mask }
    }

    /// Whether any patch is removed: only then is there a loss.
    pub fn removes_any(&self) -> bool {
        self.len_keep < self.num_patches && self.batch > 0
    }

    /// Checks that it is for `batch` images of `patches` patches.
    pub(crate) fn expect(&self, batch: usize, patches: usize) -> Result<(), ModelError> {
        if (self.batch, self.num_patches) == (batch, patches) {
            return Ok(());
        }
        let (found_batch, found_patches) = (self.batch, self.num_patches);
        Err(ModelError::MaskingSize { found_batch, found_patches, batch, patches })
    }

    pub(crate) fn keep(&self, device: &Device) -> Result<Indices, TensorError> {
        Indices::from_slice(device, &[self.batch, self.len_keep], &self.ids_keep)
    }

    pub(crate) fn restore(&self, device: &Device) -> Result<Indices, TensorError> {
        Indices::from_slice(device, &[self.batch, self.num_patches], &self.ids_restore)
    }

    /// Removed patches of each image in grid order, `[B, L − K]`, the first patch of an image being number `first`.
    pub(crate) fn ids_removed(&self, device: &Device, first: u32) -> Result<Indices, TensorError> {
        let removed = self.mask.iter().enumerate().filter(|&(_, &mask)| mask == 1.0);
        let patch = |(index, _)| first + (index % self.num_patches) as u32;
        let ids: Vec<u32> = removed.map(patch).collect();
        Indices::from_slice(device, &[self.batch, self.num_patches - self.len_keep], &ids)
    }

    pub(crate) fn removed(&self, device: &Device) -> Result<Tensor, TensorError> {
        Tensor::from_slice(device, &[self.batch, self.num_patches], &self.mask)
    }
}

/// K for a ratio.
fn len_keep(num_patches: usize, ratio: f64) -> Result<usize, ModelError> {
    if !(0.0..=1.0).contains(&ratio) {
        return Err(ModelError::MaskRatio { found: ratio });
    }
    Ok((num_patches as f64 * (1.0 - ratio)) as usize)
}

fn check_length(
    what: &'static str,
    found: usize,
    batch: usize,
    each: usize,
) -> Result<(), ModelError> {
    let expected = batch.saturating_mul(each);
    if found == expected {
        return Ok(());
    }
    Err(ModelError::MaskingLength { what, found, expected, batch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specified_example_is_met() {
        let masking = Masking::from_noise(&[0.7, 0.1, 0.9, 0.3], 1, 4, 0.5).unwrap();
        assert_eq!(masking.ids_restore, [2, 0, 3, 1]);
        assert_eq!(masking.mask, [1.0, 0.0, 1.0, 0.0]);
        assert_eq!(masking.ids_keep, [1, 3]);
    }

    #[test]
    fn the_number_kept_is_truncated_in_f64() {
        for (patches, ratio, kept) in [
            (256, 0.9, 25),
            (4, 0.9, 0),
            (100, 0.9, 9),
            (196, 0.75, 49),
            (196, 0.9, 19),
            (196, 0.0, 196),
            (196, 1.0, 0),
        ] {
            assert_eq!(len_keep(patches, ratio).unwrap(), kept, "{patches} {ratio}");
        }
    }

    #[test]
    fn masks_and_kept_lists_say_the_same() {
        let removed = [true, false, false, true, false, true, true, false];
        let mask = Masking::from_mask(&removed, 2, 4).unwrap();
        assert_eq!(mask.ids_keep, [1, 2, 0, 3]);
        assert_eq!(mask, Masking::from_kept(&[1, 2, 0, 3], 2, 4).unwrap());
        let flags: Vec<bool> = mask.mask.iter().map(|&m| m == 1.0).collect();
        assert_eq!(flags, removed);
        let same = Masking::from_mask(&removed[..4], 3, 4).unwrap();
        assert_eq!(same.ids_keep, [1, 2, 1, 2, 1, 2]);
        assert_eq!(Masking::none(2, 3).mask, [0.0; 6]);
    }

    #[test]
    fn what_makes_no_mask_is_an_error() {
        let message = |result: Result<Masking, ModelError>| result.unwrap_err().to_string();
        assert_eq!(
            message(Masking::from_noise(&[0.0; 5], 2, 3, 0.5)),
            "masking: `noise` has 5 values, expected 6 for 2 images"
        );
        assert_eq!(
            message(Masking::from_noise(&[0.0], 1, 1, 1.5)),
            "masking: the ratio is 1.5, expected 0 to 1"
        );
        assert_eq!(
            message(Masking::from_noise(&[0.0, f64::NAN], 1, 2, 0.5)),
            "masking: the noise at 1 is not a number"
        );
        assert_eq!(
            message(Masking::from_mask(&[true, false, true, true], 2, 2)),
            "masking: image 1 keeps 0 patches, expected 1 as the first image"
        );
        assert_eq!(
            message(Masking::from_kept(&[0, 0], 1, 4)),
            "masking: image 0 keeps patch 0 twice"
        );
        assert_eq!(
            message(Masking::from_kept(&[4], 1, 4)),
            "masking: image 0 keeps patch 4, expected less than 4"
        );
    }
}
