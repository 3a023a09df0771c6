//! The exponential moving average of parameters, in one sweep.
//!
//!   a ← a + (1 − decay) · (w − a)        which is decay · a + (1 − decay) · w
//!
//! Written so, since GPUs have no fast f64: decay and its complement, rounded to f32, do not add to 1, and an average of weights that
//! stay would drift away from them. Here it stays, as in the CPU's f64.
//! Oracle: `vitmae_testing::reference::ema`; CPU twin: `vitmae_cpu::ema`.

use cubecl::prelude::*;

use crate::{Array, Client, Dtype, launch};

/// One parameter and its average, both f32 and of one length; the average is updated in place.
#[derive(Clone, Copy, Debug)]
pub struct Parameter<'a> {
    /// a
    pub average: &'a Array,
    /// w
    pub value: &'a Array,
}

/// Most parameters of a launch, where the device binds enough buffers.
const TOGETHER: usize = 8;

/// Moves every average towards its parameter; a `scale` of 0 leaves all as it is ([`crate::norm::clip_scale`]), any other is no
/// factor. Parameters of one length share launches of up to eight, as far as the device binds buffers for them.
///
/// # Shapes
/// `scale: [1]` f32
///
/// # Panics
/// If lengths or types differ.
pub fn step(client: &Client, parameters: &[Parameter], scale: &Array, decay: f64) {
    assert_eq!((scale.len, scale.dtype), (1, Dtype::F32), "ema: scale");
    for Parameter { average, value } in parameters {
        assert_eq!(average.len, value.len, "ema: lengths");
        assert_eq!((average.dtype, value.dtype), (Dtype::F32, Dtype::F32), "ema: types");
    }
    let alike = |a: &Parameter, b: &Parameter| a.value.len == b.value.len;
    // Two buffers a parameter, and the scale.
    let together = launch::arrays_together(client, 2, 1).min(TOGETHER);
    for group in launch::groups(parameters, alike, together) {
        let len = group[0].value.len;
        if len == 0 {
            continue;
        }
        let vector = launch::vector_size(len);
        let (count, dim, each) = launch::elements_of_each(client, len / vector, group.len());
        // SAFETY: guarded by the number of vectors in each value, which the others share.
        unsafe {
            step_kernel::launch_unchecked(
                client,
                count,
                dim,
                vector,
                group.iter().map(|p| p.average.arg()).collect(),
                group.iter().map(|p| p.value.arg()).collect(),
                scale.arg(),
                (len / vector) as u32,
                each as u32,
                (1.0 - decay) as f32,
            );
        }
    }
}

/// Each parameter has `each` cubes, one unit updates one vector; the share was rounded once, on the host.
#[cube(launch_unchecked)]
fn step_kernel<N: Size>(
    averages: &mut Sequence<Box<[Vector<f32, N>]>>,
    values: &Sequence<Box<[Vector<f32, N>]>>,
    scale: &[f32],
    vectors: u32,
    each: u32,
    share: f32,
) {
    let parameter = CUBE_POS as u32 / each;
    let i = ((CUBE_POS as u32 % each) * CUBE_DIM + UNIT_POS) as usize;
    if i < vectors as usize && scale[0] != 0.0f32 {
        #[unroll]
        for k in 0..values.len() {
            if parameter == k as u32 {
                let average = averages.index_mut(k);
                average[i] = average[i] + Vector::new(share) * (values[k][i] - average[i]);
            }
        }
    }
}
