//! Sums of the parts of a product.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::Epilogue;
use crate::{Array, Client, launch};

/// `c = Σ parts` or `c += Σ parts`, then the epilogue, for `parts` arrays of the length of `c` one behind the other in
/// `sums`, f32.
pub(super) fn add_parts(
    client: &Client,
    sums: &Array,
    parts: usize,
    c: &Array,
    accumulate: bool,
    epilogue: Epilogue,
) {
    if !epilogue.is_none() {
        let product = Array::empty(client, c.len, c.dtype);
        add_parts(client, sums, parts, &product, false, Epilogue::default());
        return epilogue.apply(client, &product, c);
    }
    let (count, dim) = launch::elements(client, c.len);
    // SAFETY: guarded by the length of `c`; `sums` holds `parts` times as many.
    unsafe {
        add_parts_kernel::launch_unchecked(
            client,
            count,
            dim,
            sums.arg(),
            c.arg(),
            c.len as u32,
            parts as u32,
            accumulate,
            c.dtype.elem(),
        );
    }
}

/// One unit adds the parts of one element, first to last.
#[cube(launch_unchecked)]
fn add_parts_kernel<C: Float>(
    sums: &[f32],
    c: &mut [C],
    len: u32,
    parts: u32,
    #[comptime] accumulate: bool,
    #[define(C)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i < len as usize {
        let mut sum = sums[i];
        for part in 1..parts as usize {
            sum += sums[part * len as usize + i];
        }
        if comptime!(accumulate) {
            sum += f32::cast_from(c[i]);
        }
        c[i] = C::cast_from(sum);
    }
}
