//! Combining the lanes of a row. All units of the cube must call these functions.

use cubecl::prelude::Array as Registers;
use cubecl::prelude::*;

use super::tiles::{Tiles, lane, row};

/// Each of `values` becomes the largest of its row.
#[cube]
pub(super) fn largest_of_row(
    values: &mut Registers<f32>,
    shared: &mut [f32],
    #[comptime] tiles: Tiles,
) {
    if comptime!(tiles.planes) {
        #[unroll]
        for i in 0..tiles.per_unit {
            #[unroll]
            for bit in 0..tiles.lanes.ilog2() {
                let other = plane_shuffle_xor(values[i], comptime!(1u32 << bit));
                values[i] = max(values[i], other);
            }
        }
    } else {
        share(values, shared, tiles);
        #[unroll]
        for i in 0..tiles.per_unit {
            for other in 0..tiles.lanes {
                values[i] = max(values[i], shared[row(i, tiles) * tiles.lanes + other]);
            }
        }
    }
}

/// Each of `values` becomes the sum of its row.
#[cube]
pub(super) fn sum_of_row(
    values: &mut Registers<f32>,
    shared: &mut [f32],
    #[comptime] tiles: Tiles,
) {
    if comptime!(tiles.planes) {
        #[unroll]
        for i in 0..tiles.per_unit {
            #[unroll]
            for bit in 0..tiles.lanes.ilog2() {
                values[i] += plane_shuffle_xor(values[i], comptime!(1u32 << bit));
            }
        }
    } else {
        // Other units may still read what they shared before.
        sync_cube();
        share(values, shared, tiles);
        #[unroll]
        for i in 0..tiles.per_unit {
            values[i] = 0.0f32;
            for other in 0..tiles.lanes {
                values[i] += shared[row(i, tiles) * tiles.lanes + other];
            }
        }
    }
}

/// Shows `values` to the other lanes.
#[cube]
fn share(values: &mut Registers<f32>, shared: &mut [f32], #[comptime] tiles: Tiles) {
    #[unroll]
    for i in 0..tiles.per_unit {
        shared[row(i, tiles) * tiles.lanes + lane(tiles)] = values[i];
    }
    sync_cube();
}
