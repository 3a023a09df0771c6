//! The matrix of probabilities, which no other kernel writes to memory.

use cubecl::ir::ElemType;
use cubecl::prelude::Array as Registers;
use cubecl::prelude::*;

use super::Shape;
use super::head::Head;
use super::tiles::{Four, Tiles, lane, load_columns, load_rows, products, row};
use crate::{Array, Capabilities, Client, Dtype, KernelError, cube_count};

/// The probabilities of [`super::forward`] before dropout, for display and analysis; always f32.
///
/// # Shapes
/// `qkv: [B, N, 3D]`, `lse: [B, A, N]` → `probabilities: [B, A, N, N]`
///
/// # Errors
/// [`KernelError::Refused`] if a head is too wide for the device's shared memory; nothing is launched then.
///
/// # Panics
/// If a length or a type does not fit.
pub fn probabilities(
    client: &Client,
    qkv: &Array,
    lse: &Array,
    shape: Shape,
    probabilities: &Array,
) -> Result<(), KernelError> {
    assert_eq!(qkv.len, 3 * shape.len(), "attention: qkv");
    assert_eq!(lse.len, shape.rows(), "attention: lse");
    assert_eq!(probabilities.len, shape.rows() * shape.tokens, "attention: probabilities");
    let types = [lse.dtype, probabilities.dtype];
    assert_eq!(types, [Dtype::F32; 2], "attention: types of lse and probabilities");
    if shape.len() == 0 {
        return Ok(());
    }
    let capabilities = Capabilities::of(client);
    let tiles = Tiles::choose(shape.head_dim, 1, 0, &capabilities)?;
    // SAFETY: guarded by the number of cubes, tokens and the head's width.
    unsafe {
        probabilities_kernel::launch_unchecked(
            client,
            cube_count(shape.cubes(tiles.rows()), &capabilities),
            CubeDim::new_1d(tiles.units() as u32),
            tiles.vector,
            qkv.arg(),
            lse.arg(),
            probabilities.arg(),
            shape.batch as u32,
            shape.tokens as u32,
            shape.heads as u32,
            tiles.fours() as u32,
            shape.scale(),
            tiles,
            qkv.dtype.elem(),
        );
    }
    Ok(())
}

/// One cube writes the rows of one tile of queries of one head.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "buffers and sizes of a kernel")]
fn probabilities_kernel<F: Float, N: Size>(
    qkv: &[Vector<F, N>],
    lse: &[f32],
    probabilities: &mut [f32],
    batch: u32,
    tokens: u32,
    heads: u32,
    fours: u32,
    scale: f32,
    #[comptime] tiles: Tiles,
    #[define(F)] _dtype: ElemType,
) {
    let (tokens, fours) = (tokens as usize, fours as usize);
    let head = Head::of_cube(batch as usize, tokens, heads as usize, tiles.rows(), tiles.vectors());
    if !head.live {
        terminate!();
    }
    let mut queries = Shared::<[Four]>::new_slice(tiles.rows_len());
    let mut keys = Shared::<[Four]>::new_slice(tiles.columns_len());
    let mut scores = Registers::<f32>::new(4 * tiles.per_unit);
    let stride = head.packed_stride();
    load_rows::<F, N>(qkv, head.packed(0usize), stride, head.first, tokens, &mut queries, tiles);

    let mut first = 0usize.runtime();
    while first < tokens {
        sync_cube();
        load_columns::<F, N>(qkv, head.packed(1usize), stride, first, tokens, &mut keys, tiles);
        sync_cube();
        products(&queries, &keys, &mut scores, fours, tiles);
        let key = first + 4 * lane(tiles);
        let keys_here = min(4usize, max(tokens, key) - key);
        #[unroll]
        for i in 0..tiles.per_unit {
            let token = head.first + row(i, tiles);
            if token < tokens {
                let at = head.row(token);
                #[unroll]
                for j in 0..4 {
                    if j < keys_here {
                        probabilities[at * tokens + key + j] =
                            (scores[4 * i + j] * scale - lse[at]).exp();
                    }
                }
            }
        }
        first += tiles.columns();
    }
}
