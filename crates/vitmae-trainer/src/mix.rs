//! What fine-tuning does to a finished batch: mixup, CutMix, smoothed labels, random erasing.
//!
//! Image i is mixed with image B − 1 − i of its batch, all in the same way:
//!
//!   mixup    x ← λ x + (1 − λ) x′                                     λ ~ Beta(α, α)
//!   CutMix   a rectangle of (1 − λ) of the image is taken from x′     λ ← 1 − its share after clipping to the image
//!   labels   λ t + (1 − λ) t′,  t = smoothing / classes everywhere and 1 − smoothing more at the class
//!
//! Every choice is a function of a seed and a batch's or a sample's number.
//!
//! Sources: arXiv:1710.09412, arXiv:1905.04899, arXiv:1708.04896; `Mixup` in batch mode and `RandomErasing` in mode
//! `pixel` of timm.

use std::f64::consts::{LN_10, PI};

use vitmae_cpu::random::Stream;

/// How batches are mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// α of mixup, 0 for none.
    pub mixup: f64,
    /// α of CutMix, 0 for none.
    pub cutmix: f64,
    /// Share of batches that are mixed.
    pub probability: f64,
    /// Share of those that CutMix takes, where both are on.
    pub switch: f64,
    /// What is taken from the class and spread over all.
    pub smoothing: f64,
}

impl Default for Mix {
    /// Nothing but smoothing of 0.1: the original's defaults.
    fn default() -> Self {
        Self { mixup: 0.0, cutmix: 0.0, probability: 1.0, switch: 0.5, smoothing: 0.1 }
    }
}

/// A batch's pixels, `[B, C, H, W]`.
pub(crate) struct Pixels<'a> {
    pub(crate) values: &'a mut [f32],
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Mix {
    /// Mixes a batch and returns how much each image is of each class, `[B, classes]`.
    pub(crate) fn apply(
        &self,
        pixels: &mut Pixels<'_>,
        labels: &[usize],
        classes: usize,
        (seed, batch): (u64, u64),
    ) -> Vec<f32> {
        let stream = Stream::new(seed, "mix", batch, 0);
        let mut index = 0;
        let mut draw = || {
            index += 1;
            stream.uniform(index - 1)
        };
        let (mixes, cuts) = (self.mixup > 0.0, self.cutmix > 0.0);
        let mut share = 1.0;
        if (mixes || cuts) && draw() < self.probability {
            let cut = cuts && (!mixes || draw() < self.switch);
            let alpha = if cut { self.cutmix } else { self.mixup };
            let lambda = beta(alpha, &mut draw);
            if cut {
                let place = [draw(), draw()];
                share = pixels.exchange(lambda, place);
            } else {
                pixels.blend(lambda as f32);
                share = lambda;
            }
        }
        self.targets(labels, classes, share)
    }

    /// How much each image is of each class, `[B, classes]`, where `share` of it stayed its own.
    fn targets(&self, labels: &[usize], classes: usize, share: f64) -> Vec<f32> {
        let (off, on) = (self.smoothing / classes as f64, 1.0 - self.smoothing);
        let mut shares = vec![off as f32; labels.len() * classes];
        for (image, row) in shares.chunks_mut(classes).enumerate() {
            row[labels[image]] += (on * share) as f32;
            row[labels[labels.len() - 1 - image]] += (on * (1.0 - share)) as f32;
        }
        shares
    }
}

/// A rectangle: first row and column, height and width.
type Area = [usize; 4];

/// The rectangle of random erasing, of 2 % to a third of the image, if it is erased and one of ten tries fits.
fn erased(
    (height, width): (usize, usize),
    probability: f64,
    draw: &mut impl FnMut() -> f64,
) -> Option<Area> {
    if draw() >= probability {
        return None;
    }
    // The ratio of its sides lies between 0.3 and 10/3.
    let most = LN_10 - 3f64.ln();
    for _ in 0..10 {
        let area = (0.02 + (1.0 / 3.0 - 0.02) * draw()) * (height * width) as f64;
        let ratio = (most * (2.0 * draw() - 1.0)).exp();
        let h = (area * ratio).sqrt().round_ties_even() as usize;
        let w = (area / ratio).sqrt().round_ties_even() as usize;
        if h < height && w < width {
            let top = (draw() * (height - h + 1) as f64) as usize;
            let left = (draw() * (width - w + 1) as f64) as usize;
            return Some([top, left, h, w]);
        }
    }
    None
}

impl Pixels<'_> {
    fn image(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// `x ← λ x + (1 − λ) x′`
    fn blend(&mut self, lambda: f32) {
        let len = self.values.len();
        for at in 0..len.div_ceil(2) {
            let (image, inside) = (at / self.image(), at % self.image());
            let other = len - (image + 1) * self.image() + inside;
            let (a, b) = (self.values[at], self.values[other]);
            // The middle image of an odd batch is its own partner.
            if other >= at {
                self.values[at] = lambda * a + (1.0 - lambda) * b;
                self.values[other] = lambda * b + (1.0 - lambda) * a;
            }
        }
    }

    /// Exchanges a rectangle of 1 − λ of the image between partners; returns the share that stayed.
    fn exchange(&mut self, lambda: f64, [y, x]: [f64; 2]) -> f64 {
        let side = (1.0 - lambda).sqrt();
        let range = |length: usize, draw: f64| {
            let half = (length as f64 * side) as usize / 2;
            let middle = (draw * length as f64) as usize;
            middle.saturating_sub(half)..(middle + half).min(length)
        };
        let (rows, columns) = (range(self.height, y), range(self.width, x));
        let images = self.values.len() / self.image();
        for image in 0..images / 2 {
            let other = images - 1 - image;
            for channel in 0..self.channels {
                for row in rows.clone() {
                    let start = (channel * self.height + row) * self.width;
                    for at in start + columns.start..start + columns.end {
                        self.values.swap(image * self.image() + at, other * self.image() + at);
                    }
                }
            }
        }
        1.0 - (rows.len() * columns.len()) as f64 / (self.height * self.width) as f64
    }

    /// Random erasing: with `probability`, fills a rectangle of an image with normal noise.
    pub(crate) fn erase(&mut self, probability: f64, seed: u64, epoch: u64, samples: &[u64]) {
        let (height, width, image) = (self.height, self.width, self.image());
        for (pixels, &sample) in self.values.chunks_mut(image).zip(samples) {
            let stream = Stream::new(seed, "erasing", epoch, sample);
            let mut index = 0;
            let mut draw = || {
                index += 1;
                stream.uniform(index - 1)
            };
            let found = erased((height, width), probability, &mut draw);
            let Some([top, left, h, w]) = found else { continue };
            let noise = Stream::new(seed, "erasing noise", epoch, sample);
            for (channel, plane) in pixels.chunks_mut(height * width).enumerate() {
                for row in top..top + h {
                    for column in left..left + w {
                        let at = row * width + column;
                        plane[at] = noise.normal((channel * height * width + at) as u64) as f32;
                    }
                }
            }
        }
    }
}

/// A value of Beta(α, α), from two of Gamma(α).
fn beta(alpha: f64, draw: &mut impl FnMut() -> f64) -> f64 {
    let (a, b) = (gamma(alpha, draw), gamma(alpha, draw));
    // Both can vanish where α is tiny; then all the weight lies at one end.
    if a + b > 0.0 { a / (a + b) } else { 1.0 }
}

/// A value of Gamma(α, 1). Source: Marsaglia and Tsang, 2000.
fn gamma(alpha: f64, draw: &mut impl FnMut() -> f64) -> f64 {
    if alpha < 1.0 {
        let u = 1.0 - draw();
        return gamma(alpha + 1.0, draw) * u.powf(1.0 / alpha);
    }
    let d = alpha - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let (u, v) = (1.0 - draw(), draw());
        let x = (-2.0 * u.ln()).sqrt() * (2.0 * PI * v).cos();
        let v = (1.0 + c * x).powi(3);
        let u = 1.0 - draw();
        if v > 0.0 && u.ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
            return d * v;
        }
    }
}

#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::*;

    /// Four images of two channels, 6 × 5 pixels; every pixel of image i is i + 1.
    fn images() -> Vec<f32> {
        (0..4 * 60).map(|at| (at / 60 + 1) as f32).collect()
    }

    fn apply(mix: Mix, values: &mut [f32], batch: u64) -> Vec<f32> {
        let mut pixels = Pixels { values, channels: 2, height: 6, width: 5 };
        mix.apply(&mut pixels, &[0, 1, 2, 2], 3, (7, batch))
    }

    #[test]
    fn without_mixing_labels_are_smoothed_and_pixels_stay() {
        let mut values = images();
        let shares = apply(Mix { smoothing: 0.3, ..Mix::default() }, &mut values, 0);
        assert_eq!(values, images());
        for (found, expected) in shares[..6].iter().zip([0.8f32, 0.1, 0.1, 0.1, 0.8, 0.1]) {
            assert!((found - expected).abs() < 1e-6, "{shares:?}");
        }
    }

    #[test]
    fn labels_and_pixels_are_mixed_in_the_same_shares() {
        for (mixup, cutmix) in [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)] {
            let mix = Mix { mixup, cutmix, smoothing: 0.0, ..Mix::default() };
            let (mut mixed, mut cut) = (0, 0);
            for batch in 0..200 {
                let mut values = images();
                let shares = apply(mix, &mut values, batch);
                // Images 0 and 3 are of the classes 0 and 2, and of the values 1 and 4.
                let lambda = shares[0];
                assert!((0.0..=1.0).contains(&lambda));
                assert!((shares[2] - (1.0 - lambda)).abs() < 1e-6);
                let mean = values[..60].iter().sum::<f32>() / 60.0;
                assert!((mean - (lambda + 4.0 * (1.0 - lambda))).abs() < 1e-4, "{mean} {lambda}");
                let total: f32 = values.iter().sum();
                assert!((total - images().iter().sum::<f32>()).abs() < 1e-2);
                let whole = values[..60].iter().all(|&x| x == 1.0 || x == 4.0);
                if whole { cut += 1 } else { mixed += 1 }
            }
            let expected = (cutmix == 0.0, mixup == 0.0);
            match expected {
                (true, _) => assert!(mixed > 150),
                (_, true) => assert_eq!(mixed, 0),
                _ => assert!(mixed > 60 && cut > 60, "{mixed} {cut}"),
            }
        }
    }

    #[test]
    fn beta_has_its_mean_and_variance() {
        for alpha in [0.2, 0.8, 1.0, 4.0] {
            let stream = Stream::new(3, "test", 0, 0);
            let mut index = 0;
            let mut draw = || {
                index += 1;
                stream.uniform(index - 1)
            };
            let values: Vec<f64> = (0..20_000).map(|_| beta(alpha, &mut draw)).collect();
            let mean = values.iter().sum::<f64>() / 20_000.0;
            let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 0.02, "{alpha}: mean {mean}");
            assert!((variance / expected - 1.0).abs() < 0.05, "{alpha}: variance {variance}");
        }
    }

    #[test]
    fn erasing_touches_a_share_of_images_and_a_rectangle_of_each() {
        let (count, side) = (400, 16);
        let mut values = vec![9.0f32; count * 3 * side * side];
        let mut pixels = Pixels { values: &mut values, channels: 3, height: side, width: side };
        let samples: Vec<u64> = (0..count as u64).collect();
        pixels.erase(0.25, 1, 0, &samples);
        let mut touched = 0;
        for image in values.chunks(3 * side * side) {
            let erased = |at: usize| image[at] != 9.0;
            let area = (0..side * side).filter(|&at| erased(at)).count();
            let all = (0..3 * side * side).filter(|&at| erased(at)).count();
            assert_eq!(all, 3 * area);
            touched += usize::from(area > 0);
            assert!(area <= side * side * 2 / 5, "{area}");
        }
        assert!((60..140).contains(&touched), "{touched}");
    }
}
