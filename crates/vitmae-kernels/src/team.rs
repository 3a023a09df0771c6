//! Teams of units that share a row: which units, and sums over them.

use cubecl::prelude::*;

use crate::Capabilities;

/// Values that a unit may keep in registers.
const KEPT: usize = 32;
/// Values that a unit has at least, where there are enough.
const FEWEST: usize = 8;
/// Units of a cube, if the device allows.
const CUBE_UNITS: usize = 256;

/// How rows are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Team {
    /// Values of a row that are read at once: 4, 2 or 1.
    pub(crate) vector: usize,
    /// Length of a row in vectors.
    pub(crate) vectors: usize,
    /// Units of a team; if they are not one plane, a power of two.
    pub(crate) units: usize,
    /// Units of a cube, a multiple of `units`.
    pub(crate) cube_units: usize,
    /// Vectors that each unit has.
    pub(crate) per_unit: usize,
    /// Whether a unit keeps its vectors in registers.
    pub(crate) kept: bool,
    /// Whether a team is a plane.
    pub(crate) plane: bool,
}

impl Team {
    /// Teams for rows of `width` values.
    pub(crate) fn of_rows(width: usize, capabilities: &Capabilities) -> Self {
        let vector = vector_size(width);
        let vectors = width / vector;
        let most = (capabilities.max_units as usize).min(CUBE_UNITS);
        if let Some(cores) = capabilities.cpu_cores {
            // Threads: a row each, and no barrier.
            return Self::new(vector, vectors, 1, most.min(cores as usize).max(1), false);
        }
        match capabilities.plane.map(|plane| plane as usize) {
            Some(plane) if plane <= most && vectors.div_ceil(plane) * vector <= KEPT => {
                Self::new(vector, vectors, plane, most / plane * plane, true)
            }
            _ => {
                let wanted = width.div_ceil(FEWEST.max(vector)).next_power_of_two();
                let most = 1 << most.ilog2();
                Self::new(vector, vectors, wanted.min(most), most, false)
            }
        }
    }

    /// Teams for rows that are too short for a plane: up to eight units each.
    pub(crate) fn of_short_rows(width: usize, capabilities: &Capabilities) -> Self {
        let vector = vector_size(width);
        let vectors = width / vector;
        let most = 1 << (capabilities.max_units as usize).min(CUBE_UNITS).ilog2();
        match capabilities.cpu_cores {
            Some(cores) => Self::new(vector, vectors, 1, most.min(cores as usize).max(1), false),
            None => Self::new(vector, vectors, 8.min(most), most, false),
        }
    }

    fn new(vector: usize, vectors: usize, units: usize, cube_units: usize, plane: bool) -> Self {
        let per_unit = vectors.div_ceil(units);
        let kept = per_unit * vector <= KEPT;
        Self { vector, vectors, units, cube_units, per_unit, kept, plane }
    }

    /// Values of a row.
    pub(crate) fn width(&self) -> usize {
        self.vectors * self.vector
    }

    /// Rows that a cube has in hand at once.
    pub(crate) fn rows_per_cube(&self) -> usize {
        self.cube_units / self.units
    }

    /// Length of a register array that holds what is kept.
    pub(crate) fn registers(&self) -> usize {
        if self.kept { self.per_unit } else { 1 }
    }
}

/// Values that can be read at once from rows of `width` values.
pub(crate) fn vector_size(width: usize) -> usize {
    [4, 2].into_iter().find(|&vector| width.is_multiple_of(vector)).unwrap_or(1)
}

/// The sum of `value` over the team, for every unit of it. All units of the cube must call it.
#[cube]
pub(crate) fn team_sum(value: f32, #[comptime] team: Team) -> f32 {
    if comptime!(team.units == 1) {
        value
    } else if comptime!(team.plane) {
        plane_sum(value)
    } else {
        let mut sums = Shared::<[f32]>::new_slice(team.cube_units);
        let unit = UNIT_POS as usize;
        let lane = unit % team.units;
        sums[unit] = value;
        sync_cube();
        let mut half = (team.units / 2).runtime();
        while half > 0 {
            if lane < half {
                let other = sums[unit + half];
                sums[unit] += other;
            }
            sync_cube();
            half /= 2;
        }
        sums[unit - lane]
    }
}
