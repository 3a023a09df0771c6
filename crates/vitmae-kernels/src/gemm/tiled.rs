//! Our own product: a cube computes a square tile of `C`, in steps along k.
//!
//! Each step copies a slab of `A` and one of `B` (side × depth) to shared memory, four values a unit, and
//! each unit multiplies its rows with its columns in registers. The values of the next step are on their way
//! from global memory meanwhile. Both slabs lie with k outside, four neighbouring rows (columns) together,
//! so that a unit reads what it needs in vectors; a row of padding keeps the writes apart from each other in
//! the banks of shared memory.
//!
//! Where there are few tiles and many k, several cubes share a tile, each with a part of k; a second kernel
//! adds the parts in order. How many depends on the shape and the tile alone.

use cubecl::ir::ElemType;
use cubecl::prelude::Array as Registers;
use cubecl::prelude::*;

use super::sums::add_parts;
use super::{After, Epilogue, MatRef};
use crate::activation::value;
use crate::{Array, Capabilities, Client, Dtype, cube_count};

/// Values of shared memory that are read and written together.
const VECTOR: usize = 4;

/// How a cube computes a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    /// Rows and columns.
    side: usize,
    /// Rows and columns of a unit.
    unit_side: usize,
    /// Neighbouring units load along k from `A`, instead of along its rows.
    a_along_k: bool,
    /// The same for `B`.
    b_along_k: bool,
}

/// Large products: most multiplications a loaded value.
const LARGE: (usize, usize) = (128, 8);
/// Products with too few large tiles for a device.
const MEDIUM: (usize, usize) = (64, 4);
/// The smallest, and for devices with small cubes.
const SMALL: (usize, usize) = (32, 4);

/// Cubes that keep a device busy, about: two waves on the largest, which run two on each of 132 multiprocessors.
const CUBES: usize = 512;
/// Shortest part of k that is worth its pass through memory.
const SHORTEST_PART: usize = 256;

impl Tile {
    /// The tile for a product, from its shape and the largest cube of the device.
    fn new(a: MatRef, b: MatRef, max_units: u32) -> Self {
        let (m, n) = (a.rows, b.cols);
        let fits = |&(side, unit_side): &(usize, usize)| {
            let units = (side / unit_side) * (side / unit_side);
            let tiles = m.div_ceil(side) * n.div_ceil(side);
            // Not tiles that lie mostly outside C, nor tiles that leave half of the device idle.
            units <= max_units as usize
                && m.min(n) * 2 > side
                && tiles * (a.cols / SHORTEST_PART).max(1) * 4 >= CUBES
        };
        let (side, unit_side) = [LARGE, MEDIUM].into_iter().find(fits).unwrap_or(SMALL);
        // The shorter stride is the one along which neighbours share a transaction.
        let a_along_k = a.col_stride <= a.row_stride;
        let b_along_k = b.row_stride < b.col_stride;
        Self { side, unit_side, a_along_k, b_along_k }
    }

    fn units(self) -> usize {
        (self.side / self.unit_side) * (self.side / self.unit_side)
    }

    /// Steps of k between barriers: a slab has four values a unit.
    fn depth(self) -> usize {
        VECTOR * self.units() / self.side
    }

    /// Vectors of a slab for one k, with the padding.
    fn line(self) -> usize {
        self.side / VECTOR + 1
    }
}

/// `C = A·B` or `C += A·B`, then the epilogue.
pub(super) fn product(
    client: &Client,
    a: MatRef,
    b: MatRef,
    c: &Array,
    accumulate: bool,
    epilogue: Epilogue,
) {
    let capabilities = Capabilities::of(client);
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let tile = Tile::new(a, b, capabilities.max_units);
    let tiles = m.div_ceil(tile.side) * n.div_ceil(tile.side);
    let parts = (CUBES / tiles).min(k / SHORTEST_PART).max(1);
    let part_len = k.div_ceil(parts).next_multiple_of(tile.depth());
    if parts == 1 {
        launch(client, &capabilities, tile, a, b, c, 1, part_len, accumulate, epilogue);
        return;
    }
    let sums = Array::empty(client, parts * c.len, Dtype::F32);
    let none = Epilogue::default();
    launch(client, &capabilities, tile, a, b, &sums, parts, part_len, false, none);
    add_parts(client, &sums, parts, c, accumulate, epilogue);
}

#[allow(clippy::too_many_arguments, reason = "the arguments of one launch, used twice")]
fn launch(
    client: &Client,
    capabilities: &Capabilities,
    tile: Tile,
    a: MatRef,
    b: MatRef,
    c: &Array,
    parts: usize,
    part_len: usize,
    accumulate: bool,
    epilogue: Epilogue,
) {
    let [bias, residual, pre] = epilogue.arrays(client, a.array);
    let tiles = a.rows.div_ceil(tile.side) * b.cols.div_ceil(tile.side);
    let operand = |view: MatRef, along: usize, along_k: usize| {
        OperandLaunch::new(view.offset as u32, along as u32, along_k as u32)
    };
    // SAFETY: each unit reads inside A and B and writes inside C, guarded; `MatRef` holds all its elements.
    unsafe {
        tiled_kernel::launch_unchecked(
            client,
            cube_count(tiles * parts, capabilities),
            CubeDim::new_1d(tile.units() as u32),
            a.array.arg(),
            b.array.arg(),
            c.arg(),
            bias.arg(),
            residual.arg(),
            pre.arg(),
            operand(a, a.row_stride, a.col_stride),
            operand(b, b.col_stride, b.row_stride),
            SizesLaunch::new(
                a.rows as u32,
                b.cols as u32,
                a.cols as u32,
                parts as u32,
                part_len as u32,
            ),
            tile,
            epilogue.after(accumulate),
            [a.array.dtype.elem(), b.array.dtype.elem(), c.dtype.elem()],
        );
    }
}

/// Where the elements of an operand lie.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Operand {
    offset: u32,
    /// From a row of `A` or a column of `B` to the next.
    stride: u32,
    /// From one k to the next.
    k_stride: u32,
}

/// Sizes of a product.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Sizes {
    m: u32,
    n: u32,
    k: u32,
    parts: u32,
    part_len: u32,
}

/// One cube computes one part of one tile.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "buffers and sizes of a kernel")]
fn tiled_kernel<A: Float, B: Float, C: Float>(
    a: &[A],
    b: &[B],
    c: &mut [C],
    bias: &[f32],
    residual: &[C],
    pre: &mut [C],
    a_at: Operand,
    b_at: Operand,
    sizes: Sizes,
    #[comptime] tile: Tile,
    #[comptime] after: After,
    #[define(A, B, C)] _dtypes: [ElemType; 3],
) {
    let side = comptime!(tile.side);
    let depth = comptime!(tile.depth());
    let line = comptime!(tile.line());
    let groups = comptime!(tile.unit_side / VECTOR);
    let units_across = comptime!(tile.side / tile.unit_side);

    // Which tile, and which part of k.
    let tiles_across = (sizes.n as usize).div_ceil(side);
    let tiles = (sizes.m as usize).div_ceil(side) * tiles_across;
    let part = CUBE_POS / tiles;
    let position = CUBE_POS % tiles;
    let row = position / tiles_across * side;
    let col = position % tiles_across * side;
    let k_start = part * sizes.part_len as usize;
    let k_end = min(k_start + sizes.part_len as usize, sizes.k as usize);

    // Which rows and columns of the tile, and what to load.
    let unit = UNIT_POS as usize;
    let unit_row = unit / units_across;
    let unit_col = unit % units_across;
    let (a_group, a_k) = slot(unit, side, depth, tile.a_along_k);
    let (b_group, b_k) = slot(unit, side, depth, tile.b_along_k);
    let a_row = row + a_group * VECTOR;
    let b_col = col + b_group * VECTOR;

    let mut a_slab = Shared::<[Vector<f32, Const<4>>]>::new_slice(comptime!(depth * line));
    let mut b_slab = Shared::<[Vector<f32, Const<4>>]>::new_slice(comptime!(depth * line));
    let mut sums = Registers::<Vector<f32, Const<4>>>::new(comptime!(tile.unit_side * groups));
    #[unroll]
    for i in 0..comptime!(tile.unit_side * groups) {
        sums[i] = Vector::new(0.0f32);
    }

    let mut k = k_start;
    let mut a_next = load::<A>(a, &a_at, a_row, sizes.m as usize, k + a_k, k_end);
    let mut b_next = load::<B>(b, &b_at, b_col, sizes.n as usize, k + b_k, k_end);
    while k < k_end {
        a_slab[a_k * line + a_group] = a_next;
        b_slab[b_k * line + b_group] = b_next;
        sync_cube();

        k += depth;
        a_next = load::<A>(a, &a_at, a_row, sizes.m as usize, k + a_k, k_end);
        b_next = load::<B>(b, &b_at, b_col, sizes.n as usize, k + b_k, k_end);

        #[unroll]
        for step in 0..depth {
            let a_line = step * line + unit_row;
            let b_line = step * line + unit_col;
            #[unroll]
            for ag in 0..groups {
                let a_values = a_slab[a_line + ag * units_across];
                #[unroll]
                for bg in 0..groups {
                    let b_values = b_slab[b_line + bg * units_across];
                    #[unroll]
                    for i in 0..VECTOR {
                        let at = comptime!((ag * VECTOR + i) * groups + bg);
                        let factor = Vector::new(a_values.extract(i));
                        sums[at] = fma(factor, b_values, sums[at]);
                    }
                }
            }
        }
        sync_cube();
    }

    // Parts lie one behind the other, each a whole C.
    if part < sizes.parts as usize {
        let base = part * (sizes.m * sizes.n) as usize;
        #[unroll]
        for ag in 0..groups {
            #[unroll]
            for i in 0..VECTOR {
                let y = row + (ag * units_across + unit_row) * VECTOR + i;
                #[unroll]
                for bg in 0..groups {
                    let x = col + (bg * units_across + unit_col) * VECTOR;
                    let values = sums[comptime!((ag * VECTOR + i) * groups + bg)];
                    #[unroll]
                    for j in 0..VECTOR {
                        if y < sizes.m as usize && x + j < sizes.n as usize {
                            let at = base + y * sizes.n as usize + x + j;
                            let mut sum = values.extract(j);
                            if comptime!(after.accumulate) {
                                sum += f32::cast_from(c[at]);
                            }
                            if comptime!(after.bias) {
                                sum += bias[x + j];
                            }
                            if comptime!(after.saves) {
                                let stored = C::cast_from(sum);
                                pre[at] = stored;
                                sum = f32::cast_from(stored);
                            }
                            let mut out = value(sum, after.activation);
                            if comptime!(after.residual) {
                                out += f32::cast_from(residual[at]);
                            }
                            c[at] = C::cast_from(out);
                        }
                    }
                }
            }
        }
    }
}

/// The four rows (columns) and the k that a unit loads of each slab.
#[cube]
fn slot(
    unit: usize,
    #[comptime] side: usize,
    #[comptime] depth: usize,
    #[comptime] along_k: bool,
) -> (usize, usize) {
    if comptime!(along_k) {
        (unit / depth, unit % depth)
    } else {
        let groups = comptime!(side / VECTOR);
        (unit % groups, unit / groups)
    }
}

/// Four neighbouring rows of `A` (columns of `B`) at one k; 0 outside.
#[cube]
fn load<F: Float>(
    source: &[F],
    at: &Operand,
    first: usize,
    count: usize,
    k: usize,
    k_end: usize,
) -> Vector<f32, Const<4>> {
    let mut values = Vector::<f32, Const<4>>::new(0.0f32);
    let base = at.offset as usize + k * at.k_stride as usize;
    #[unroll]
    for i in 0..VECTOR {
        if k < k_end && first + i < count {
            values.insert(i, f32::cast_from(source[base + (first + i) * at.stride as usize]));
        }
    }
    values
}
