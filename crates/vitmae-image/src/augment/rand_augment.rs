//! RandAugment: a few operations of random strength on each training image.
//!
//! Source: arXiv:1909.13719 and timm's `rand_augment_transform`.

use std::f64::consts::TAU;
use std::fmt;
use std::str::FromStr;

use super::{Operation, checked};
use crate::{Image, ImageError};

/// How images are varied: timm's policy by its name, such as `rand-m9-mstd0.5-inc1`.
///
/// The operations are those of [`Operation`], drawn evenly and with repetition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandAugment {
    /// Mean level, from 0 to 10.
    pub magnitude: f64,
    /// Standard deviation of the level.
    pub deviation: f64,
    /// Operations an image.
    pub operations: usize,
    /// With which each of them is applied.
    pub probability: f64,
}

impl RandAugment {
    /// Applies `operations` operations; the draws of each are the operation, whether it applies, two for its level by
    /// Box and Muller's method, and its direction.
    ///
    /// # Shapes
    /// `[H, W, 3]` u8 → `[H, W, 3]` u8
    ///
    /// # Errors
    /// [`ImageError::Channels`] if the image is not RGB, [`ImageError::RandomCrop`] if a draw is not in [0, 1).
    pub fn apply(
        &self,
        image: &Image,
        fill: [u8; 3],
        draw: &mut dyn FnMut() -> f64,
    ) -> Result<Image, ImageError> {
        let mut draw = || checked("draw", draw(), "at least 0 and less than 1", |d| d < 1.0);
        let mut image = image.clone();
        for _ in 0..self.operations {
            let (_, operation) = Operation::ALL[(draw()? * Operation::ALL.len() as f64) as usize];
            let applies = draw()? < self.probability;
            let normal = (-2.0 * (1.0 - draw()?).ln()).sqrt() * (TAU * draw()?).cos();
            let turned = draw()? < 0.5;
            if applies {
                let level = self.magnitude + self.deviation * normal;
                image = operation.apply(&image, level, turned, fill)?;
            }
        }
        Ok(image)
    }
}

impl fmt::Display for RandAugment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RandAugment { magnitude, deviation, operations, probability } = self;
        write!(f, "rand-m{magnitude}-n{operations}-p{probability}-mstd{deviation}-inc1")
    }
}

impl FromStr for RandAugment {
    type Err = ImageError;

    /// Reads timm's notation: `rand`, then in any order `mM` (level, 10 if absent), `nN` (operations, 2), `pP`
    /// (probability, 0.5), `mstdS` (standard deviation, 0) and `inc1`, which must be there.
    fn from_str(text: &str) -> Result<Self, ImageError> {
        let refuse = |found: &str, expected| {
            let (policy, found) = (text.to_owned(), found.to_owned());
            Err(ImageError::Policy { policy, found, expected })
        };
        let mut parts = text.split('-');
        match parts.next() {
            Some("rand") => {}
            other => {
                return refuse(other.unwrap_or(""), "`rand` first, such as `rand-m9-mstd0.5-inc1`");
            }
        }
        let mut policy =
            RandAugment { magnitude: 10.0, deviation: 0.0, operations: 2, probability: 0.5 };
        let mut increasing = false;
        for part in parts {
            let digits = part.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(part.len());
            let (key, digits) = part.split_at(digits);
            let value = digits.parse::<f64>().ok().filter(|value| value.is_finite());
            let number = |good: fn(f64) -> bool| value.filter(|&value| good(value));
            match key {
                "m" => match number(|m| (0.0..=10.0).contains(&m)) {
                    Some(magnitude) => policy.magnitude = magnitude,
                    None => return refuse(part, "`m` with a level from 0 to 10"),
                },
                "mstd" => match number(|s| (0.0..100.0).contains(&s)) {
                    Some(deviation) => policy.deviation = deviation,
                    None => return refuse(part, "`mstd` with a number from 0 to below 100"),
                },
                "p" => match number(|p| (0.0..=1.0).contains(&p)) {
                    Some(probability) => policy.probability = probability,
                    None => return refuse(part, "`p` with a number from 0 to 1"),
                },
                "n" => match number(|n| (1.0..=16.0).contains(&n) && n.fract() == 0.0) {
                    Some(operations) => policy.operations = operations as usize,
                    None => return refuse(part, "`n` with a whole number from 1 to 16"),
                },
                "inc" if digits == "1" => increasing = true,
                "inc" => return refuse(part, "`inc1`: only the increasing operations are here"),
                _ => return refuse(part, "`m`, `n`, `p`, `mstd` or `inc1`"),
            }
        }
        if !increasing {
            return refuse("no `inc1`", "`inc1`: only the increasing operations are here");
        }
        Ok(policy)
    }
}
