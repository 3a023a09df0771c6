//! The encoder's input: kept patch tokens with their positions, behind the class token.
//!
//!   out[b, 0]     = cls + positions[0]
//!   out[b, 1 + k] = patches[b, ids_keep[b, k]] + positions[1 + ids_keep[b, k]]
//!
//! Source: `ViTMAEEmbeddings.forward` of transformers 4.57.6, where positions are added to all patches
//! before the removed ones are dropped.

/// Sizes of an assembly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// B.
    pub batch: usize,
    /// L, all patches.
    pub patches: usize,
    /// K, kept patches.
    pub kept: usize,
    /// D.
    pub width: usize,
}

/// Gradients of [`forward`].
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// `[B, L, D]`, 0 for removed patches.
    pub dpatches: Vec<f64>,
    /// `[D]`.
    pub dcls: Vec<f64>,
    /// `[1 + L, D]`.
    pub dpositions: Vec<f64>,
}

/// `patches: [B, L, D]`, `cls: [D]`, `positions: [1+L, D]`, `ids_keep: [B, K]` → `[B, 1+K, D]`.
pub fn forward(
    patches: &[f64],
    cls: &[f64],
    positions: &[f64],
    ids_keep: &[u32],
    shape: Shape,
) -> Vec<f64> {
    let Shape { batch, patches: all, kept, width } = shape;
    assert_eq!(patches.len(), batch * all * width, "patches");
    assert_eq!(positions.len(), (1 + all) * width, "positions");
    let mut out = Vec::with_capacity(batch * (1 + kept) * width);
    for b in 0..batch {
        out.extend((0..width).map(|d| cls[d] + positions[d]));
        for &id in &ids_keep[b * kept..][..kept] {
            let id = id as usize;
            out.extend(
                (0..width)
                    .map(|d| patches[(b * all + id) * width + d] + positions[(1 + id) * width + d]),
            );
        }
    }
    out
}

/// Gradients for `dout: [B, 1+K, D]`.
pub fn backward(dout: &[f64], ids_keep: &[u32], shape: Shape) -> Gradients {
    let Shape { batch, patches: all, kept, width } = shape;
    assert_eq!(dout.len(), batch * (1 + kept) * width, "dout");
    let mut dpatches = vec![0.0; batch * all * width];
    let mut dcls = vec![0.0; width];
    let mut dpositions = vec![0.0; (1 + all) * width];
    for b in 0..batch {
        for d in 0..width {
            let dcls_token = dout[b * (1 + kept) * width + d];
            dcls[d] += dcls_token;
            dpositions[d] += dcls_token;
            for k in 0..kept {
                let id = ids_keep[b * kept + k] as usize;
                let dtoken = dout[(b * (1 + kept) + 1 + k) * width + d];
                dpatches[(b * all + id) * width + d] += dtoken;
                dpositions[(1 + id) * width + d] += dtoken;
            }
        }
    }
    Gradients { dpatches, dcls, dpositions }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::Draws;
    use crate::gradient_check::{assert_gradient, dot};

    #[test]
    fn one_image_by_hand() {
        let shape = Shape { batch: 1, patches: 3, kept: 2, width: 1 };
        let out = forward(&[1., 2., 3.], &[100.], &[10., 20., 30., 40.], &[2, 0], shape);
        assert_eq!(out, [110., 43., 21.]);
    }

    #[test]
    fn backward_is_the_gradient_of_forward() {
        let mut draws = Draws::new(11);
        for _ in 0..20 {
            let patches = draws.integer(1..=5);
            let shape = Shape {
                batch: draws.integer(1..=3),
                patches,
                kept: draws.integer(0..=patches),
                width: draws.integer(1..=3),
            };
            let ids: Vec<u32> = (0..shape.batch)
                .flat_map(|_| draws.permutation(patches)[..shape.kept].to_vec())
                .map(|id| id as u32)
                .collect();
            let x = draws.vec(shape.batch * patches * shape.width);
            let (cls, positions) = (draws.vec(shape.width), draws.vec((1 + patches) * shape.width));
            let dout = draws.vec(shape.batch * (1 + shape.kept) * shape.width);
            let f = |x: &[f64], c: &[f64], p: &[f64]| dot(&forward(x, c, p, &ids, shape), &dout);
            let g = backward(&dout, &ids, shape);
            assert_gradient("dpatches", |x| f(x, &cls, &positions), &x, &g.dpatches);
            assert_gradient("dcls", |c| f(&x, c, &positions), &cls, &g.dcls);
            assert_gradient("dpositions", |p| f(&x, &cls, p), &positions, &g.dpositions);
        }
    }
}
