//! Tiles of heads in shared memory, and the two products that attention is made of.
//!
//! A cube holds a tile of rows (its own queries or keys) and walks over tiles of columns (the others). Its
//! units form a grid: `lanes` side by side, `height` below each other. A unit owns `per_unit` rows, `height`
//! apart, and for each of them four neighbouring columns.
//!
//! Rows of a head lie in shared memory as vectors of four f32, zero beyond the head's width and beyond the
//! last token, at an odd stride, so that units that read one column of neighbouring rows hit different banks.
//! Column c lies at position c/4 + (c mod 4)·lanes: what neighbouring units read together is neighbouring.

use cubecl::prelude::Array as Registers;
use cubecl::prelude::*;

use crate::team::vector_size;
use crate::{Capabilities, KernelError};

/// Four values.
pub(super) type Four = Vector<f32, Const<4>>;

/// How heads are cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tiles {
    pub(super) head_dim: usize,
    /// Values that are read at once from memory: 4, 2 or 1.
    pub(super) vector: usize,
    /// Units side by side.
    pub(super) lanes: usize,
    /// Units below each other.
    pub(super) height: usize,
    /// Rows of a unit.
    pub(super) per_unit: usize,
    /// Whether the lanes of a row lie in one plane, which then has operations.
    pub(super) planes: bool,
}

/// Lanes, height and rows per unit, the fastest first.
const SIZES: [(usize, usize, usize); 5] = [(8, 8, 4), (8, 8, 2), (8, 4, 2), (4, 4, 2), (2, 4, 2)];
/// The same where units are threads of a CPU.
const CPU_SIZES: [(usize, usize, usize); 1] = [(2, 1, 2)];

impl Tiles {
    /// The largest tiles of which `row_tiles` tiles of rows, one tile of columns and `weight_tiles` tiles of
    /// weights fit the shared memory of a cube.
    ///
    /// # Errors
    /// [`KernelError::Refused`] if none fits.
    pub(super) fn choose(
        head_dim: usize,
        row_tiles: usize,
        weight_tiles: usize,
        capabilities: &Capabilities,
    ) -> Result<Self, KernelError> {
        let sizes = if capabilities.is_cpu() { &CPU_SIZES[..] } else { &SIZES[..] };
        let tiles = sizes.iter().map(|&(lanes, height, per_unit)| {
            let planes =
                capabilities.plane.is_some_and(|plane| (plane as usize).is_multiple_of(lanes));
            let vector = vector_size(head_dim);
            Self { head_dim, vector, lanes, height, per_unit, planes }
        });
        let fits = |tiles: &Self| {
            let vectors = row_tiles * tiles.rows_len()
                + tiles.columns_len()
                + weight_tiles * tiles.weights_len();
            let bytes = vectors * 16 + tiles.sums_len() * 4;
            bytes <= capabilities.max_shared_bytes
                && tiles.units() <= capabilities.max_units as usize
        };
        tiles.into_iter().find(fits).ok_or_else(|| {
            let bytes = capabilities.max_shared_bytes;
            let reason = format!(
                "a head of width {head_dim} does not fit the {bytes} bytes of shared memory of a cube; use more heads or the CPU"
            );
            KernelError::Refused { op: "attention", reason }
        })
    }

    /// Units of a cube.
    pub(super) fn units(&self) -> usize {
        self.lanes * self.height
    }

    /// Rows of a tile.
    pub(super) fn rows(&self) -> usize {
        self.height * self.per_unit
    }

    /// Columns of a tile.
    pub(super) fn columns(&self) -> usize {
        4 * self.lanes
    }

    /// Vectors of a row of a head, as they are read from memory.
    pub(super) fn vectors(&self) -> usize {
        self.head_dim / self.vector
    }

    /// Vectors of four in a row of a head.
    pub(super) fn fours(&self) -> usize {
        self.head_dim.div_ceil(4)
    }

    /// Vectors of four that a unit has of a row of a head.
    pub(super) fn fours_per_unit(&self) -> usize {
        self.fours().div_ceil(self.lanes)
    }

    /// Vectors from one row to the next in shared memory.
    pub(super) fn stride(&self) -> usize {
        self.fours() | 1
    }

    /// Vectors from one row of weights to the next in shared memory.
    pub(super) fn weight_stride(&self) -> usize {
        self.lanes | 1
    }

    /// Vectors of a tile of rows.
    pub(super) fn rows_len(&self) -> usize {
        self.rows() * self.stride()
    }

    /// Vectors of a tile of columns.
    pub(super) fn columns_len(&self) -> usize {
        self.columns() * self.stride()
    }

    /// Vectors of a tile of weights.
    pub(super) fn weights_len(&self) -> usize {
        self.rows() * self.weight_stride()
    }

    /// Values of the memory in which lanes combine theirs.
    pub(super) fn sums_len(&self) -> usize {
        if self.planes { 1 } else { self.rows() * self.lanes }
    }

    /// Accumulators of a unit.
    pub(super) fn outputs(&self) -> usize {
        self.per_unit * self.fours_per_unit()
    }
}

/// The lane of this unit.
#[cube]
pub(super) fn lane(#[comptime] tiles: Tiles) -> usize {
    UNIT_POS as usize % tiles.lanes
}

/// Row `i` of this unit within its tile.
#[cube]
pub(super) fn row(i: usize, #[comptime] tiles: Tiles) -> usize {
    UNIT_POS as usize / tiles.lanes + i * tiles.height
}

/// Copies rows `first..` of a head to a tile of rows; rows from `tokens` on become zero.
///
/// Row i of the head starts at `start + i · stride`, in vectors of `N`.
#[cube]
pub(super) fn load_rows<F: Float, N: Size>(
    from: &[Vector<F, N>],
    start: usize,
    stride: usize,
    first: usize,
    tokens: usize,
    tile: &mut [Four],
    #[comptime] tiles: Tiles,
) {
    let len = comptime!(tiles.rows() * tiles.fours());
    let mut i = UNIT_POS as usize;
    while i < len {
        let (row, column) = (i / tiles.fours(), i % tiles.fours());
        let mut value = Four::new(0.0f32);
        if first + row < tokens {
            value = read::<F, N>(from, start + (first + row) * stride, column, tiles);
        }
        tile[row * tiles.stride() + column] = value;
        i += tiles.units();
    }
}

/// The same for a tile of columns.
#[cube]
pub(super) fn load_columns<F: Float, N: Size>(
    from: &[Vector<F, N>],
    start: usize,
    stride: usize,
    first: usize,
    tokens: usize,
    tile: &mut [Four],
    #[comptime] tiles: Tiles,
) {
    let len = comptime!(tiles.columns() * tiles.fours());
    let mut i = UNIT_POS as usize;
    while i < len {
        let (row, column) = (i / tiles.fours(), i % tiles.fours());
        let mut value = Four::new(0.0f32);
        if first + row < tokens {
            value = read::<F, N>(from, start + (first + row) * stride, column, tiles);
        }
        let position = row / 4 + row % 4 * tiles.lanes;
        tile[position * tiles.stride() + column] = value;
        i += tiles.units();
    }
}

/// Values 4·column to 4·column + 3 of the row of a head that starts at `start`; zero beyond its width.
#[cube]
fn read<F: Float, N: Size>(
    from: &[Vector<F, N>],
    start: usize,
    column: usize,
    #[comptime] tiles: Tiles,
) -> Four {
    if comptime!(tiles.vector == 4) {
        Four::cast_from(from[start + column])
    } else {
        let mut value = Four::new(0.0f32);
        let parts = comptime!(4 / tiles.vector);
        #[unroll]
        for part in 0..parts {
            let at = column * parts + part;
            if at < tiles.vectors() {
                let read = Vector::<f32, N>::cast_from(from[start + at]);
                #[unroll]
                for i in 0..tiles.vector {
                    value.insert(part * tiles.vector + i, read.extract(i));
                }
            }
        }
        value
    }
}

/// Writes values 4·column to 4·column + 3 of the row of a head that starts at `start`, within its width.
#[cube]
pub(super) fn write<F: Float, N: Size>(
    value: Four,
    to: &mut [Vector<F, N>],
    start: usize,
    column: usize,
    #[comptime] tiles: Tiles,
) {
    if comptime!(tiles.vector == 4) {
        to[start + column] = Vector::<F, N>::cast_from(value);
    } else {
        let parts = comptime!(4 / tiles.vector);
        #[unroll]
        for part in 0..parts {
            let at = column * parts + part;
            if at < tiles.vectors() {
                let mut written = Vector::<F, N>::empty();
                #[unroll]
                for i in 0..tiles.vector {
                    written.insert(i, F::cast_from(value.extract(part * tiles.vector + i)));
                }
                to[start + at] = written;
            }
        }
    }
}

/// `products[4·i + j] = rows[row i] · columns[column j]` for the rows and the four columns of this unit.
///
/// `fours` is that of `tiles`, as an argument of the launch: of a number that it knows, NVIDIA's compiler
/// unrolls the whole loop and runs out of registers.
#[cube]
pub(super) fn products(
    rows: &[Four],
    columns: &[Four],
    products: &mut Registers<f32>,
    fours: usize,
    #[comptime] tiles: Tiles,
) {
    let lane = lane(tiles);
    #[unroll]
    for i in 0..4 * tiles.per_unit {
        products[i] = 0.0f32;
    }
    for k in 0..fours {
        let mut column = Registers::<Four>::new(4usize);
        #[unroll]
        for j in 0..4 {
            column[j] = columns[(lane + j * tiles.lanes) * tiles.stride() + k];
        }
        #[unroll]
        for i in 0..tiles.per_unit {
            let value = rows[row(i, tiles) * tiles.stride() + k];
            #[unroll]
            for j in 0..4 {
                products[4 * i + j] += value.dot(column[j]);
            }
        }
    }
}

/// Outputs of a unit at zero. They are written, because CubeCL 0.11.3 cannot convert registers that it zeroed
/// itself to f16 for Vulkan.
#[cube]
pub(super) fn zeros(#[comptime] tiles: Tiles) -> Registers<Four> {
    let mut outputs = Registers::<Four>::new(tiles.outputs());
    #[unroll]
    for i in 0..tiles.outputs() {
        outputs[i] = Four::new(0.0f32);
    }
    outputs
}

/// `outputs[i, c] += Σ_j weights[row i, j] · columns[j, c]` for the rows of this unit and its vectors c of
/// the head's width: lane, lane + lanes, and so on.
#[cube]
pub(super) fn accumulate(
    weights: &[Four],
    columns: &[Four],
    outputs: &mut Registers<Four>,
    #[comptime] tiles: Tiles,
) {
    let lane = lane(tiles);
    let width = comptime!(tiles.fours_per_unit());
    for k in 0..tiles.lanes {
        let mut weight = Registers::<Four>::new(tiles.per_unit);
        #[unroll]
        for i in 0..tiles.per_unit {
            weight[i] = weights[row(i, tiles) * tiles.weight_stride() + k];
        }
        #[unroll]
        for j in 0..4 {
            #[unroll]
            for c in 0..width {
                // A lane beyond the width computes the last vector again and does not write it.
                let c4 = min(lane + c * tiles.lanes, (tiles.fours() - 1).runtime());
                let value = columns[(k + j * tiles.lanes) * tiles.stride() + c4];
                #[unroll]
                for i in 0..tiles.per_unit {
                    outputs[i * width + c] += Four::new(weight[i].extract(j)) * value;
                }
            }
        }
    }
}
