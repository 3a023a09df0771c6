//! Counter-based random numbers, the same bits as on the CPU.
//!
//! Generator: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//! CPU twin: `vitmae_cpu::random`.

use cubecl::prelude::*;

/// Multipliers of a round.
const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
/// What a round adds to the key.
const WEYL0: u32 = 0x9E37_79B9;
const WEYL1: u32 = 0xBB67_AE85;

/// Ten rounds of Philox4x32: 128 random bits for a 64-bit key and a 128-bit counter.
#[cube]
pub(crate) fn philox4x32(
    key0: u32,
    key1: u32,
    counter0: u32,
    counter1: u32,
    counter2: u32,
    counter3: u32,
) -> (u32, u32, u32, u32) {
    let mut k0 = key0;
    let mut k1 = key1;
    let mut c0 = counter0;
    let mut c1 = counter1;
    let mut c2 = counter2;
    let mut c3 = counter3;
    #[unroll]
    for _ in 0..10u32 {
        let high0 = u32::mul_hi(c0, M0);
        let high1 = u32::mul_hi(c2, M1);
        let low0 = c0 * M0;
        let low1 = c2 * M1;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += WEYL0;
        k1 += WEYL1;
    }
    (c0, c1, c2, c3)
}
