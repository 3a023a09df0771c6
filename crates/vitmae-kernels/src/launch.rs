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

/// How many operands of `buffers` arrays each a launch can bind beside `others`; at least one.
pub(crate) fn arrays_together(client: &Client, buffers: usize, others: usize) -> usize {
    let most = client.properties().hardware.max_bindings as usize;
    (most.saturating_sub(others) / buffers).max(1)
}

/// `items` in groups of at most `most` whose members are all `alike`; groups and members keep their order.
pub(crate) fn groups<T>(items: &[T], alike: impl Fn(&T, &T) -> bool, most: usize) -> Vec<Vec<&T>> {
    let mut groups: Vec<Vec<&T>> = Vec::new();
    for item in items {
        match groups.iter_mut().find(|group| group.len() < most && alike(group[0], item)) {
            Some(group) => group.push(item),
            None => groups.push(vec![item]),
        }
    }
    groups
}

/// At least `each` cubes for each of `operands` arrays of `count` elements, `each` last; kernels find the
/// array by `CUBE_POS / each`.
pub(crate) fn elements_of_each(
    client: &Client,
    count: usize,
    operands: usize,
) -> (CubeCount, CubeDim, usize) {
    let units = UNITS.min(client.properties().hardware.max_units_per_cube);
    let each = count.div_ceil(units as usize);
    (cubes(client, each * operands), CubeDim::new_1d(units), each)
}

#[cfg(test)]
mod tests {
    use super::groups;

    #[test]
    fn groups_hold_all_items_once_and_in_order() {
        let items = [3, 5, 3, 3, 5, 7, 3];
        let found = groups(&items, |a, b| a == b, 3);
        assert_eq!(found, [vec![&3, &3, &3], vec![&5, &5], vec![&7], vec![&3]]);
        let single = groups(&items, |a, b| a == b, 1);
        assert_eq!(single.concat(), items.iter().collect::<Vec<_>>());
    }
}
