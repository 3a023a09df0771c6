//! Counter-based random numbers: each one is a pure function of a key and a counter.
//!
//! There is no state to save, so a run resumes from its step number alone, and any draw can be
//! repeated on its own. Generator: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy
//! as 1, 2, 3", SC 2011), checked against the authors' test vectors.

use rayon::prelude::*;

use crate::parallel::CHUNK;
use crate::simd::multiversion;

/// Ten rounds of Philox4x32: 128 random bits for a 64-bit key and a 128-bit counter.
#[inline(always)]
pub fn philox4x32(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    const M: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let [mut k0, mut k1] = key;
    let mut c = counter;
    for _ in 0..10 {
        let p0 = M[0] * c[0] as u64;
        let p1 = M[1] * c[2] as u64;
        c = [(p1 >> 32) as u32 ^ c[1] ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k1, p0 as u32];
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    c
}

/// A stream of random numbers addressed by index: a pure function of (seed, purpose, a, b, index).
///
/// ```
/// use vitmae_cpu::random::Stream;
/// let mask = Stream::new(7, "mask", 3, 41);                  // epoch 3, sample 41
/// assert_eq!(mask.uniform(5), Stream::new(7, "mask", 3, 41).uniform(5));
/// assert_ne!(mask.uniform(5), Stream::new(7, "crop", 3, 41).uniform(5));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: [u32; 2],
}

impl Stream {
    /// The stream of `seed` for one `purpose` and two numbers of the caller's, such as epoch and sample.
    pub fn new(seed: u64, purpose: &str, a: u64, b: u64) -> Self {
        let mut key = fold([seed as u32, (seed >> 32) as u32], fnv1a64(purpose));
        key = fold(key, a);
        key = fold(key, b);
        Self { key }
    }

    /// 64 random bits.
    #[inline(always)]
    pub fn bits(&self, index: u64) -> u64 {
        let r = philox4x32(self.key, [index as u32, (index >> 32) as u32, 0, 0]);
        r[0] as u64 | (r[1] as u64) << 32
    }

    /// `out[i] = bound · (2 · uniform(i) − 1)`, a number in [−bound, bound), on all threads.
    pub fn fill_uniform(&self, bound: f64, out: &mut [f32]) {
        out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
            uniform_from(*self, (chunk * CHUNK) as u64, bound, out);
        });
    }

    /// A number in [0, 1) with 53 random bits.
    #[inline(always)]
    pub fn uniform(&self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A draw of the standard normal distribution (Box–Muller on two independent draws).
    pub fn normal(&self, index: u64) -> f64 {
        let r = philox4x32(self.key, [index as u32, (index >> 32) as u32, 0, 1]);
        let u = ((r[0] as u64 | (r[1] as u64) << 32) >> 11) as f64 / (1u64 << 53) as f64;
        let v = ((r[2] as u64 | (r[3] as u64) << 32) >> 11) as f64 / (1u64 << 53) as f64;
        // 1 − u lies in (0, 1], so the logarithm is finite.
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// The key, for kernels that draw by the million, on a GPU too.
    pub fn key(&self) -> [u32; 2] {
        self.key
    }
}

multiversion! {
    /// The values of [`Stream::fill_uniform`] from the one at `start`.
    fn uniform_from(stream: Stream, start: u64, bound: f64, out: &mut [f32]) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = (bound * (2.0 * stream.uniform(start + i as u64) - 1.0)) as f32;
        }
    }
}

/// Mixes a 64-bit number into a key.
fn fold(key: [u32; 2], value: u64) -> [u32; 2] {
    let r = philox4x32(key, [value as u32, (value >> 32) as u32, 0x5eed, 0]);
    [r[0], r[1]]
}

/// FNV-1a over the bytes of a purpose's name.
fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| {
        (h ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(
            philox4x32([0, 0], [0, 0, 0, 0]),
            [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]
        );
        assert_eq!(
            philox4x32([u32::MAX; 2], [u32::MAX; 4]),
            [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]
        );
        assert_eq!(
            philox4x32([0xa4093822, 0x299f31d0], [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn uniform_and_normal_have_their_moments() {
        let stream = Stream::new(1, "test", 2, 3);
        let n = 100_000;
        let (mut mean, mut second, mut normal, mut square) = (0.0, 0.0, 0.0, 0.0);
        for i in 0..n {
            let u = stream.uniform(i);
            assert!((0.0..1.0).contains(&u));
            mean += u;
            second += u * u;
            let z = stream.normal(i);
            normal += z;
            square += z * z;
        }
        let n = n as f64;
        assert!((mean / n - 0.5).abs() < 0.005 && (second / n - 1.0 / 3.0).abs() < 0.005);
        assert!((normal / n).abs() < 0.015 && (square / n - 1.0).abs() < 0.03);
    }

    #[test]
    fn a_filled_slice_has_the_numbers_of_the_stream() {
        let stream = Stream::new(3, "fill", 0, 0);
        let mut out = vec![0.0; 2 * CHUNK + 5];
        stream.fill_uniform(0.25, &mut out);
        let expected = |i: usize| (0.25 * (2.0 * stream.uniform(i as u64) - 1.0)) as f32;
        assert!(out.iter().enumerate().all(|(i, &out)| out == expected(i)));
    }

    #[test]
    fn every_part_of_the_address_matters() {
        let base = Stream::new(1, "a", 2, 3).bits(4);
        for other in [
            Stream::new(9, "a", 2, 3).bits(4),
            Stream::new(1, "b", 2, 3).bits(4),
            Stream::new(1, "a", 9, 3).bits(4),
            Stream::new(1, "a", 2, 9).bits(4),
            Stream::new(1, "a", 2, 3).bits(9),
        ] {
            assert_ne!(base, other);
        }
    }
}
