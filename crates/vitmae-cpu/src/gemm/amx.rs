//! Products of bf16 pairs by AMX, the matrix unit of Intel's server CPUs, 32 rows by 32 columns.
//!
//! Eight tile registers hold 16 rows of 64 bytes each. `TDPBF16PS` multiplies a tile of `A` (16 rows of 16
//! pairs) with a tile of `B` (16 pairs of k, 16 columns each) and adds to a tile of `C` (16 × 16 f32). It
//! takes and gives denormal numbers as 0 and rounds to nearest even, whatever the thread's settings.
//!
//! Stable Rust has these instructions in inline assembly only. The configuration and the registers belong to the
//! thread and last from one block of assembly to the next, since the compiler never uses them itself.
//!
//! Sources: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18; Linux,
//! `Documentation/arch/x86/xstate.rst`.

use super::kernel::Corner;
use crate::values::Bf16;
use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

/// Rows of a panel of `A`: two tiles.
pub(super) const MR: usize = 2 * SIDE;
/// Rows of a tile, and 32-bit words of each of its rows.
pub(super) const SIDE: usize = 16;
/// Columns of a panel of `B`: two tiles.
const NR: usize = 2 * SIDE;

/// Whether the CPU has the unit.
pub(super) fn exists() -> bool {
    // Leaf 7, register EDX: bit 22 is AMX-BF16, bit 24 is AMX-TILE.
    const NEEDED: u32 = 1 << 22 | 1 << 24;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & NEEDED == NEEDED
}

/// Whether the CPU has the unit and the system lets this process use it; asked once.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| super::dot::available(true) && exists() && enabled() && permitted())
}

/// Whether the system saves the tile registers of a thread: bits 17 and 18 of XCR0.
fn enabled() -> bool {
    // SAFETY: AVX-512 is there, so the system has enabled XGETBV.
    is_x86_feature_detected!("xsave") && unsafe { xcr0() } >> 17 & 3 == 3
}

#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: register 0 exists wherever the instruction does.
    unsafe { _xgetbv(0) }
}

/// Asks Linux for the permission that the tile registers' 8 KiB a thread need.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the call reads two numbers; the kernel keeps every register but RAX, RCX and R11.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Other systems give the permission in other ways, which nobody has tried.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The operand of `LDTILECFG`.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_of_row: [u16; 16],
    rows: [u8; 16],
}

/// Eight whole tiles.
static WHOLE: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_of_row: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The calling thread's tile registers are in use; dropping it gives them back, so that the system need not
/// save them. About 50 ns.
pub(super) struct Configured {
    /// Tile registers belong to one thread.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Configured {
    pub(super) fn new() -> Self {
        assert!(available(), "gemm: no matrix unit");
        // SAFETY: the unit is there, and the operand is 64 bytes of a valid configuration.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE, options(nostack, readonly)) };
        Self { _thread: std::marker::PhantomData }
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: the unit is there.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// A panel of `A`: rows of 32 bf16 values for each step of k. Distances are in bytes.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    data: *const u8,
    /// From row to row.
    row: usize,
    /// From step to step.
    step: usize,
}

impl Rows {
    /// A packed panel of so many rows.
    pub(super) fn packed(data: *const f32, rows: usize) -> Self {
        Self { data: data.cast(), row: 64, step: rows.next_multiple_of(SIDE) * 64 }
    }

    /// Rows of a matrix, `stride` values apart.
    pub(super) fn in_place(data: *const Bf16, stride: usize) -> Self {
        Self { data: data.cast(), row: 2 * stride, step: 64 }
    }
}

/// Multiplies a panel of `A` with a panel of `B`; tiles at the edge of `C` go through a buffer.
///
/// # Safety
/// `a` holds the rows of `c`, rounded up to whole tiles, for `steps` steps; `b` holds
/// `steps` blocks of two tiles; `c` has `1..=32` writable rows of `1..=32` columns; the thread holds a
/// [`Configured`].
pub(super) unsafe fn kernel(steps: usize, a: Rows, b: *const f32, c: Corner, accumulate: bool) {
    let rows = c.rows.next_multiple_of(SIDE);
    if c.rows == rows && c.cols == NR {
        // SAFETY: the caller's promise.
        return unsafe { tiles(steps, a, b, c.data, c.stride, rows, accumulate) };
    }
    let mut whole = [0.0f32; MR * NR];
    let row = |i: usize| {
        // SAFETY: row i of the corner has `cols` writable values.
        unsafe { std::slice::from_raw_parts_mut(c.data.add(i * c.stride), c.cols) }
    };
    if accumulate {
        for (i, whole) in whole.chunks_exact_mut(NR).enumerate().take(c.rows) {
            whole[..c.cols].copy_from_slice(row(i));
        }
    }
    // SAFETY: the buffer has 32 rows of 32 columns; the rest as promised by the caller.
    unsafe { tiles(steps, a, b, whole.as_mut_ptr(), NR, rows, accumulate) };
    for (i, whole) in whole.chunks_exact(NR).enumerate().take(c.rows) {
        row(i).copy_from_slice(&whole[..c.cols]);
    }
}

/// Multiplies whole tiles: 16 or 32 `rows`, 32 columns.
///
/// # Safety
/// As [`kernel`], and all of these rows and columns of `c` are writable.
unsafe fn tiles(
    steps: usize,
    a: Rows,
    b: *const f32,
    c: *mut f32,
    stride: usize,
    rows: usize,
    accumulate: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if rows == MR {
            four(steps, a, b, c, stride, accumulate)
        } else {
            two(steps, a, b, c, stride, accumulate)
        }
    }
}

/// Four tiles of `C`: each tile of `A` and of `B` is loaded once for two products.
///
/// # Safety
/// As [`tiles`].
unsafe fn four(steps: usize, a: Rows, b: *const f32, c: *mut f32, stride: usize, accumulate: bool) {
    // SAFETY: the caller's promise; the loop advances A by a step and B by two tiles.
    unsafe {
        asm!(
            "test {add}, {add}",
            "jz 2f",
            "tileloadd tmm0, [{c} + {ldc}]",
            "tileloadd tmm1, [{c} + {ldc} + 64]",
            "tileloadd tmm2, [{d} + {ldc}]",
            "tileloadd tmm3, [{d} + {ldc} + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "3:",
            "test {steps}, {steps}",
            "jz 5f",
            "4:",
            "tileloadd tmm6, [{b} + {ld}]",
            "tileloadd tmm4, [{a} + {lda}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {ld} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{e} + {lda}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a}, {step}",
            "add {e}, {step}",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 4b",
            "5:",
            "tilestored [{c} + {ldc}], tmm0",
            "tilestored [{c} + {ldc} + 64], tmm1",
            "tilestored [{d} + {ldc}], tmm2",
            "tilestored [{d} + {ldc} + 64], tmm3",
            add = in(reg) usize::from(accumulate),
            steps = inout(reg) steps => _,
            a = inout(reg) a.data => _,
            e = inout(reg) a.data.wrapping_add(SIDE * a.row) => _,
            lda = in(reg) a.row,
            step = in(reg) a.step,
            b = inout(reg) b => _,
            c = in(reg) c,
            d = in(reg) c.wrapping_add(SIDE * stride),
            ld = in(reg) 64usize,
            ldc = in(reg) 4 * stride,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Two tiles of `C`, for the last rows of `A`.
///
/// # Safety
/// As [`tiles`].
unsafe fn two(steps: usize, a: Rows, b: *const f32, c: *mut f32, stride: usize, accumulate: bool) {
    // SAFETY: the caller's promise; the loop advances A by a step and B by two tiles.
    unsafe {
        asm!(
            "test {add}, {add}",
            "jz 2f",
            "tileloadd tmm0, [{c} + {ldc}]",
            "tileloadd tmm1, [{c} + {ldc} + 64]",
            "jmp 3f",
            "2:",
            "tilezero tmm0",
            "tilezero tmm1",
            "3:",
            "test {steps}, {steps}",
            "jz 5f",
            "4:",
            "tileloadd tmm4, [{a} + {lda}]",
            "tileloadd tmm6, [{b} + {ld}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {ld} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {a}, {step}",
            "add {b}, 2048",
            "dec {steps}",
            "jnz 4b",
            "5:",
            "tilestored [{c} + {ldc}], tmm0",
            "tilestored [{c} + {ldc} + 64], tmm1",
            add = in(reg) usize::from(accumulate),
            steps = inout(reg) steps => _,
            a = inout(reg) a.data => _,
            lda = in(reg) a.row,
            step = in(reg) a.step,
            b = inout(reg) b => _,
            c = in(reg) c,
            ld = in(reg) 64usize,
            ldc = in(reg) 4 * stride,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Multiplies zeros, without touching memory: four products for each step of 32, so that as many steps take
/// about as long as those of `crate::peak`. Returns the number of operations.
pub(crate) fn chains(steps: usize) -> usize {
    let _configured = Configured::new();
    let rounds = (steps / 32).max(1);
    // SAFETY: the thread's tile registers are configured, and zero.
    unsafe {
        asm!(
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {rounds}",
            "jnz 2b",
            rounds = inout(reg) rounds => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, nomem),
        );
    }
    rounds * 4 * 2 * SIDE * SIDE * 2 * SIDE
}
