//! Attention in f16 and bf16 on the matrix units of a device: products of 16 × 16 matrices by a plane, with
//! sums in f32.
//!
//! A cube holds a tile of rows, sixteen for each of its planes, and walks over tiles of 32 columns; all lie
//! in shared memory in the type of the activations. How a plane spreads a matrix over its units is known to
//! the device alone, so scores go through shared memory to the softmax, and weights back. The forward pass
//! takes the largest score of each row from a first pass over the keys: computing scores twice costs less
//! than scaling the output again with every tile.

pub(super) mod backward;
pub(super) mod forward;

use cubecl::cmma;
use cubecl::prelude::*;

use super::head::Head;
use super::tiles::Four;
use crate::{Capabilities, Dtype};

/// Side of a matrix.
const SIDE: usize = 16;
/// Columns of a tile.
pub(super) const COLUMNS: usize = 2 * SIDE;
/// Values that are read and written at once.
pub(super) const VECTOR: usize = 4;
/// Vectors from one row of scores to the next: odd, so that rows begin in different banks.
pub(super) const SCORE_STRIDE: usize = COLUMNS / VECTOR + 1;
/// Vectors from one row of weights to the next; a matrix wants a multiple of 16 bytes.
pub(super) const WEIGHT_STRIDE: usize = COLUMNS / VECTOR + 2;
/// Where matrices may start in shared memory, in bytes.
pub(super) const ALIGNMENT: usize = 32;

/// How heads are cut into matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Matrices {
    pub(super) head_dim: usize,
    /// Units of a plane.
    pub(super) plane: usize,
    /// Planes of a cube.
    pub(super) planes: usize,
}

impl Matrices {
    /// The most planes of which `row_tiles` tiles of rows and two tiles of columns fit the shared memory of a
    /// cube; `None` if the device or the head's width does not suit.
    pub(super) fn choose(
        head_dim: usize,
        dtype: Dtype,
        row_tiles: usize,
        capabilities: &Capabilities,
    ) -> Option<Self> {
        let plane = capabilities.plane? as usize;
        let has = capabilities.cmma.iter().any(|config| {
            let types = [config.a_type, config.b_type, config.cd_type];
            let sides = [config.m, config.n, config.k];
            types == [dtype.elem(), dtype.elem(), Dtype::F32.elem()] && sides == [SIDE as u32; 3]
        });
        let suits = has
            && dtype != Dtype::F32
            && matches!(plane, 32 | 64)
            && head_dim > 0
            && head_dim.is_multiple_of(SIDE);
        let fits = |plan: &Self| {
            let heads = (row_tiles * plan.rows() + 2 * COLUMNS) * plan.stride();
            let vectors = heads + plan.rows() * WEIGHT_STRIDE;
            let scores = plan.rows() * SCORE_STRIDE;
            let bytes = VECTOR * (vectors * dtype.size() + scores * Dtype::F32.size());
            bytes <= capabilities.max_shared_bytes
                && plan.units() <= capabilities.max_units as usize
        };
        let plans = [4, 2, 1].map(|planes| Self { head_dim, plane, planes });
        plans.into_iter().find(|plan| suits && fits(plan))
    }

    /// Units of a cube.
    pub(super) fn units(&self) -> usize {
        self.plane * self.planes
    }

    /// Rows of a tile.
    pub(super) fn rows(&self) -> usize {
        SIDE * self.planes
    }

    /// Vectors of a row of a head.
    pub(super) fn vectors(&self) -> usize {
        self.head_dim / VECTOR
    }

    /// Vectors from one row of a head to the next in shared memory.
    pub(super) fn stride(&self) -> usize {
        (self.head_dim + 8) / VECTOR
    }

    /// Matrices side by side in a head.
    pub(super) fn width(&self) -> usize {
        self.head_dim / SIDE
    }

    /// Units that share a row of scores.
    pub(super) fn parts(&self) -> usize {
        self.plane / SIDE
    }

    /// Vectors of columns of a unit.
    pub(super) fn per_unit(&self) -> usize {
        COLUMNS / VECTOR / self.parts()
    }
}

/// The row of this unit within the tile, for everything between the products.
#[cube]
pub(super) fn row(#[comptime] plan: Matrices) -> usize {
    UNIT_POS as usize / plan.plane * SIDE + UNIT_POS as usize % SIDE
}

/// The first column of this unit within the tile, in vectors.
#[cube]
pub(super) fn column(#[comptime] plan: Matrices) -> usize {
    UNIT_POS as usize % plan.plane / SIDE * plan.per_unit()
}

/// First row of this plane.
#[cube]
fn first_row(#[comptime] plan: Matrices) -> usize {
    UNIT_POS as usize / plan.plane * SIDE
}

/// Copies `count` rows of a head from `first` on to shared memory; rows from `tokens` on become zero.
///
/// Row i of the head starts at `start + i · stride`, in vectors.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a view of a matrix")]
pub(super) fn load<F: Float, N: Size>(
    from: &[Vector<F, N>],
    start: usize,
    stride: usize,
    first: usize,
    tokens: usize,
    tile: &mut [Vector<F, N>],
    #[comptime] count: usize,
    #[comptime] plan: Matrices,
) {
    let len = comptime!(count * plan.vectors());
    let mut i = UNIT_POS as usize;
    while i < len {
        let (row, column) = (i / plan.vectors(), i % plan.vectors());
        let mut value = Vector::<F, N>::new(F::new(0.0f32));
        if first + row < tokens {
            value = from[start + (first + row) * stride + column];
        }
        tile[row * plan.stride() + column] = value;
        i += plan.units();
    }
}

/// `scores[row, j] = rows[row] · columns[j]` for the rows of this plane and all columns of a tile.
#[cube]
pub(super) fn products<F: Float, N: Size>(
    rows: &[Vector<F, N>],
    columns: &[Vector<F, N>],
    scores: &mut [Four],
    #[comptime] plan: Matrices,
) {
    let stride = comptime!((plan.stride() * VECTOR) as u32);
    let score_stride = comptime!((SCORE_STRIDE * VECTOR) as u32);
    let first = first_row(plan);
    let left = zeros();
    let right = zeros();
    #[unroll]
    for k in 0..plan.width() {
        let k = comptime!(k * SIDE / VECTOR);
        let at = first * plan.stride() + k;
        let row = cmma::Matrix::<Vector<F, N>>::from_slice(
            cmma::MatrixIdent::A,
            SIDE,
            SIDE,
            SIDE,
            cmma::MatrixLayout::RowMajor,
            &rows[at..comptime!(plan.rows() * plan.stride())],
            stride,
        );
        // Rows of a head are columns of the second factor.
        let end = comptime!(COLUMNS * plan.stride());
        let column = cmma::Matrix::<Vector<F, N>>::from_slice(
            cmma::MatrixIdent::B,
            SIDE,
            SIDE,
            SIDE,
            cmma::MatrixLayout::ColMajor,
            &columns[k..end],
            stride,
        );
        cmma::execute(&row, &column, &left, &left);
        let column = cmma::Matrix::<Vector<F, N>>::from_slice(
            cmma::MatrixIdent::B,
            SIDE,
            SIDE,
            SIDE,
            cmma::MatrixLayout::ColMajor,
            &columns[comptime!(SIDE * plan.stride() + k)..end],
            stride,
        );
        cmma::execute(&row, &column, &right, &right);
    }
    let (at, end) = (first * SCORE_STRIDE, comptime!(plan.rows() * SCORE_STRIDE));
    cmma::store(&mut scores[at..end], &left, score_stride, cmma::MatrixLayout::RowMajor);
    cmma::store(
        &mut scores[at + SIDE / VECTOR..end],
        &right,
        score_stride,
        cmma::MatrixLayout::RowMajor,
    );
}

/// `outputs[row] += Σ_j weights[row, j] · columns[j]` for the rows of this plane.
#[cube]
pub(super) fn accumulate<F: Float, N: Size>(
    weights: &[Vector<F, N>],
    columns: &[Vector<F, N>],
    outputs: &Sequence<cmma::Matrix<f32>>,
    #[comptime] plan: Matrices,
) {
    let stride = comptime!((plan.stride() * VECTOR) as u32);
    let first = first_row(plan);
    #[unroll]
    for k in 0..COLUMNS / SIDE {
        let at = first * WEIGHT_STRIDE + k * (SIDE / VECTOR);
        let weight = cmma::Matrix::<Vector<F, N>>::from_slice(
            cmma::MatrixIdent::A,
            SIDE,
            SIDE,
            SIDE,
            cmma::MatrixLayout::RowMajor,
            &weights[at..comptime!(plan.rows() * WEIGHT_STRIDE)],
            comptime!((WEIGHT_STRIDE * VECTOR) as u32),
        );
        #[unroll]
        for n in 0..plan.width() {
            let at = comptime!(k * SIDE * plan.stride() + n * SIDE / VECTOR);
            let column = cmma::Matrix::<Vector<F, N>>::from_slice(
                cmma::MatrixIdent::B,
                SIDE,
                SIDE,
                SIDE,
                cmma::MatrixLayout::RowMajor,
                &columns[at..comptime!(COLUMNS * plan.stride())],
                stride,
            );
            cmma::execute(&weight, &column, outputs.index(n), outputs.index(n));
        }
    }
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

/// The outputs of this plane's rows, all zero.
#[cube]
pub(super) fn no_outputs(#[comptime] plan: Matrices) -> Sequence<cmma::Matrix<f32>> {
    let mut outputs = Sequence::new();
    #[unroll]
    for _ in 0..plan.width() {
        outputs.push(zeros());
    }
    outputs
}

/// Writes outputs times `factor`, which is this unit's row's, by way of the memory of the scores. All units
/// of the cube must call it.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a view of a matrix")]
pub(super) fn write<F: Float, N: Size>(
    outputs: &Sequence<cmma::Matrix<f32>>,
    factor: f32,
    scores: &mut [Four],
    to: &mut [Vector<F, N>],
    start: usize,
    stride: usize,
    head: &Head,
    tokens: usize,
    #[comptime] plan: Matrices,
) {
    let row = row(plan);
    let token = head.first + row;
    let per_unit = comptime!(SIDE / VECTOR / plan.parts());
    let part = UNIT_POS as usize % plan.plane / SIDE;
    #[unroll]
    for n in 0..plan.width() {
        sync_cube();
        let (at, end) = (first_row(plan) * SCORE_STRIDE, comptime!(plan.rows() * SCORE_STRIDE));
        cmma::store(
            &mut scores[at..end],
            outputs.index(n),
            comptime!((SCORE_STRIDE * VECTOR) as u32),
            cmma::MatrixLayout::RowMajor,
        );
        sync_cube();
        if token < tokens {
            #[unroll]
            for i in 0..per_unit {
                let column = part * per_unit + i;
                let value = scores[row * SCORE_STRIDE + column] * Four::new(factor);
                to[start + token * stride + n * (SIDE / VECTOR) + column] =
                    Vector::<F, N>::cast_from(value);
            }
        }
    }
}
