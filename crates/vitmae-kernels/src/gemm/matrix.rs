//! Our own product on matrix units: a cube computes a square tile of `C` in f32, a plane several matrices of
//! 16 × 16 of it, in steps along k.
//!
//! Each step copies a slab of `A` and one of `B` to shared memory as they lie in global memory, sixteen bytes a unit at
//! a time; the layout of a matrix says which way round that is, so nothing is transposed. The values of the next step are
//! on their way from global memory meanwhile. Results leave through shared memory, since how a plane spreads a matrix
//! over its units is known to the device alone; bias, activation and residual are added on the way.
//!
//! As in `tiled`, several cubes share a tile where there are few tiles and many k.

use cubecl::cmma;
use cubecl::ir::ElemType;
use cubecl::prelude::Array as Registers;
use cubecl::prelude::*;

use super::sums::add_parts;
use super::{After, Epilogue, MatRef};
use crate::activation::values;
use crate::convert::convert;
use crate::{Array, Capabilities, Client, Dtype, KernelError, cube_count};

/// Side of a matrix.
const SIDE: usize = 16;
/// Rows and columns of a tile.
const TILE: usize = 128;
/// Values that are read together: 16 bytes.
const VECTOR: usize = 8;
/// Values that are written together.
const OUT: usize = 4;
/// Rows of planes in a cube.
const PLANE_ROWS: usize = 2;
/// Units of a cube.
const UNITS: usize = 256;
/// Values between the lines of a slab, so that they begin in different banks.
const PAD: usize = 8;
/// Where matrices may start in shared memory, in bytes.
const ALIGNMENT: usize = 32;
/// Cubes that keep a device busy, about.
const CUBES: usize = 256;
/// Shortest part of k that is worth its pass through memory.
const SHORTEST_PART: usize = 512;

/// How a cube computes a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tile {
    /// Units of a plane.
    plane: usize,
    /// Values of k between barriers.
    depth: usize,
    /// The values of `A` lie one behind the other along k, instead of along its rows.
    a_along_k: bool,
    /// The same for `B` and its columns.
    b_along_k: bool,
}

impl Tile {
    fn planes(self) -> usize {
        UNITS / self.plane
    }

    /// Planes side by side.
    fn plane_cols(self) -> usize {
        self.planes() / PLANE_ROWS
    }

    /// Matrices of a plane, one above the other.
    fn high(self) -> usize {
        TILE / PLANE_ROWS / SIDE
    }

    /// Matrices of a plane, side by side.
    fn wide(self) -> usize {
        TILE / self.plane_cols() / SIDE
    }

    /// Values of a line of a slab without padding, and its number of lines.
    fn line(self, along_k: bool) -> (usize, usize) {
        if along_k { (self.depth, TILE) } else { (TILE, self.depth) }
    }

    /// Vectors from one line of a slab to the next.
    fn stride(self, along_k: bool) -> usize {
        (self.line(along_k).0 + PAD) / VECTOR
    }

    /// Vectors of a slab with the padding.
    fn slab(self, along_k: bool) -> usize {
        self.stride(along_k) * self.line(along_k).1
    }

    /// Vectors of a slab that each unit copies.
    fn each(self) -> usize {
        TILE * self.depth / VECTOR / UNITS
    }

    fn shared_bytes(self) -> usize {
        let slabs = (self.slab(self.a_along_k) + self.slab(self.b_along_k)) * VECTOR * 2;
        slabs + self.planes() * SIDE * SIDE * 4
    }
}

fn refused(reason: String) -> KernelError {
    KernelError::Refused { op: "gemm", reason }
}

/// `C = A·B` or `C += A·B`, then the epilogue; both operands are rounded to one half type if they are f32.
///
/// # Errors
/// [`KernelError::Refused`] if the device or the shape does not suit.
pub(super) fn product(
    client: &Client,
    a: MatRef,
    b: MatRef,
    c: &Array,
    accumulate: bool,
    epilogue: Epilogue,
) -> Result<(), KernelError> {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    // First, since most products are of f32 and asking the device takes longer.
    let half = super::half_type(a.array.dtype, b.array.dtype)
        .ok_or_else(|| refused("f32 does not go to matrix units".to_owned()))?;
    let capabilities = Capabilities::of(client);
    let has = capabilities.cmma.iter().any(|config| {
        let types = [config.a_type, config.b_type, config.cd_type];
        types == [half.elem(), half.elem(), Dtype::F32.elem()]
            && [config.m, config.n, config.k] == [SIDE as u32; 3]
    });
    let plane = capabilities.plane.filter(|plane| has && matches!(plane, 32 | 64));
    let plane = plane.ok_or_else(|| refused(format!("no matrix units for {half}")))? as usize;
    let a_along_k = a.col_stride == 1;
    let b_along_k = b.row_stride == 1;
    // Lines along k are short; longer ones paid on an H100 where both operands have them, and not elsewhere.
    let deep = if a_along_k && b_along_k { 64 } else { 32 };
    let tiles = [deep, 32].map(|depth| Tile { plane, depth, a_along_k, b_along_k });
    let fits = |tile: &Tile| {
        tile.shared_bytes() <= capabilities.max_shared_bytes
            && UNITS <= capabilities.max_units as usize
    };
    let tile = tiles.into_iter().find(fits);
    let tile = tile.ok_or_else(|| refused("the device's cubes are too small".to_owned()))?;
    // Everything is read and written in whole vectors.
    let suits = |view: MatRef, along_k: bool, rows: usize, stride: usize, contiguous: usize| {
        contiguous == 1
            && (if along_k { k } else { rows }).is_multiple_of(VECTOR)
            && stride.is_multiple_of(VECTOR)
            && view.offset.is_multiple_of(VECTOR)
    };
    let (a_stride, a_one) =
        if a_along_k { (a.row_stride, a.col_stride) } else { (a.col_stride, a.row_stride) };
    let (b_stride, b_one) =
        if b_along_k { (b.col_stride, b.row_stride) } else { (b.row_stride, b.col_stride) };
    if !suits(a, a_along_k, m, a_stride, a_one)
        || !suits(b, b_along_k, n, b_stride, b_one)
        || !n.is_multiple_of(OUT)
        || m.max(n) < TILE / 2
        || m.min(n) < TILE / 4
    {
        return Err(refused(format!("{m}x{n}x{k} does not suit the tiles")));
    }
    let of_half = |view: MatRef| {
        if view.array.dtype == half {
            return view.array.clone();
        }
        let array = Array::empty(client, view.array.len, half);
        convert(client, view.array, &array);
        array
    };
    let (a_array, b_array) = (of_half(a), of_half(b));
    let tiles = m.div_ceil(TILE) * n.div_ceil(TILE);
    let parts = (CUBES / tiles).min(k / SHORTEST_PART).max(1);
    let part_len = k.div_ceil(parts).next_multiple_of(tile.depth);
    let sums = (parts > 1).then(|| Array::empty(client, parts * c.len, Dtype::F32));
    let out = sums.as_ref().unwrap_or(c);
    let here = if parts > 1 { Epilogue::default() } else { epilogue };
    let [bias, residual, pre] = here.arrays(client, &a_array);
    let operand = |view: MatRef, stride: usize| {
        OperandLaunch::new((view.offset / VECTOR) as u32, (stride / VECTOR) as u32)
    };
    // SAFETY: each unit reads inside A and B and writes inside C, guarded; `MatRef` holds all its elements.
    unsafe {
        matrix_kernel::launch_unchecked(
            client,
            cube_count(tiles * parts, &capabilities),
            CubeDim::new_1d(UNITS as u32),
            VECTOR,
            OUT,
            a_array.arg(),
            b_array.arg(),
            out.arg(),
            bias.arg(),
            residual.arg(),
            pre.arg(),
            operand(a, a_stride),
            operand(b, b_stride),
            SizesLaunch::new(m as u32, n as u32, k as u32, parts as u32, part_len as u32),
            tile,
            here.after(accumulate && parts == 1),
            [half.elem(), out.dtype.elem()],
        );
    }
    if let Some(sums) = sums {
        add_parts(client, &sums, parts, c, accumulate, epilogue);
    }
    Ok(())
}

/// Where the vectors of an operand lie.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Operand {
    offset: u32,
    /// From one line to the next: of rows if it lies along k, else of k.
    stride: u32,
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
fn matrix_kernel<F: Float, C: Float, N: Size, M: Size>(
    a: &[Vector<F, N>],
    b: &[Vector<F, N>],
    c: &mut [Vector<C, M>],
    bias: &[Vector<f32, M>],
    residual: &[Vector<C, M>],
    pre: &mut [Vector<C, M>],
    a_at: Operand,
    b_at: Operand,
    sizes: Sizes,
    #[comptime] tile: Tile,
    #[comptime] after: After,
    #[define(F, C)] _dtypes: [ElemType; 2],
) {
    let (m, n) = (sizes.m as usize, sizes.n as usize);
    let tiles_across = n.div_ceil(TILE);
    let tiles = m.div_ceil(TILE) * tiles_across;
    let part = CUBE_POS / tiles;
    let position = CUBE_POS % tiles;
    let row = position / tiles_across * TILE;
    let col = position % tiles_across * TILE;
    let k_start = part * sizes.part_len as usize;
    let k_end = min(k_start + sizes.part_len as usize, sizes.k as usize);

    let unit = UNIT_POS as usize;
    let plane = unit / tile.plane;
    let plane_row = plane / tile.plane_cols() * (TILE / PLANE_ROWS);
    let plane_col = plane % tile.plane_cols() * comptime!(TILE / tile.plane_cols());

    let mut a_slab = Shared::<[Vector<F, N>]>::new_aligned_slice(
        comptime!(tile.slab(tile.a_along_k)),
        ALIGNMENT,
    );
    let mut b_slab = Shared::<[Vector<F, N>]>::new_aligned_slice(
        comptime!(tile.slab(tile.b_along_k)),
        ALIGNMENT,
    );
    let mut staging = Shared::<[Vector<f32, M>]>::new_aligned_slice(
        comptime!(tile.planes() * SIDE * SIDE / OUT),
        ALIGNMENT,
    );
    let mut sums = Sequence::<cmma::Matrix<f32>>::new();
    #[unroll]
    for _ in 0..comptime!(tile.high() * tile.wide()) {
        sums.push(zeros());
    }

    let mut a_next = Registers::<Vector<F, N>>::new(comptime!(tile.each()));
    let mut b_next = Registers::<Vector<F, N>>::new(comptime!(tile.each()));
    let mut k = k_start;
    fetch::<F, N>(a, &a_at, row, m, k, k_end, &mut a_next, tile.a_along_k, tile);
    fetch::<F, N>(b, &b_at, col, n, k, k_end, &mut b_next, tile.b_along_k, tile);
    while k < k_end {
        put::<F, N>(&a_next, &mut a_slab, tile.a_along_k, tile);
        put::<F, N>(&b_next, &mut b_slab, tile.b_along_k, tile);
        sync_cube();
        k += tile.depth;
        fetch::<F, N>(a, &a_at, row, m, k, k_end, &mut a_next, tile.a_along_k, tile);
        fetch::<F, N>(b, &b_at, col, n, k, k_end, &mut b_next, tile.b_along_k, tile);
        multiply::<F, N>(&a_slab, &b_slab, plane_row, plane_col, &sums, tile);
        sync_cube();
    }

    // Each unit writes as many values of every matrix as fit.
    let lane = unit % tile.plane;
    let per_unit = comptime!(SIDE * SIDE / OUT / tile.plane);
    let base = part * (m * n);
    #[unroll]
    for i in 0..tile.high() {
        #[unroll]
        for j in 0..tile.wide() {
            let start = plane * comptime!(SIDE * SIDE / OUT);
            cmma::store(
                &mut staging[start..comptime!(tile.planes() * SIDE * SIDE / OUT)],
                sums.index(comptime!(i * tile.wide() + j)),
                SIDE as u32,
                cmma::MatrixLayout::RowMajor,
            );
            sync_cube();
            #[unroll]
            for vector in 0..per_unit {
                let at = lane * per_unit + vector;
                let y = row + plane_row + i * SIDE + at / (SIDE / OUT);
                let x = col + plane_col + j * SIDE + at % (SIDE / OUT) * OUT;
                if part < sizes.parts as usize && y < m && x < n {
                    let to = (base + y * n + x) / OUT;
                    let mut value = staging[start + at];
                    if comptime!(after.accumulate) {
                        value += Vector::<f32, M>::cast_from(c[to]);
                    }
                    if comptime!(after.bias) {
                        value += bias[x / OUT];
                    }
                    if comptime!(after.saves) {
                        // The activation of what is stored, so that backward sees what it was.
                        let stored = Vector::<C, M>::cast_from(value);
                        pre[to] = stored;
                        value = Vector::<f32, M>::cast_from(stored);
                    }
                    let mut value = values(value, after.activation);
                    if comptime!(after.residual) {
                        value += Vector::<f32, M>::cast_from(residual[to]);
                    }
                    c[to] = Vector::<C, M>::cast_from(value);
                }
            }
            sync_cube();
        }
    }
}

/// The vectors of this unit in the slab that begins at `first` and `k`; zeros outside.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a view of a matrix")]
fn fetch<F: Float, N: Size>(
    from: &[Vector<F, N>],
    at: &Operand,
    first: usize,
    count: usize,
    k: usize,
    k_end: usize,
    values: &mut Registers<Vector<F, N>>,
    #[comptime] along_k: bool,
    #[comptime] tile: Tile,
) {
    let across = comptime!(tile.line(along_k).0 / VECTOR);
    #[unroll]
    for i in 0..tile.each() {
        let index = UNIT_POS as usize + comptime!(i * UNITS);
        let (line, column) = (index / across, index % across);
        let mut value = Vector::<F, N>::new(F::new(0.0f32));
        let base = at.offset as usize;
        if comptime!(along_k) {
            let k = k + column * VECTOR;
            if first + line < count && k < k_end {
                value = from[base + (first + line) * at.stride as usize + k / VECTOR];
            }
        } else {
            let start = first + column * VECTOR;
            if start < count && k + line < k_end {
                value = from[base + (k + line) * at.stride as usize + start / VECTOR];
            }
        }
        values[i] = value;
    }
}

/// Puts the vectors of this unit where they belong in the slab.
#[cube]
fn put<F: Float, N: Size>(
    values: &Registers<Vector<F, N>>,
    slab: &mut [Vector<F, N>],
    #[comptime] along_k: bool,
    #[comptime] tile: Tile,
) {
    let across = comptime!(tile.line(along_k).0 / VECTOR);
    #[unroll]
    for i in 0..tile.each() {
        let index = UNIT_POS as usize + comptime!(i * UNITS);
        slab[index / across * tile.stride(along_k) + index % across] = values[i];
    }
}

/// Adds the products of the slabs to the matrices of this plane.
#[cube]
fn multiply<F: Float, N: Size>(
    a: &[Vector<F, N>],
    b: &[Vector<F, N>],
    plane_row: usize,
    plane_col: usize,
    sums: &Sequence<cmma::Matrix<f32>>,
    #[comptime] tile: Tile,
) {
    #[unroll]
    for step in 0..comptime!(tile.depth / SIDE) {
        let k = comptime!(step * SIDE);
        // The fewer of both stay in registers.
        let mut columns = Sequence::<cmma::Matrix<Vector<F, N>>>::new();
        #[unroll]
        for j in 0..tile.wide() {
            let at = place(plane_col + j * SIDE, k, tile.b_along_k, tile);
            columns.push(cmma::Matrix::<Vector<F, N>>::from_slice(
                cmma::MatrixIdent::B,
                SIDE,
                SIDE,
                SIDE,
                if tile.b_along_k {
                    cmma::MatrixLayout::ColMajor
                } else {
                    cmma::MatrixLayout::RowMajor
                },
                &b[at..comptime!(tile.slab(tile.b_along_k))],
                comptime!((tile.stride(tile.b_along_k) * VECTOR) as u32),
            ));
        }
        #[unroll]
        for i in 0..tile.high() {
            let at = place(plane_row + i * SIDE, k, tile.a_along_k, tile);
            let row = cmma::Matrix::<Vector<F, N>>::from_slice(
                cmma::MatrixIdent::A,
                SIDE,
                SIDE,
                SIDE,
                if tile.a_along_k {
                    cmma::MatrixLayout::RowMajor
                } else {
                    cmma::MatrixLayout::ColMajor
                },
                &a[at..comptime!(tile.slab(tile.a_along_k))],
                comptime!((tile.stride(tile.a_along_k) * VECTOR) as u32),
            );
            #[unroll]
            for j in 0..tile.wide() {
                let sum = sums.index(comptime!(i * tile.wide() + j));
                cmma::execute(&row, columns.index(j), sum, sum);
            }
        }
    }
}

/// The vector in a slab at which the matrix of row (column) `first` and `k` begins.
#[cube]
fn place(
    first: usize,
    #[comptime] k: usize,
    #[comptime] along_k: bool,
    #[comptime] tile: Tile,
) -> usize {
    let stride = tile.stride(along_k);
    if comptime!(along_k) { first * stride + k / VECTOR } else { k * stride + first / VECTOR }
}

/// A matrix of sums, all zero.
#[cube]
fn zeros() -> cmma::Matrix<f32> {
    cmma::Matrix::<f32>::from_value(
        cmma::MatrixIdent::Accumulator,
        SIDE,
        SIDE,
        SIDE,
        cmma::MatrixLayout::Undefined,
        0.0f32,
    )
}
