//! Where the rows of a head lie, and the noise of its dropout.

use cubecl::prelude::*;

use super::tiles::Four;
use crate::Dropout;
use crate::random::philox4x32;

/// The head of a cube and its tile of rows. Offsets are in vectors.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Head {
    /// Whether the cube has anything to do.
    pub(super) live: bool,
    /// First row of the tile.
    pub(super) first: usize,
    batch: usize,
    head: usize,
    tokens: usize,
    heads: usize,
    /// Vectors of a row of the head.
    #[cube(comptime)]
    vectors: usize,
}

#[cube]
impl Head {
    /// Cubes are numbered by image, head and tile of `rows` rows, the last one fastest.
    pub(super) fn of_cube(
        batch: usize,
        tokens: usize,
        heads: usize,
        #[comptime] rows: usize,
        #[comptime] vectors: usize,
    ) -> Head {
        let per_head = tokens.div_ceil(rows.runtime());
        let index = CUBE_POS / per_head;
        Head {
            live: index < batch * heads,
            first: CUBE_POS % per_head * rows,
            batch: index / heads,
            head: index % heads,
            tokens,
            heads,
            vectors,
        }
    }

    /// Where row 0 of q (0), k (1) or v (2) starts in a matrix `[B, N, 3D]`.
    pub(super) fn packed(&self, part: usize) -> usize {
        let start = self.batch * self.tokens * self.packed_stride();
        start + (part * self.heads + self.head) * self.vectors
    }

    /// From one row to the next in a matrix `[B, N, 3D]`.
    pub(super) fn packed_stride(&self) -> usize {
        3 * self.heads * self.vectors
    }

    /// Where row `token` starts in a matrix `[B, N, D]`.
    pub(super) fn output(&self, token: usize) -> usize {
        ((self.batch * self.tokens + token) * self.heads + self.head) * self.vectors
    }

    /// From one row to the next in a matrix `[B, N, D]`.
    pub(super) fn output_stride(&self) -> usize {
        self.heads * self.vectors
    }

    /// Index of row `token` in `[B, A, N]`.
    pub(super) fn row(&self, token: usize) -> usize {
        (self.batch * self.heads + self.head) * self.tokens + token
    }
}

/// What a kernel needs to know of [`Dropout`].
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Noise {
    key0: u32,
    key1: u32,
    threshold: u32,
    scale: f32,
}

impl Noise {
    /// The argument of a launch; without dropout the kernel does not look at it.
    pub(super) fn arg(dropout: Option<&Dropout>) -> NoiseLaunch {
        let dropout = dropout.copied().unwrap_or(Dropout { rate: 0.0, key: [0; 2] });
        NoiseLaunch::new(dropout.key[0], dropout.key[1], dropout.threshold(), dropout.scale())
    }
}

#[cube]
impl Noise {
    /// The scale of the probability in row `row` of `[B, A, N]` at `column`.
    pub(super) fn keep(&self, row: usize, column: usize, tokens: usize) -> f32 {
        let (low, high) = index(row, column, tokens);
        let words = self.words(low >> 2, high, 0u32);
        self.scale_of(pick(low & 3, words.0, words.1, words.2, words.3))
    }

    /// The scales at `column` to `column + 3`, which lie in two draws.
    pub(super) fn keep_four(&self, row: usize, column: usize, tokens: usize) -> Four {
        let (low, high) = index(row, column, tokens);
        let a = self.words(low >> 2, high, 0u32);
        let b = self.words(low >> 2, high, 1u32);
        let at = low & 3;
        let mut scales = Four::empty();
        scales.insert(0usize, self.scale_of(pick(at, a.0, a.1, a.2, a.3)));
        scales.insert(1usize, self.scale_of(pick(at, a.1, a.2, a.3, b.0)));
        scales.insert(2usize, self.scale_of(pick(at, a.2, a.3, b.0, b.1)));
        scales.insert(3usize, self.scale_of(pick(at, a.3, b.0, b.1, b.2)));
        scales
    }

    /// Draw `next` after that of the index whose lower half is 4·`quarter` and whose upper half is `high`.
    fn words(&self, quarter: u32, high: u32, next: u32) -> (u32, u32, u32, u32) {
        let group = quarter | (high << 30);
        let low = group + next;
        let carry = select(low < group, 1u32, 0u32);
        philox4x32(self.key0, self.key1, low, (high >> 2) + carry, 0u32, 2u32)
    }

    fn scale_of(&self, word: u32) -> f32 {
        select(word < self.threshold, 0.0f32, self.scale)
    }
}

/// The index row·N + column in two halves: it may need more than 32 bits.
#[cube]
fn index(row: usize, column: usize, tokens: usize) -> (u32, u32) {
    let product = row as u32 * tokens as u32;
    let low = product + column as u32;
    let carry = select(low < product, 1u32, 0u32);
    (low, u32::mul_hi(row as u32, tokens as u32) + carry)
}

/// Word `i` of four.
#[cube]
fn pick(i: u32, w0: u32, w1: u32, w2: u32, w3: u32) -> u32 {
    let even = select((i & 2) == 0, w0, w2);
    let odd = select((i & 2) == 0, w1, w3);
    select((i & 1) == 0, even, odd)
}
