//! The decoder's input: visible tokens back at their places, the mask token everywhere else.
//!
//!   r = ids_restore[b, l]
//!   out[b, 0]     = visible[b, 0] + positions[0]
//!   out[b, 1 + l] = (visible[b, 1 + r] if r < K else mask_token) + positions[1 + l]
//!
//! Source: `ViTMAEDecoder.forward` of transformers 4.57.6.

/// Sizes of an assembly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// B.
    pub batch: usize,
    /// L, all patches.
    pub patches: usize,
    /// K, kept patches.
    pub kept: usize,
    /// E.
    pub width: usize,
}

/// Gradients of [`forward`].
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// `[B, 1+K, E]`.
    pub dvisible: Vec<f64>,
    /// `[E]`.
    pub dmask_token: Vec<f64>,
    /// `[1+L, E]`.
    pub dpositions: Vec<f64>,
}

/// `visible: [B, 1+K, E]`, `mask_token: [E]`, `ids_restore: [B, L]`, `positions: [1+L, E]` →
/// `[B, 1+L, E]`.
pub fn forward(
    visible: &[f64],
    mask_token: &[f64],
    ids_restore: &[u32],
    positions: &[f64],
    shape: Shape,
) -> Vec<f64> {
    let Shape { batch, patches, kept, width } = shape;
    assert_eq!(visible.len(), batch * (1 + kept) * width, "visible");
    assert_eq!(ids_restore.len(), batch * patches, "ids_restore");
    assert_eq!(positions.len(), (1 + patches) * width, "positions");
    let mut out = Vec::with_capacity(batch * (1 + patches) * width);
    for b in 0..batch {
        let token = |row: usize| &visible[(b * (1 + kept) + row) * width..][..width];
        out.extend((0..width).map(|e| token(0)[e] + positions[e]));
        for l in 0..patches {
            let source = ids_restore[b * patches + l] as usize;
            let row = if source < kept { token(1 + source) } else { mask_token };
            out.extend((0..width).map(|e| row[e] + positions[(1 + l) * width + e]));
        }
    }
    out
}

/// Gradients for `dout: [B, 1+L, E]`.
pub fn backward(dout: &[f64], ids_restore: &[u32], shape: Shape) -> Gradients {
    let Shape { batch, patches, kept, width } = shape;
    assert_eq!(dout.len(), batch * (1 + patches) * width, "dout");
    let mut dvisible = vec![0.0; batch * (1 + kept) * width];
    let mut dmask_token = vec![0.0; width];
    let mut dpositions = vec![0.0; (1 + patches) * width];
    for b in 0..batch {
        for row in 0..1 + patches {
            for e in 0..width {
                let g = dout[(b * (1 + patches) + row) * width + e];
                dpositions[row * width + e] += g;
                let source =
                    if row == 0 { 0 } else { 1 + ids_restore[b * patches + row - 1] as usize };
                if source <= kept {
                    dvisible[(b * (1 + kept) + source) * width + e] += g;
                } else {
                    dmask_token[e] += g;
                }
            }
        }
    }
    Gradients { dvisible, dmask_token, dpositions }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;
    use crate::gradient_check::{assert_gradient, dot};

    #[test]
    fn one_image_by_hand() {
        // Kept patches 1 and 3 of four, in that order: the example of masking.rs.
        let shape = Shape { batch: 1, patches: 4, kept: 2, width: 1 };
        let positions = [0.1, 0.2, 0.3, 0.4, 0.5];
        let out = forward(&[7., 11., 13.], &[90.], &[2, 0, 3, 1], &positions, shape);
        assert_eq!(out, [7.1, 90.2, 11.3, 90.4, 13.5]);
    }

    #[test]
    fn backward_is_the_gradient_of_forward() {
        let mut draws = Draws::new(12);
        for _ in 0..20 {
            let patches = draws.integer(1..=5);
            let shape = Shape {
                batch: draws.integer(1..=3),
                patches,
                kept: draws.integer(0..=patches),
                width: draws.integer(1..=3),
            };
            let ids: Vec<u32> = (0..shape.batch)
                .flat_map(|_| draws.permutation(patches))
                .map(|id| id as u32)
                .collect();
            let visible = draws.vec(shape.batch * (1 + shape.kept) * shape.width);
            let mask_token = draws.vec(shape.width);
            let positions = draws.vec((1 + patches) * shape.width);
            let dout = draws.vec(shape.batch * (1 + patches) * shape.width);
            let f = |v: &[f64], m: &[f64], p: &[f64]| dot(&forward(v, m, &ids, p, shape), &dout);
            let g = backward(&dout, &ids, shape);
            assert_gradient("dvisible", |v| f(v, &mask_token, &positions), &visible, &g.dvisible);
            assert_gradient("dmask", |m| f(&visible, m, &positions), &mask_token, &g.dmask_token);
            assert_gradient("dpos", |p| f(&visible, &mask_token, p), &positions, &g.dpositions);
        }
    }
}
