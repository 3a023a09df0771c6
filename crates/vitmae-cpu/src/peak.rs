//! The measured peaks of multiply-adds: what the speed of every kernel is held against.

use crate::gemm::{Method, Precision};
use crate::simd::{Level, level};
use std::hint::black_box;
use std::time::Instant;

/// Rounds of one measurement; the best counts, since anything else is disturbance.
const ROUNDS: usize = 8;
/// Steps of one round: about 25 ms.
const STEPS: usize = 1 << 22;

/// Billions of f32 operations a second that the threads of the current Rayon pool reach together, a
/// multiply-add counting as two. Takes about 0.2 s.
///
/// Every thread runs independent chains of multiply-adds in registers, more of them than the units'
/// latency times their number, without touching memory.
pub fn gflops() -> f64 {
    best(chains)
}

/// The same with the instructions that multiply in [`Precision::Bf16`] on this machine.
pub fn bf16_gflops() -> f64 {
    best(match Method::of(Precision::Bf16) {
        #[cfg(target_arch = "x86_64")]
        Method::Amx => crate::gemm::amx_chains,
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this method is chosen where its instructions are.
        Method::Dot => |steps| unsafe { x86::dot(steps) },
        _ => chains,
    })
}

/// The same of 8-bit products with 32-bit sums.
pub fn int8_gops() -> f64 {
    #[cfg(target_arch = "x86_64")]
    if crate::gemm::has_vnni() {
        // SAFETY: the instructions were found.
        return best(|steps| unsafe { x86::int8(steps) });
    }
    best(chains)
}

/// The best of some rounds on all threads at once; `chains` runs some steps and returns its operations.
fn best(chains: fn(usize) -> usize) -> f64 {
    let round = || {
        let start = Instant::now();
        let operations: usize = rayon::broadcast(|_| chains(STEPS)).iter().sum();
        operations as f64 / start.elapsed().as_secs_f64() * 1e-9
    };
    (0..ROUNDS).map(|_| round()).fold(0.0, f64::max)
}

/// Runs `steps` steps of every chain and returns the number of operations.
fn chains(steps: usize) -> usize {
    match level() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` found AVX-512.
        Level::Avx512 => unsafe { x86::avx512(steps) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `level` found AVX2 and FMA.
        Level::Avx2 => unsafe { x86::avx2(steps) },
        _ => portable(steps),
    }
}

fn portable(steps: usize) -> usize {
    let (factor, term) = black_box(([0.5f32; 32], [1.0f32; 32]));
    let mut acc = [0.0f32; 32];
    for _ in 0..steps {
        for i in 0..32 {
            acc[i] = acc[i] * factor[i] + term[i];
        }
    }
    black_box(acc);
    steps * 2 * 32
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Independent chains: two units with a latency of four need eight at least.
    const CHAINS: usize = 12;

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(steps: usize) -> usize {
        let (factor, term) = black_box((_mm512_set1_ps(0.5), _mm512_set1_ps(1.0)));
        let mut acc = [term; CHAINS];
        for _ in 0..steps {
            for acc in &mut acc {
                *acc = _mm512_fmadd_ps(*acc, factor, term);
            }
        }
        black_box(acc);
        steps * 2 * CHAINS * 16
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) fn dot(steps: usize) -> usize {
        // SAFETY: both types are 64 bytes in which every bit pattern is valid.
        let ones = unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi16(0x3f80)) };
        let ones = black_box(ones);
        let mut acc = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..steps {
            for acc in &mut acc {
                *acc = _mm512_dpbf16_ps(*acc, ones, ones);
            }
        }
        black_box(acc);
        steps * 2 * CHAINS * 32
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8(steps: usize) -> usize {
        let ones = black_box(_mm512_set1_epi8(1));
        let mut acc = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..steps {
            for acc in &mut acc {
                *acc = _mm512_dpbusd_epi32(*acc, ones, ones);
            }
        }
        black_box(acc);
        steps * 2 * CHAINS * 64
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(steps: usize) -> usize {
        let (factor, term) = black_box((_mm256_set1_ps(0.5), _mm256_set1_ps(1.0)));
        let mut acc = [term; CHAINS];
        for _ in 0..steps {
            for acc in &mut acc {
                *acc = _mm256_fmadd_ps(*acc, factor, term);
            }
        }
        black_box(acc);
        steps * 2 * CHAINS * 8
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_machine_does_at_least_a_billion_operations_a_second() {
        for found in [super::gflops(), super::bf16_gflops(), super::int8_gops()] {
            assert!(found > 1.0 && found < 1e6, "{found} GFLOP/s");
        }
    }
}
