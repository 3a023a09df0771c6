//! What is wrong with a position table, told by its values.
//!
//! A table may have been trained since, so that the formulas are compared by the root mean square of the
//! difference: a value of a table is a sine or a cosine, of size 0.7, and different places differ by as much.

use vitmae_model::VitMaeConfig;
use vitmae_model::position::table;

use super::Finding;

/// Below this difference a table is one of the formula.
const NEAR: f64 = 0.1;

/// The finding about the table `values` of `shape: [1, 1 + L, D]`, if it is not as it should be. A table that
/// no formula gives was learned and is taken as it is, if its size fits.
pub(super) fn check(
    tensor: &str,
    shape: &[usize],
    values: &[f32],
    config: Option<&VitMaeConfig>,
) -> Option<Finding> {
    let tensor = tensor.to_owned();
    if values.iter().all(|&value| value == 0.0) {
        return Some(Finding::ZeroTable { tensor });
    }
    let &[1, rows, width] = shape else { return None };
    let patches = rows.checked_sub(1)?;
    let side = patches.isqrt();
    let square = (side * side == patches).then_some((side, side));
    let grid = config.map(VitMaeConfig::grid).or(square)?;
    let fits = grid.0 * grid.1 == patches;
    if !width.is_multiple_of(4) {
        return None;
    }
    if fits && distance(values, &table(width, grid)) < NEAR {
        return None;
    }
    if fits && distance(values, &swapped(width, grid)) < NEAR {
        return Some(Finding::SwappedTable { tensor });
    }
    let grids = (1..=patches).filter(|rows| patches.is_multiple_of(*rows));
    let found = grids
        .map(|rows| (rows, patches / rows))
        .find(|&other| distance(values, &table(width, other)) < NEAR);
    match found {
        Some(_) => Some(Finding::WrongGrid { tensor, found, patches, expected: grid }),
        None if !fits => Some(Finding::WrongGrid { tensor, found: None, patches, expected: grid }),
        None => None,
    }
}

/// The table with the row's half in front of the column's: the right shape and the wrong numbers.
pub(super) fn swapped(width: usize, grid: (usize, usize)) -> Vec<f32> {
    let right = table(width, grid);
    right
        .chunks_exact(width)
        .flat_map(|row| [&row[width / 2..], &row[..width / 2]].concat())
        .collect()
}

/// Root mean square of the difference.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    (squares / a.len() as f64).sqrt()
}
