//! Dropout from counter-based noise: whether a value is dropped is a pure function of (key, index), the
//! same as on the CPU.
//!
//!   keep = 0 with probability `rate`, else 1/(1 − rate)          y = x ⊙ keep          dx = dy ⊙ keep
//!
//! Nothing is stored between forward and backward: both ask the same function. Drop path draws once an image.
//!
//! Source: `torch.nn.functional.dropout`. Oracle: `vitmae_testing::reference::dropout`; CPU twin:
//! `vitmae_cpu::dropout`.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use crate::random::philox4x32;
use crate::{Array, Client, Dtype, launch};

/// Which values are dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Share of values dropped, in [0, 1).
    pub rate: f32,
    /// Where the noise comes from.
    pub key: [u32; 2],
}

impl Dropout {
    /// Words of noise below it drop their value: ⌈rate · 2³²⌉, which compares as the CPU does in f64.
    pub(crate) fn threshold(&self) -> u32 {
        (f64::from(self.rate) * 4_294_967_296.0).ceil() as u32
    }

    /// What kept values are multiplied with.
    pub(crate) fn scale(&self) -> f32 {
        1.0 / (1.0 - self.rate)
    }
}

/// `keep[i]`: 0 if value `i` is dropped, 1/(1 − rate) if it is kept.
///
/// # Shapes
/// `keep: [n]`, f32
///
/// # Panics
/// If `keep` is not f32.
pub fn keep(client: &Client, dropout: &Dropout, keep: &Array) {
    assert_eq!(keep.dtype, Dtype::F32, "dropout: keep");
    let Some((count, dim)) = draws(client, keep.len) else { return };
    // SAFETY: guarded by the length of `keep`.
    unsafe {
        keep_kernel::launch_unchecked(
            client,
            count,
            dim,
            keep.arg(),
            keep.len as u32,
            dropout.threshold(),
            dropout.scale(),
            dropout.key[0],
            dropout.key[1],
        );
    }
}

/// `y = x ⊙ keep`, plus `residual` if there is one.
///
/// # Shapes
/// `x, residual, y: [n]`
///
/// # Panics
/// If lengths or types differ.
pub fn forward(client: &Client, x: &Array, residual: Option<&Array>, dropout: &Dropout, y: &Array) {
    assert!(x.len == y.len && x.dtype == y.dtype, "dropout: y");
    if let Some(residual) = residual {
        assert!(x.len == residual.len && x.dtype == residual.dtype, "dropout: residual");
    }
    let Some((count, dim)) = draws(client, y.len) else { return };
    // SAFETY: guarded by the length of `y`, which the others share; a residual that is absent is not read.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            count,
            dim,
            launch::vector_size(y.len),
            x.arg(),
            residual.unwrap_or(x).arg(),
            y.arg(),
            y.len as u32,
            dropout.threshold(),
            dropout.scale(),
            dropout.key[0],
            dropout.key[1],
            residual.is_some(),
            y.dtype.elem(),
        );
    }
}

/// `dx = dy ⊙ keep`.
///
/// # Panics
/// If lengths or types differ.
pub fn backward(client: &Client, dy: &Array, dropout: &Dropout, dx: &Array) {
    forward(client, dy, None, dropout, dx);
}

/// Drop path, or stochastic depth: `y = x ⊙ keep[image]`, plus `residual` if there is one, with one draw for each of
/// `batch` images.
///
/// # Shapes
/// `x, residual, y: [batch, …]`
///
/// # Panics
/// If lengths or types differ, or a length is no multiple of `batch`.
///
/// Source: arXiv:1603.09382; `drop_path` of timm. CPU twin: `vitmae_cpu::dropout::drop_path`.
pub fn drop_path(
    client: &Client,
    x: &Array,
    residual: Option<&Array>,
    dropout: &Dropout,
    batch: usize,
    y: &Array,
) {
    assert!(x.len == y.len && x.dtype == y.dtype, "drop_path: y");
    if let Some(residual) = residual {
        assert!(x.len == residual.len && x.dtype == residual.dtype, "drop_path: residual");
    }
    assert!(x.len.checked_rem(batch).unwrap_or(x.len) == 0, "drop_path: batch");
    if x.len == 0 {
        return;
    }
    let per_image = x.len / batch;
    let vector = launch::vector_size(per_image);
    let vectors = x.len / vector;
    let (count, dim) = launch::elements(client, vectors);
    // SAFETY: guarded by the number of vectors in `y`, which the others share; a residual that is absent is not
    // read.
    unsafe {
        drop_path_kernel::launch_unchecked(
            client,
            count,
            dim,
            vector,
            x.arg(),
            residual.unwrap_or(x).arg(),
            y.arg(),
            vectors as u32,
            (per_image / vector) as u32,
            dropout.threshold(),
            dropout.scale(),
            dropout.key[0],
            dropout.key[1],
            residual.is_some(),
            y.dtype.elem(),
        );
    }
}

/// `dx = dy ⊙ keep[image]`.
///
/// # Panics
/// As [`drop_path`].
pub fn drop_path_backward(
    client: &Client,
    dy: &Array,
    dropout: &Dropout,
    batch: usize,
    dx: &Array,
) {
    drop_path(client, dy, None, dropout, batch, dx);
}

/// One unit a draw of four values; `None` for nothing to do.
fn draws(client: &Client, len: usize) -> Option<(CubeCount, CubeDim)> {
    // A draw's counter has 64 bits on the CPU; here the upper half stays 0, and lengths fit the lower.
    assert!(u32::try_from(len).is_ok(), "dropout: 2³² values at most");
    (len > 0).then(|| launch::elements(client, len.div_ceil(4)))
}

/// The scales of values `4·group` to `4·group + 3`.
#[cube]
pub(crate) fn keep_scales(
    group: u32,
    threshold: u32,
    scale: f32,
    key0: u32,
    key1: u32,
) -> Vector<f32, Const<4>> {
    let words = philox4x32(key0, key1, group, 0u32, 0u32, 2u32);
    let mut scales = Vector::<f32, Const<4>>::empty();
    scales.insert(0usize, select(words.0 < threshold, 0.0f32, scale));
    scales.insert(1usize, select(words.1 < threshold, 0.0f32, scale));
    scales.insert(2usize, select(words.2 < threshold, 0.0f32, scale));
    scales.insert(3usize, select(words.3 < threshold, 0.0f32, scale));
    scales
}

/// One unit writes the four values of one draw.
#[cube(launch_unchecked)]
fn keep_kernel(keep: &mut [f32], len: u32, threshold: u32, scale: f32, key0: u32, key1: u32) {
    let scales = keep_scales(ABSOLUTE_POS as u32, threshold, scale, key0, key1);
    #[unroll]
    for lane in 0..4usize {
        let at = ABSOLUTE_POS * 4 + lane;
        if at < len as usize {
            keep[at] = scales.extract(lane);
        }
    }
}

/// One unit handles the four values of one draw: as one vector, or one by one where the length is not a
/// multiple of four.
#[cube(launch_unchecked)]
fn forward_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    residual: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    len: u32,
    threshold: u32,
    scale: f32,
    key0: u32,
    key1: u32,
    #[comptime] has_residual: bool,
    #[define(F)] _dtype: ElemType,
) {
    let size = N::value();
    let parts = comptime!(4 / size);
    let scales = keep_scales(ABSOLUTE_POS as u32, threshold, scale, key0, key1);
    #[unroll]
    for part in 0..parts {
        let at = ABSOLUTE_POS * parts + part;
        if at * size < len as usize {
            let mut keep = Vector::<f32, N>::empty();
            #[unroll]
            for lane in 0..size {
                keep.insert(lane, scales.extract(comptime!(part * size + lane)));
            }
            let mut out = Vector::<f32, N>::cast_from(x[at]) * keep;
            if comptime!(has_residual) {
                out += Vector::<f32, N>::cast_from(residual[at]);
            }
            y[at] = Vector::cast_from(out);
        }
    }
}

/// One unit handles one vector of one image, and draws for the image.
#[cube(launch_unchecked)]
fn drop_path_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    residual: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    vectors: u32,
    per_image: u32,
    threshold: u32,
    scale: f32,
    key0: u32,
    key1: u32,
    #[comptime] has_residual: bool,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let image = i as u32 / per_image;
        let scales = keep_scales(image / 4, threshold, scale, key0, key1);
        let lane = image % 4;
        let first = select(lane == 0, scales.extract(0usize), scales.extract(1usize));
        let second = select(lane == 2, scales.extract(2usize), scales.extract(3usize));
        let keep = select(lane < 2, first, second);
        let mut out = Vector::<f32, N>::cast_from(x[i]) * Vector::new(keep);
        if comptime!(has_residual) {
            out += Vector::<f32, N>::cast_from(residual[i]);
        }
        y[i] = Vector::cast_from(out);
    }
}
