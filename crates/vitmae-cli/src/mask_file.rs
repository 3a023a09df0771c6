//! Masks that the caller gives as a file of numbers.

use std::path::Path;

use anyhow::{Context, Result};
use vitmae_model::{Masking, VitMaeConfig};

use crate::exit::BadInput;
use crate::npy::{self, Values};

/// The masks of an `.npy` file, one a row, `true` = removed; every row removes the same number, some and not all.
///
/// Flags (`bool`, `uint8`, or floats that are all 0 or 1, as Hugging Face returns a mask) say it themselves; other floats
/// are noise, of which the smallest are kept, as many as the ratio leaves.
///
/// # Shapes
/// `[L]` or `[N, L]` → N rows of L
pub fn read(path: &Path, config: &VitMaeConfig, ratio: Option<f64>) -> Result<Vec<Vec<bool>>> {
    let array = npy::read(path)?;
    let what = || format!("`{}` cannot be used", path.display());
    let wrong = |message: String| Err(BadInput(message)).with_context(what);
    let patches = config.num_patches();
    let rows = match array.shape[..] {
        [found] if found == patches => 1,
        [rows, found] if found == patches && rows > 0 => rows,
        _ => {
            let found = array.shape;
            return wrong(format!(
                "its shape is {found:?}, expected [{patches}] or [N, {patches}], one value a patch"
            ));
        }
    };
    let flags = match array.values {
        Values::Flags(flags) => flags,
        Values::Numbers(numbers) if numbers.iter().all(|&x| x == 0.0 || x == 1.0) => {
            numbers.iter().map(|&x| x == 1.0).collect()
        }
        Values::Numbers(noise) => {
            let ratio = ratio.unwrap_or(config.mask_ratio);
            let masking = Masking::from_noise(&noise, rows, patches, ratio)
                .map_err(|error| BadInput(error.to_string()))
                .with_context(what)?;
            masking.mask.iter().map(|&mask| mask == 1.0).collect()
        }
    };
    let rows: Vec<Vec<bool>> = flags.chunks_exact(patches).map(<[bool]>::to_vec).collect();
    let kept_of = |row: &[bool]| row.iter().filter(|&&removed| !removed).count();
    let kept = kept_of(&rows[0]);
    if kept == 0 {
        return wrong("it removes every patch, expected at least one 0 in each row".to_owned());
    }
    if kept == patches {
        return wrong("it removes no patch, expected at least one 1 in each row".to_owned());
    }
    let other = rows.iter().map(|row| kept_of(row)).enumerate().find(|&(_, found)| found != kept);
    if let Some((row, found)) = other {
        return wrong(format!("row {row} keeps {found} patches, expected {kept} as the first row"));
    }
    Ok(rows)
}

/// The ratio at which a model removes as many patches as `mask`; a model rounds down what it keeps.
pub fn ratio_of(mask: &[bool]) -> f64 {
    let removed = mask.iter().filter(|&&removed| removed).count();
    let ratio = removed as f64 / mask.len() as f64;
    let kept = (mask.len() as f64 * (1.0 - ratio)) as usize;
    if kept == mask.len() - removed { ratio } else { ratio - f64::EPSILON }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_removes_what_its_mask_does() {
        for patches in 2..300 {
            let noise: Vec<f64> = (0..patches).map(|at| at as f64).collect();
            for kept in 1..patches {
                let mask: Vec<bool> = (0..patches).map(|at| at >= kept).collect();
                let masking = Masking::from_noise(&noise, 1, patches, ratio_of(&mask)).unwrap();
                assert_eq!(masking.len_keep, kept, "{kept} of {patches}");
            }
        }
        assert_eq!(ratio_of(&[true, true, true, false]), 0.75);
    }
}
