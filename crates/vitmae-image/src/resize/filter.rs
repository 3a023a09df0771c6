//! The resampling filters, with Pillow's numbers and support.

use std::f64::consts::PI;

/// A resampling filter; the discriminants are Pillow's (`resample` in `preprocessor_config.json`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Filter {
    /// The pixel under the centre, not averaged.
    Nearest = 0,
    /// Sinc windowed by sinc, over 3 pixels to each side.
    Lanczos = 1,
    /// Triangle over 1 pixel to each side.
    Bilinear = 2,
    /// Cubic convolution with a = −0.5, over 2 pixels to each side.
    Bicubic = 3,
    /// Mean over half a pixel to each side.
    Box = 4,
    /// Sinc windowed by a Hamming window, over 1 pixel to each side.
    Hamming = 5,
}

impl Filter {
    /// All filters in Pillow's order.
    pub const ALL: [Filter; 6] = [
        Filter::Nearest,
        Filter::Lanczos,
        Filter::Bilinear,
        Filter::Bicubic,
        Filter::Box,
        Filter::Hamming,
    ];

    /// The filter with Pillow's number, 0 to 5.
    #[must_use]
    pub fn from_pillow(number: u64) -> Option<Filter> {
        Filter::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Pillow's number, 0 to 5.
    #[must_use]
    pub fn pillow(self) -> u8 {
        self as u8
    }

    /// Pixels to each side of the centre that count when enlarging.
    pub(super) fn support(self) -> f64 {
        match self {
            Filter::Nearest | Filter::Box => 0.5,
            Filter::Bilinear | Filter::Hamming => 1.0,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    /// Weight at distance `x` from the centre, not normalised.
    pub(super) fn weight(self, x: f64) -> f64 {
        match self {
            Filter::Nearest | Filter::Box => f64::from(x > -0.5 && x <= 0.5),
            Filter::Bilinear => (1.0 - x.abs()).max(0.0),
            Filter::Bicubic => cubic(x.abs()),
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Filter::Lanczos => 0.0,
            Filter::Hamming => hamming(x.abs()),
        }
    }
}

/// Keys' cubic convolution with a = −0.5, in Horner form.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let angle = x * PI;
    angle.sin() / angle
}

fn hamming(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    if x >= 1.0 {
        return 0.0;
    }
    // Pillow writes the window's two numbers as single-precision constants.
    let angle = x * PI;
    angle.sin() / angle * (f64::from(0.54f32) + f64::from(0.46f32) * angle.cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pillows() {
        for (number, filter) in Filter::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(filter.pillow()), number);
            assert_eq!(Filter::from_pillow(number as u64), Some(filter));
        }
        assert_eq!(Filter::from_pillow(6), None);
    }

    #[test]
    fn filters_are_one_at_the_centre_and_zero_at_their_support() {
        for filter in Filter::ALL {
            assert_eq!(filter.weight(0.0), 1.0, "{filter:?}");
            let edge = filter.support() + 1e-9;
            assert_eq!((filter.weight(edge), filter.weight(-edge)), (0.0, 0.0), "{filter:?}");
        }
    }
}
