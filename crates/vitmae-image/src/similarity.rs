//! How alike two images are: mean squared error, PSNR and SSIM.
//!
//! Source: Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004; the same numbers as
//! scikit-image's `structural_similarity` with `gaussian_weights=True, use_sample_covariance=False`.

use crate::ImageError;

/// Taps of the window, a Gaussian of deviation 1.5 cut off at 3.5 of them.
const WINDOW: usize = 11;
const DEVIATION: f64 = 1.5;
const K1: f64 = 0.01;
const K2: f64 = 0.03;

/// Mean of the squared differences of two slices of one length; NaN for empty ones.
pub fn mean_squared_error(a: &[f32], b: &[f32]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    squares.sum::<f64>() / a.len() as f64
}

/// Peak signal-to-noise ratio in decibels of a mean squared error, for values that span `range`; infinite for 0.
pub fn psnr(mean_squared_error: f64, range: f64) -> f64 {
    10.0 * (range * range / mean_squared_error).log10()
}

/// Structural similarity, 1 for equal images: the mean over all windows that lie inside, and over channels.
///
/// # Shapes
/// `a, b: [C, H, W]`, values that span `range`; H and W at least 11
///
/// # Errors
/// [`ImageError::Values`] for other lengths, [`ImageError::TargetSize`] for images smaller than the window.
pub fn ssim(a: &[f32], b: &[f32], sizes: [usize; 3], range: f64) -> Result<f64, ImageError> {
    let [channels, height, width] = sizes;
    let expected = channels * height * width;
    for values in [a, b] {
        if values.len() != expected {
            let found = values.len();
            return Err(ImageError::Values { what: "image to compare", found, expected });
        }
    }
    if height < WINDOW || width < WINDOW || channels == 0 {
        return Err(ImageError::TargetSize { what: "image to compare", width, height });
    }
    let plane = height * width;
    let (c1, c2) = ((K1 * range).powi(2), (K2 * range).powi(2));
    let mut sum = 0.0;
    for channel in 0..channels {
        let of = |values: &[f32]| -> Vec<f64> {
            values[channel * plane..][..plane].iter().map(|&value| f64::from(value)).collect()
        };
        let (a, b) = (of(a), of(b));
        let product =
            |x: &[f64], y: &[f64]| -> Vec<f64> { x.iter().zip(y).map(|(x, y)| x * y).collect() };
        let mean = |values: &[f64]| blurred(values, (height, width));
        let (ma, mb) = (mean(&a), mean(&b));
        let (maa, mbb, mab) =
            (mean(&product(&a, &a)), mean(&product(&b, &b)), mean(&product(&a, &b)));
        let windows = ma.len() as f64;
        let all = ma.iter().zip(&mb).zip(maa.iter().zip(&mbb)).zip(&mab);
        let similar = all.map(|(((ma, mb), (maa, mbb)), mab)| {
            let (va, vb, vab) = (maa - ma * ma, mbb - mb * mb, mab - ma * mb);
            (2.0 * ma * mb + c1) * (2.0 * vab + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
        });
        sum += similar.sum::<f64>() / windows;
    }
    Ok(sum / channels as f64)
}

/// Weighted means of all windows inside: `[H, W]` → `[H - 10, W - 10]`.
fn blurred(values: &[f64], (height, width): (usize, usize)) -> Vec<f64> {
    let radius = (WINDOW / 2) as f64;
    let weight = |at: usize| (-0.5 * ((at as f64 - radius) / DEVIATION).powi(2)).exp();
    let weights: Vec<f64> = (0..WINDOW).map(weight).collect();
    let total: f64 = weights.iter().sum();
    let weights: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
    let (rows, columns) = (height - WINDOW + 1, width - WINDOW + 1);
    let dot = |at: &dyn Fn(usize) -> f64| (0..WINDOW).map(|tap| weights[tap] * at(tap)).sum();
    let mut tall: Vec<f64> = Vec::with_capacity(rows * width);
    for row in 0..rows {
        tall.extend((0..width).map(|x| -> f64 { dot(&|tap| values[(row + tap) * width + x]) }));
    }
    let mut small = Vec::with_capacity(rows * columns);
    for row in tall.chunks(width) {
        small.extend((0..columns).map(|x| -> f64 { dot(&|tap| row[x + tap]) }));
    }
    small
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_images_are_1_and_small_ones_are_refused() {
        let image: Vec<f32> = (0..3 * 12 * 13).map(|at| (at % 17) as f32).collect();
        assert!((ssim(&image, &image, [3, 12, 13], 255.0).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(mean_squared_error(&image, &image), 0.0);
        assert_eq!(psnr(0.0, 1.0), f64::INFINITY);
        assert!((psnr(0.01, 1.0) - 20.0).abs() < 1e-12);
        assert!(matches!(
            ssim(&image, &image, [3, 13, 13], 1.0),
            Err(ImageError::Values { found: 468, expected: 507, .. })
        ));
        assert!(ssim(&image[..300], &image[..300], [3, 10, 10], 1.0).is_err());
    }
}
