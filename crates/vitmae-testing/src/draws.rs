//! Seeded numbers for test data: the same values on every machine, in every run.
//!
//! The generator is splitmix64 (Steele, Lea, Flood, OOPSLA 2014). It serves tests alone; the product
//! draws from its own counter-based generator.

/// A sequence of pseudo-random numbers that is a function of its seed.
#[derive(Debug, Clone)]
pub struct Draws {
    state: u64,
}

impl Draws {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let bits = splitmix64(self.state);
        self.state = self.state.wrapping_add(SPLITMIX_STEP);
        bits
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// An integer in `range`, both ends included.
    pub fn integer(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        let width = (range.end() - range.start() + 1) as f64;
        range.start() + (self.uniform() * width) as usize
    }

    /// `count` values uniform in [−1, 1).
    pub fn vec(&mut self, count: usize) -> Vec<f64> {
        (0..count).map(|_| self.between(-1.0, 1.0)).collect()
    }

    /// `count` values uniform in [−1, 1) that are exact in f32, for tests that feed both sides.
    pub fn vec_f32(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.between(-1.0, 1.0) as f32).collect()
    }

    /// A permutation of `0..count` (Fisher and Yates).
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut ids: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            ids.swap(last, self.integer(0..=last));
        }
        ids
    }
}

/// The same values in f64, for the reference beside an f32 kernel.
pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| v.into()).collect()
}

/// The constant added to the state at each step of splitmix64.
const SPLITMIX_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// One splitmix64 output for the state `z`; all arithmetic wraps.
pub fn splitmix64(z: u64) -> u64 {
    let z = z.wrapping_add(SPLITMIX_STEP);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_the_published_sequence() {
        // First outputs for seed 1234567 in the reference implementation's own check.
        let mut draws = Draws::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| draws.bits()).collect();
        assert_eq!(first, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn integers_cover_their_range_and_nothing_else() {
        let mut draws = Draws::new(1);
        let mut seen = [0usize; 5];
        for _ in 0..1000 {
            seen[draws.integer(3..=7) - 3] += 1;
        }
        assert!(seen.iter().all(|&count| count > 100), "{seen:?}");
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut ids = Draws::new(5).permutation(50);
        assert_ne!(ids, (0..50).collect::<Vec<_>>());
        ids.sort_unstable();
        assert_eq!(ids, (0..50).collect::<Vec<_>>());
    }
}
