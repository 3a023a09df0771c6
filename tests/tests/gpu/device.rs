//! The device of the tests, and outputs that notice what a kernel must not do.

use std::sync::OnceLock;

use half::{bf16, f16};
use vitmae_kernels::cubecl::prelude::*;
use vitmae_kernels::cubecl::server::Handle;
use vitmae_kernels::{Array, Capabilities, Client, Dtype};
use vitmae_tensor::Device;

/// The device that `VITMAE_DEVICE` names, as `--device` does elsewhere, or Mesa's software Vulkan: the same on every
/// machine, whatever GPU it has.
///
/// # Panics
/// If there is none; a test without its device must not pass.
pub(crate) fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let open = || {
        let name = std::env::var("VITMAE_DEVICE").unwrap_or_else(|_| "lavapipe".to_owned());
        Device::open(&name).unwrap_or_else(|error| panic!("{error}"))
    };
    DEVICE.get_or_init(open).clone()
}

/// Where the kernels of that device are launched.
pub(crate) fn client() -> Client {
    device().client().expect("`VITMAE_DEVICE` names a GPU").clone()
}

/// The types of activations that the device has; those that it lacks are named.
#[allow(clippy::print_stdout, reason = "a test that skips something says so")]
pub(crate) fn dtypes(client: &Client) -> Vec<Dtype> {
    let capabilities = Capabilities::of(client);
    let (has, lacks) = [Dtype::F32, Dtype::F16, Dtype::BF16]
        .into_iter()
        .partition::<Vec<_>, _>(|&dtype| capabilities.supports(dtype));
    for dtype in lacks {
        println!("not on this device: {dtype}");
    }
    has
}

/// `values` as they are after they were stored as `dtype`.
pub(crate) fn rounded(values: &[f32], dtype: Dtype) -> Vec<f32> {
    let round = |&value: &f32| match dtype {
        Dtype::F32 => value,
        Dtype::F16 => f16::from_f32(value).to_f32(),
        Dtype::BF16 => bf16::from_f32(value).to_f32(),
    };
    values.iter().map(round).collect()
}

/// All cases for f32, a third of them for the other types: each case compiles kernels of its own.
pub(crate) fn some<T: Copy>(cases: &[T], dtype: Dtype) -> impl Iterator<Item = T> {
    cases.iter().copied().step_by(if dtype == Dtype::F32 { 1 } else { 3 })
}

/// Largest relative error of a value that is stored as `dtype` instead of f32.
pub(crate) fn rounding(dtype: Dtype) -> f64 {
    let nearest = match dtype {
        Dtype::F32 => 0.0,
        Dtype::F16 => 1.0 / f64::from(1 << 11),
        Dtype::BF16 => 1.0 / f64::from(1 << 8),
    };
    if rounds_freely(dtype) { 2.0 * nearest } else { nearest }
}

/// Whether values may be rounded to either neighbour, and not each time they are stored as `dtype`: Vulkan leaves it
/// open, and NVIDIA's driver truncates to bf16 and computes on with what it did not round.
pub(crate) fn rounds_freely(dtype: Dtype) -> bool {
    dtype != Dtype::F32 && client().name().contains("spirv")
}

/// Says what a test does not check of a device that [`rounds_freely`].
#[allow(clippy::print_stdout, reason = "a test that skips something says so")]
pub(crate) fn left_out(what: &str, dtype: Dtype) {
    println!("not checked on this device, which rounds as it pleases: {what} in {dtype}");
}

/// Whether attention in `dtype` goes to matrix units, if the head's width suits.
pub(crate) fn matrix_units(dtype: Dtype) -> bool {
    Capabilities::of(&client()).cmma.iter().any(|config| config.a_type == dtype.elem())
}

/// A NaN in every type, around the output.
const CANARY: [u32; 2] = [0x7fc0_ca11, 0x7fca_7fca];
/// Another one, inside.
const POISON: [u32; 2] = [0x7fc0_dead, 0x7fde_7fde];

/// An output between canaries: a part of a larger buffer.
pub(crate) struct Canary {
    whole: Handle,
    array: Array,
    margin: usize,
    poisoned: bool,
}

impl Canary {
    /// An output of `len` values that the kernel must write in full.
    pub(crate) fn poisoned(client: &Client, len: usize, dtype: Dtype) -> Self {
        let poison = pattern(POISON, dtype).repeat(len);
        Self::new(client, &poison, len, dtype, true)
    }

    /// An output that the kernel adds to, or reads and writes.
    pub(crate) fn filled(client: &Client, values: &[f32]) -> Self {
        Self::new(client, f32::as_bytes(values), values.len(), Dtype::F32, false)
    }

    fn new(client: &Client, inside: &[u8], len: usize, dtype: Dtype, poisoned: bool) -> Self {
        let margin = (client.properties().memory.alignment as usize).max(64);
        let canary = pattern(CANARY, dtype).repeat(margin / dtype.size());
        // The buffer ends as it should begin: at a multiple of the alignment.
        let behind = margin + inside.len().next_multiple_of(margin) - inside.len();
        let canaries_behind = pattern(CANARY, dtype).repeat(behind / dtype.size());
        let bytes = [&canary[..], inside, &canaries_behind[..]].concat();
        let whole = client.create_from_slice(&bytes);
        let part = whole.clone().offset_start(margin as u64).offset_end(behind as u64);
        Self { whole, array: Array { handle: part, len, dtype }, margin, poisoned }
    }

    /// The output, to hand to the launcher.
    pub(crate) fn array(&self) -> &Array {
        &self.array
    }

    /// The output after the kernel has run.
    ///
    /// # Panics
    /// If the launch failed, a canary changed, or poison is left.
    #[track_caller]
    pub(crate) fn finish(self, client: &Client, name: &str) -> Vec<f32> {
        let dtype = self.array.dtype;
        let bytes = match client.read_one(self.whole.clone()) {
            Ok(bytes) => bytes,
            Err(error) => panic!("`{name}`: {error:?}"),
        };
        let (before, rest) = bytes.split_at(self.margin);
        let (inside, behind) = rest.split_at(self.array.len * dtype.size());
        let differing = |side: &[u8], word: [u32; 2]| {
            let word = pattern(word, dtype);
            side.chunks(word.len()).filter(|chunk| *chunk != word).count()
        };
        let (before, behind) = (differing(before, CANARY), differing(behind, CANARY));
        assert!(
            before + behind == 0,
            "`{name}`: {before} values written before it, {behind} behind it"
        );
        let unwritten = self.array.len - differing(inside, POISON);
        assert!(
            !self.poisoned || unwritten == 0,
            "`{name}`: {unwritten} of {} values not written",
            self.array.len
        );
        match self.array.to_f32(client) {
            Ok(values) => values,
            Err(error) => panic!("`{name}`: {error}"),
        }
    }
}

/// The bytes of one value of the pattern.
fn pattern(word: [u32; 2], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => word[0].to_le_bytes().to_vec(),
        Dtype::F16 | Dtype::BF16 => (word[1] as u16).to_le_bytes().to_vec(),
    }
}

#[test]
fn a_full_write_comes_back() {
    let client = client();
    for dtype in dtypes(&client) {
        for len in [1, 3, 300] {
            let values: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let found = Array::from_f32_as(&client, &values, dtype).to_f32(&client);
            assert_eq!(found.expect("values come back"), rounded(&values, dtype));
        }
    }
    assert_eq!(Canary::filled(&client, &[1.0, 2.0]).finish(&client, "out"), [1.0, 2.0]);
}

#[test]
#[should_panic(expected = "`out`: 3 of 3 values not written")]
fn an_unwritten_value_fails() {
    let client = client();
    Canary::poisoned(&client, 3, Dtype::F32).finish(&client, "out");
}

#[test]
#[should_panic(expected = "`out`: 0 values written before it, 1 behind it")]
fn a_write_behind_the_output_fails() {
    let client = client();
    let out = Canary::filled(&client, &[1.0, 2.0]);
    let longer = Array {
        handle: out.whole.clone().offset_start(out.margin as u64),
        len: 3,
        dtype: Dtype::F32,
    };
    let ones = Array::from_f32(&client, &[1.0; 3]);
    vitmae_kernels::reduce::add(&client, &ones, &ones, &longer);
    out.finish(&client, "out");
}
