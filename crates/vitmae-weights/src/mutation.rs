//! Damaged copies of a file, the same ones in every run, for the tests of the readers.

use std::time::{Duration, Instant};

/// Overrides the number of copies: `VITMAE_MUTATIONS=1000000 cargo test --release -p vitmae-weights mutated`.
const COUNT: &str = "VITMAE_MUTATIONS";

/// Calls `read` with copies of `whole` in which up to four bytes are changed, or the end is cut off, or both; each
/// call has to return within a second and must not panic. Returns how many were read without an error.
pub(crate) fn each(whole: &[u8], read: impl Fn(Vec<u8>) -> bool) -> usize {
    let count = std::env::var(COUNT).ok().and_then(|text| text.parse().ok()).unwrap_or(20_000);
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let mut good = 0;
    for number in 0..count {
        let mut bytes = whole.to_vec();
        for _ in 0..1 + random(4) {
            let place = random(bytes.len());
            // Any value, a neighbour, or a bit: counts and lengths are where neighbours matter.
            bytes[place] = match random(3) {
                0 => random(256) as u8,
                1 => bytes[place].wrapping_add(1 + random(3) as u8),
                _ => bytes[place] ^ (1 << random(8)),
            };
        }
        if random(4) == 0 {
            bytes.truncate(random(bytes.len()));
        }
        let start = Instant::now();
        good += usize::from(read(bytes));
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1), "copy {number} took {took:?}");
    }
    good
}
