//! How many cubes and units a launch starts, and how many values a unit handles at once.

use cubecl::prelude::*;

use crate::{Capabilities, Client, cube_count};

/// Units of a cube, where nothing is shared between them.
const UNITS: u32 = 256;

/// Units of a cube that sums or compares values together; a power of two, and allowed by every GPU API.
pub(crate) const ROW_UNITS: u32 = 256;

/// At least `count` units; kernels number them by `ABSOLUTE_POS` and stop at the end of their data.
pub(crate) fn elements(client: &Client, count: usize) -> (CubeCount, CubeDim) {
    let capabilities = Capabilities::of(client);
    let units = UNITS.min(capabilities.max_units);
    (cube_count(count.div_ceil(units as usize), &capabilities), CubeDim::new_1d(units))
}

/// At least `count` cubes of [`ROW_UNITS`] units; kernels number them by `CUBE_POS`.
pub(crate) fn rows(client: &Client, count: usize) -> (CubeCount, CubeDim) {
    (cube_count(count, &Capabilities::of(client)), CubeDim::new_1d(ROW_UNITS))
}

/// How many values of rows of `width` a unit loads at once.
pub(crate) fn vector_size(width: usize) -> usize {
    if width.is_multiple_of(4) { 4 } else { 1 }
}
