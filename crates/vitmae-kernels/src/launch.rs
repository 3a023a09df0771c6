//! How many cubes and units a launch starts, and how many values a unit handles at once.

use cubecl::prelude::*;

use crate::Client;
use crate::device::fold;

/// Units of a cube, where nothing is shared between them.
const UNITS: u32 = 256;

/// Units of a cube that sums or compares values together; a power of two, and allowed by every GPU API.
pub(crate) const ROW_UNITS: u32 = 256;

/// At least `count` units; kernels number them by `ABSOLUTE_POS` and stop at the end of their data.
pub(crate) fn elements(client: &Client, count: usize) -> (CubeCount, CubeDim) {
    let units = UNITS.min(client.properties().hardware.max_units_per_cube);
    (cubes(client, count.div_ceil(units as usize)), CubeDim::new_1d(units))
}

/// At least `count` cubes of [`ROW_UNITS`] units; kernels number them by `CUBE_POS`.
pub(crate) fn rows(client: &Client, count: usize) -> (CubeCount, CubeDim) {
    (cubes(client, count), CubeDim::new_1d(ROW_UNITS))
}

/// [`crate::cube_count`] without a look at all that the device can do, which takes longer than a launch of
/// these small kernels should.
pub(crate) fn cubes(client: &Client, count: usize) -> CubeCount {
    let (x, y, z) = fold(count, client.properties().hardware.max_cube_count);
    CubeCount::Static(x, y, z)
}

/// How many values of rows of `width` a unit loads at once.
pub(crate) fn vector_size(width: usize) -> usize {
    if width.is_multiple_of(4) { 4 } else { 1 }
}
