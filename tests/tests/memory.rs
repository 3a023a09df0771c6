//! A steady training step asks the system for no memory: no large allocation, no page touched for the first time.
//! A program of its own, since the allocator counts for the whole process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use vitmae_model::{ForwardOptions, Masking, VitMaeConfig, VitMaeForPreTraining};
use vitmae_tensor::ops::Precision;
use vitmae_tensor::{Device, MemoryUse, Tensor, memory_use};
use vitmae_testing::draws::Draws;
use vitmae_trainer::{AdamWOptions, TrainState};

/// Bytes from which an allocation counts: shapes, lists of parameters and the pool's bookkeeping are far smaller,
/// any activation or weight of the model below is larger.
const LARGE: usize = 16 * 1024;

static LARGE_ONES: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn count(bytes: usize) {
    if bytes >= LARGE {
        LARGE_ONES.fetch_add(1, Ordering::Relaxed);
    }
}

/// Pages that this process touched for the first time, so far; none where the system does not say.
fn page_faults() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold spaces: state, parent, …, and tenth of the line `minflt`.
    text.rsplit(')').next()?.split_whitespace().nth(7)?.parse().ok()
}

/// The tests count for the whole process, so one waits for the other.
static ALONE: Mutex<()> = Mutex::new(());

/// A model of 64 patches.
fn config() -> VitMaeConfig {
    VitMaeConfig {
        hidden_size: 192,
        num_hidden_layers: 3,
        num_attention_heads: 3,
        intermediate_size: 768,
        decoder_hidden_size: 128,
        decoder_num_hidden_layers: 2,
        decoder_num_attention_heads: 4,
        decoder_intermediate_size: 512,
        image_size: (64, 64),
        patch_size: (8, 8),
        ..VitMaeConfig::default()
    }
}

/// A mask ratio that changes over a run gives tensors of other sizes every few steps.
#[test]
fn tensors_of_changing_sizes_share_the_memory_of_the_largest() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (mut draws, batch) = (Draws::new(1), 32);
    let pixels = draws.vec_f32(batch * 3 * 64 * 64);
    let pixels = Tensor::from_vec(&Device::cpu(), &[batch, 3, 64, 64], pixels).unwrap();
    let noise: Vec<f64> = (0..batch * 64).map(|_| draws.uniform()).collect();
    let model = VitMaeForPreTraining::new(config(), &Device::cpu(), 1).unwrap();
    let mut state = TrainState::new(model, AdamWOptions::default()).unwrap();
    let mut step = |ratio: f64| {
        let masking = Masking::from_noise(&noise, batch, 64, ratio).unwrap();
        state.train_step(&pixels, &masking, 1e-4).unwrap().item().unwrap();
        memory_use()
    };
    // The fewest removed patches need the most memory of the encoder.
    let largest = step(0.05);
    for ratio in (5..=95).step_by(7).chain((5..=95).rev().step_by(5)) {
        let found = step(f64::from(ratio) / 100.0);
        let held = |memory: MemoryUse| memory.in_use + memory.idle;
        let (found, first) = (held(found), held(largest));
        assert!(found <= first + first / 4, "{ratio} %: {found} bytes held, {first} at first");
    }
}

#[test]
fn packing_in_f32_takes_no_memory() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut model = VitMaeForPreTraining::new(config(), &Device::cpu(), 1).unwrap();
    let in_use = || memory_use().in_use;
    let mut draws = Draws::new(1);
    let pixels =
        Tensor::from_vec(&Device::cpu(), &[1, 3, 64, 64], draws.vec_f32(3 * 64 * 64)).unwrap();
    let noise: Vec<f64> = (0..64).map(|_| draws.uniform()).collect();
    let masking = Masking::from_noise(&noise, 1, 64, 0.75).unwrap();
    // All widths are whole panels of every kernel, so packing fills nothing up.
    let before = in_use();
    model.pack_weights().unwrap();
    assert_eq!(in_use(), before);
    drop(model.forward(&pixels, &masking, &ForwardOptions::default()).unwrap());
    assert_eq!(in_use(), before, "a forward pass reads weights as they are packed");
    for parameter in model.parameters() {
        assert!(parameter.value.to_vec().unwrap().iter().all(|value| value.is_finite()));
    }
    assert_eq!(in_use(), before, "reading them keeps nothing");

    // What needs the other order keeps it until they are packed again.
    model.set_precision(Precision::Bf16);
    drop(model.forward(&pixels, &masking, &ForwardOptions::default()).unwrap());
    assert!(in_use() > before);
    model.set_precision(Precision::F32);
    model.pack_weights().unwrap();
    assert_eq!(in_use(), before);
}

#[test]
fn a_steady_step_asks_the_system_for_no_memory() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let config = config();
    let mut draws = Draws::new(1);
    let batch = 8;
    let pixels = draws.vec_f32(batch * 3 * 64 * 64);
    let pixels = Tensor::from_vec(&Device::cpu(), &[batch, 3, 64, 64], pixels).unwrap();
    let noise: Vec<f64> = (0..batch * 64).map(|_| draws.uniform()).collect();
    let masking = Masking::from_noise(&noise, batch, 64, 0.75).unwrap();
    for (precision, recompute) in
        [(Precision::F32, false), (Precision::Bf16, false), (Precision::F32, true)]
    {
        let mut model = VitMaeForPreTraining::new(config.clone(), &Device::cpu(), 1).unwrap();
        model.set_precision(precision);
        let mut state = TrainState::new(model, AdamWOptions::default()).unwrap();
        state.recompute = recompute;
        let mut step = || state.train_step(&pixels, &masking, 1e-4).unwrap().item().unwrap();
        // On a busy machine threads meet in new ways for some steps more, and want a scratch buffer each; what a step
        // itself asked for would be there in every window.
        let windows: Vec<(usize, u64)> = (0..8)
            .map(|_| {
                let (large, faults) = (LARGE_ONES.load(Ordering::Relaxed), page_faults());
                for _ in 0..5 {
                    step();
                }
                let found = LARGE_ONES.load(Ordering::Relaxed) - large;
                // A thread's stack or the kernel itself may touch a page; activations would touch thousands.
                (found, faults.zip(page_faults()).map_or(0, |(before, after)| after - before))
            })
            .collect();
        let quiet = |&(large, faults): &(usize, u64)| large == 0 && faults <= 32;
        assert!(
            windows.iter().any(quiet),
            "{precision:?}, recompute {recompute}: allocations of {LARGE} bytes or more, and pages touched for the first \
             time, in five steps: {windows:?}"
        );
    }
}
