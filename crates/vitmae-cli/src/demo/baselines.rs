//! Two ways to fill removed patches without learning, to compare the model with.

use vitmae_model::VitMaeConfig;

/// Change of a pixel below which the interpolation counts as solved.
const PRECISION: f64 = 1e-5;
/// Sweeps at most.
const SWEEPS: usize = 2000;

/// Every removed pixel gets the mean colour of the whole image, the removed part included: no
/// single colour does better on the image.
///
/// # Shapes
/// `pixels`, result: `[C, H, W]`
pub fn mean_colour(config: &VitMaeConfig, pixels: &[f32]) -> Vec<f32> {
    let plane = config.image_size.0 * config.image_size.1;
    pixels
        .chunks_exact(plane)
        .flat_map(|channel| {
            let sum: f64 = channel.iter().map(|&value| f64::from(value)).sum();
            std::iter::repeat_n((sum / plane as f64) as f32, plane)
        })
        .collect()
}

/// Every removed pixel is interpolated smoothly from the visible pixels around it: the solution of
/// Laplace's equation with the visible pixels as boundary, each removed one the mean of its
/// neighbours. No extrapolation, no ringing; the usual simple inpainting.
///
/// # Shapes
/// `pixels`, result: `[C, H, W]`; `mask: [L]`, 1 = removed
pub fn interpolation(config: &VitMaeConfig, pixels: &[f32], mask: &[f32]) -> Vec<f32> {
    let (height, width) = config.image_size;
    let (ph, pw) = config.patch_size;
    let columns = config.grid().1;
    let removed: Vec<(usize, usize)> = (0..height)
        .flat_map(|y| (0..width).map(move |x| (y, x)))
        .filter(|&(y, x)| mask[y / ph * columns + x / pw] > 0.5)
        .collect();
    let mut filled = mean_of_visible(config, pixels, mask);
    for channel in filled.chunks_exact_mut(height * width) {
        solve(channel, &removed, (height, width));
    }
    filled.into_iter().map(|value| value as f32).collect()
}

/// Successive over-relaxation until no pixel moves.
fn solve(u: &mut [f64], removed: &[(usize, usize)], (height, width): (usize, usize)) {
    // The best factor for a square of this side; any below 2 converges.
    let factor = 2.0 / (1.0 + (std::f64::consts::PI / height.max(width) as f64).sin());
    for _ in 0..SWEEPS {
        let mut largest = 0.0f64;
        for &(y, x) in removed {
            let (mut sum, mut count) = (0.0, 0.0);
            let mut take = |inside: bool, at: usize| {
                if inside {
                    sum += u[at];
                    count += 1.0;
                }
            };
            let at = y * width + x;
            take(y > 0, at.wrapping_sub(width));
            take(y + 1 < height, at + width);
            take(x > 0, at.wrapping_sub(1));
            take(x + 1 < width, at + 1);
            let change = factor * (sum / count - u[at]);
            u[at] += change;
            largest = largest.max(change.abs());
        }
        if largest < PRECISION {
            return;
        }
    }
}

/// The pixels with the removed ones at the mean colour of the visible ones, to start from.
fn mean_of_visible(config: &VitMaeConfig, pixels: &[f32], mask: &[f32]) -> Vec<f64> {
    let (height, width) = config.image_size;
    let (ph, pw) = config.patch_size;
    let columns = config.grid().1;
    let is_removed = |at: usize| mask[at / width / ph * columns + at % width / pw] > 0.5;
    pixels
        .chunks_exact(height * width)
        .flat_map(|channel| {
            let visible = channel.iter().enumerate().filter(|(at, _)| !is_removed(*at));
            let (count, sum) = visible.fold((0.0, 0.0), |(count, sum), (_, &value)| {
                (count + 1.0, sum + f64::from(value))
            });
            let mean = if count > 0.0 { sum / count } else { 0.0 };
            let value = move |(at, &value): (usize, &f32)| {
                if is_removed(at) { mean } else { f64::from(value) }
            };
            channel.iter().enumerate().map(value).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VitMaeConfig {
        VitMaeConfig {
            image_size: (16, 16),
            patch_size: (4, 4),
            num_channels: 1,
            ..VitMaeConfig::default()
        }
    }

    #[test]
    fn a_plane_is_interpolated_exactly_inside() {
        // Harmonic functions are their own interpolation: here 3 + 2 y + x.
        let pixels: Vec<f32> = (0..256).map(|at| (3 + 2 * (at / 16) + at % 16) as f32).collect();
        let mut mask = vec![0.0; 16];
        (mask[5], mask[6]) = (1.0, 1.0);
        let filled = interpolation(&config(), &pixels, &mask);
        assert!(filled.iter().zip(&pixels).all(|(a, b)| (a - b).abs() < 1e-3));
    }

    #[test]
    fn visible_pixels_are_kept_and_a_corner_is_filled_from_its_neighbours() {
        let pixels: Vec<f32> =
            (0..256).map(|at| if at % 16 < 4 && at / 16 < 4 { 9.0 } else { 1.0 }).collect();
        let mut mask = vec![0.0; 16];
        mask[0] = 1.0;
        let filled = interpolation(&config(), &pixels, &mask);
        assert!(filled.iter().all(|&value| (value - 1.0).abs() < 1e-3));
    }

    #[test]
    fn the_mean_colour_is_that_of_the_image() {
        let pixels: Vec<f32> = (0..256).map(|at| at as f32).collect();
        assert_eq!(mean_colour(&config(), &pixels), vec![127.5; 256]);
    }
}
