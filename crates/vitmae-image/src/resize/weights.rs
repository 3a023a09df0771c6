//! The weights of one axis, rounded to fixed point.

use std::ops::Range;

use super::Filter;

/// Bits after the point of a weight: 32 less 8 for the pixel and 2 for overshoot.
pub(super) const BITS: u32 = 22;

/// For every output position, which input positions count and by how much.
pub(super) struct Weights {
    /// First input position and number of positions, for every output position.
    spans: Vec<(usize, usize)>,
    /// Weights in units of 2⁻²²; those of output `i` start at `i · stride`.
    values: Vec<i32>,
    stride: usize,
}

impl Weights {
    /// Weights that map `[start, end)` of an axis of `input` pixels to `output` pixels.
    pub(super) fn new(
        input: usize,
        (start, end): (f32, f32),
        output: usize,
        filter: Filter,
    ) -> Weights {
        // The difference is taken in f32, as Pillow does.
        let scale = f64::from(end - start) / output as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let stride = support.ceil() as usize * 2 + 1;
        let mut spans = Vec::with_capacity(output);
        let mut values = vec![0; output * stride];
        let mut exact = vec![0.0; stride];

        for (i, row) in values.chunks_exact_mut(stride).enumerate() {
            let center = f64::from(start) + (i as f64 + 0.5) * scale;
            // A cast truncates towards zero and takes what is negative to zero.
            let first = (center - support + 0.5) as usize;
            let last = ((center + support + 0.5) as usize).min(input);
            let count = last - first;
            spans.push((first, count));

            let mut sum = 0.0;
            for (x, weight) in exact[..count].iter_mut().enumerate() {
                *weight = filter.weight(((x + first) as f64 - center + 0.5) * (1.0 / stretch));
                sum += *weight;
            }
            for (weight, rounded) in exact[..count].iter().zip(row) {
                let normalised = if sum == 0.0 { *weight } else { weight / sum };
                *rounded = round(normalised);
            }
        }
        Weights { spans, values, stride }
    }

    /// Number of output positions.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The input positions that any output position uses.
    pub(super) fn reach(&self) -> Range<usize> {
        // Spans move forward only.
        match (self.spans.first(), self.spans.last()) {
            (Some(first), Some(last)) => first.0..last.0 + last.1,
            _ => 0..0,
        }
    }

    /// Start, and the weights, of output position `i`.
    pub(super) fn at(&self, i: usize) -> (usize, &[i32]) {
        let (first, count) = self.spans[i];
        (first, &self.values[i * self.stride..][..count])
    }
}

/// Rounds half away from zero to units of 2⁻²².
fn round(weight: f64) -> i32 {
    let scaled = weight * f64::from(1u32 << BITS);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_one_within_their_rounding() {
        for filter in Filter::ALL.into_iter().filter(|filter| *filter != Filter::Nearest) {
            for (input, output) in [(640, 224), (7, 31), (1, 5), (5, 1), (1000, 3)] {
                let weights = Weights::new(input, (0.0, input as f32), output, filter);
                for i in 0..output {
                    let (first, row) = weights.at(i);
                    assert!(!row.is_empty() && first + row.len() <= input);
                    let error = row.iter().sum::<i32>() - (1 << BITS);
                    assert!(error.unsigned_abs() as usize <= row.len(), "{filter:?} {error}");
                }
            }
        }
    }
}
