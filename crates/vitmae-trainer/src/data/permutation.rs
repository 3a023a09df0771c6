//! A keyed shuffle without a table: position → sample, a bijection of 0..len.
//!
//! Four Feistel rounds over the smallest even number of bits that holds `len`, keyed by
//! (seed, epoch); values beyond `len` are walked again until they fall inside, on average fewer
//! than four times. Nothing is stored, so a run resumes at any position at once.

use vitmae_cpu::random::{Stream, philox4x32};

/// Rounds; four make a strong permutation of a good round function (Luby and Rackoff, 1988).
const ROUNDS: u32 = 4;

/// The order of the samples in one epoch.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    key: [u32; 2],
}

impl Permutation {
    /// The order of `len` samples in `epoch` of the run with `seed`; `len` is at least 1.
    pub fn new(len: u64, seed: u64, epoch: u64) -> Permutation {
        let bits = 64 - len.saturating_sub(1).leading_zeros();
        let key = Stream::new(seed, "order", epoch, 0).bits(0);
        let half_bits = bits.div_ceil(2).max(1);
        Permutation { len: len.max(1), half_bits, key: [key as u32, (key >> 32) as u32] }
    }

    /// The sample at `position`, which is taken modulo the length.
    pub fn get(&self, position: u64) -> u64 {
        let mut value = position % self.len;
        loop {
            value = self.scramble(value);
            if value < self.len {
                return value;
            }
        }
    }

    fn scramble(&self, value: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for round in 0..ROUNDS {
            let counter = [right as u32, (right >> 32) as u32, round, 0];
            let random = philox4x32(self.key, counter);
            (left, right) = (right, (left ^ u64::from(random[0])) & mask);
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_comes_once() {
        for len in [1, 2, 3, 7, 64, 65, 1000, 4097] {
            for epoch in 0..3 {
                let order = Permutation::new(len, 9, epoch);
                let mut seen: Vec<_> = (0..len).map(|position| order.get(position)).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..len).collect::<Vec<_>>(), "{len} samples, epoch {epoch}");
            }
        }
    }

    #[test]
    fn seed_and_epoch_change_the_order_and_nothing_else_does() {
        let order = |seed, epoch| {
            let order = Permutation::new(1000, seed, epoch);
            (0..1000).map(|position| order.get(position)).collect::<Vec<_>>()
        };
        assert_eq!(order(1, 2), order(1, 2));
        let fixed = |a: &[u64], b: &[u64]| a.iter().zip(b).filter(|(a, b)| a == b).count();
        let natural: Vec<u64> = (0..1000).collect();
        // A random permutation keeps about one place; ten or more would be no shuffle.
        for other in [order(1, 3), order(2, 2), natural] {
            assert!(fixed(&order(1, 2), &other) < 10);
        }
    }

    #[test]
    fn places_are_even() {
        // How often each of 8 samples comes first, over 4,000 epochs: 500 each, sd about 21.
        let mut counts = [0u32; 8];
        for epoch in 0..4000 {
            counts[Permutation::new(8, 5, epoch).get(0) as usize] += 1;
        }
        assert!(counts.iter().all(|&count| (390..=610).contains(&count)), "{counts:?}");
    }

    #[test]
    fn very_large_sets_work() {
        let order = Permutation::new(u64::from(u32::MAX) * 5, 1, 1);
        assert!(order.get(1 << 33) < u64::from(u32::MAX) * 5);
        assert_ne!(order.get(0), order.get(1));
    }
}
