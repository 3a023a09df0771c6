//! Linear map over the last axis, with the epilogues that kernels fuse into it.
//!
//!   pre = x · weightᵀ + bias          y = act(pre) + residual
//!
//! Source: `torch.nn.functional.linear`.

use super::activation::Activation;

/// Sizes of a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// N, rows of `x`.
    pub rows: usize,
    /// Width of a row of `x`.
    pub inputs: usize,
    /// Width of a row of `y`.
    pub outputs: usize,
}

/// What follows the product.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// `[outputs]`, added to each row.
    pub bias: Option<&'a [f64]>,
    /// Applied after the bias.
    pub activation: Option<Activation>,
    /// `[N, outputs]`, added last.
    pub residual: Option<&'a [f64]>,
}

/// Result of [`forward`].
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// `[N, outputs]`, before the activation.
    pub pre: Vec<f64>,
    /// `[N, outputs]`.
    pub y: Vec<f64>,
}

/// Gradients of [`forward`]; that of the residual is `dy` itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// `[N, inputs]`.
    pub dx: Vec<f64>,
    /// `[outputs, inputs]`.
    pub dweight: Vec<f64>,
    /// `[outputs]`.
    pub dbias: Vec<f64>,
}

/// `y = act(x · weightᵀ + bias) + residual`.
///
/// # Shapes
/// `x: [N, inputs]`, `weight: [outputs, inputs]` → `pre, y: [N, outputs]`
pub fn forward(x: &[f64], weight: &[f64], epilogue: Epilogue<'_>, shape: Shape) -> Forward {
    let Shape { rows, inputs, outputs } = shape;
    assert_eq!(x.len(), rows * inputs, "x");
    assert_eq!(weight.len(), outputs * inputs, "weight");
    let mut pre = vec![0.0; rows * outputs];
    let mut y = vec![0.0; rows * outputs];
    for n in 0..rows {
        for o in 0..outputs {
            let mut sum = epilogue.bias.map_or(0.0, |bias| bias[o]);
            for i in 0..inputs {
                sum += x[n * inputs + i] * weight[o * inputs + i];
            }
            let at = n * outputs + o;
            pre[at] = sum;
            y[at] = epilogue.activation.map_or(sum, |act| act.forward(sum))
                + epilogue.residual.map_or(0.0, |residual| residual[at]);
        }
    }
    Forward { pre, y }
}

/// Gradients for `dy: [N, outputs]`; `pre` is needed with an activation only.
///
///   dpre = dy ⊙ act′(pre)    dx = dpre · weight    dweight = dpreᵀ · x    dbias = Σ_rows dpre
pub fn backward(
    dy: &[f64],
    x: &[f64],
    weight: &[f64],
    activated: Option<(Activation, &[f64])>,
    shape: Shape,
) -> Gradients {
    let Shape { rows, inputs, outputs } = shape;
    assert_eq!(dy.len(), rows * outputs, "dy");
    let mut dx = vec![0.0; rows * inputs];
    let mut dweight = vec![0.0; outputs * inputs];
    let mut dbias = vec![0.0; outputs];
    for n in 0..rows {
        for o in 0..outputs {
            let at = n * outputs + o;
            let dpre = dy[at] * activated.map_or(1.0, |(act, pre)| act.derivative(pre[at]));
            dbias[o] += dpre;
            for i in 0..inputs {
                dx[n * inputs + i] += dpre * weight[o * inputs + i];
                dweight[o * inputs + i] += dpre * x[n * inputs + i];
            }
        }
    }
    Gradients { dx, dweight, dbias }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::{Tolerance, assert_close};
    use crate::draws::Draws;
    use crate::gradient_check::{assert_gradient, dot};

    #[test]
    fn forward_equals_a_product_done_by_hand() {
        let shape = Shape { rows: 2, inputs: 3, outputs: 2 };
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let weight = [1.0, 0.0, -1.0, 2.0, 1.0, 0.5];
        let epilogue = Epilogue { bias: Some(&[10.0, 20.0]), ..Epilogue::default() };
        let out = forward(&x, &weight, epilogue, shape);
        assert_close("y", &out.y, &[8.0, 25.5, 8.0, 36.0], Tolerance::EXACT);
        let relu = Epilogue {
            bias: Some(&[-9.0, 0.0]),
            activation: Some(Activation::Relu),
            residual: Some(&[0.5, 0.5, 0.0, 0.0]),
        };
        let out = forward(&x, &weight, relu, shape);
        assert_close("pre", &out.pre, &[-11.0, 5.5, -11.0, 16.0], Tolerance::EXACT);
        assert_close("fused", &out.y, &[0.5, 6.0, 0.0, 16.0], Tolerance::EXACT);
    }

    #[test]
    fn backward_is_the_gradient_of_forward() {
        let mut draws = Draws::new(1);
        for round in 0..24 {
            let shape = Shape {
                rows: draws.integer(1..=4),
                inputs: draws.integer(1..=5),
                outputs: draws.integer(1..=5),
            };
            let Shape { rows, inputs, outputs } = shape;
            let (x, weight) = (draws.vec(rows * inputs), draws.vec(outputs * inputs));
            let (bias, dy) = (draws.vec(outputs), draws.vec(rows * outputs));
            let residual = draws.vec(rows * outputs);
            let activation = (round % 3 > 0).then_some(Activation::Gelu);
            let objective = |x: &[f64], weight: &[f64], bias: &[f64], residual: &[f64]| {
                let epilogue = Epilogue { bias: Some(bias), activation, residual: Some(residual) };
                dot(&forward(x, weight, epilogue, shape).y, &dy)
            };
            let epilogue = Epilogue { bias: Some(&bias), activation, residual: Some(&residual) };
            let pre = forward(&x, &weight, epilogue, shape).pre;
            let activated = activation.map(|act| (act, pre.as_slice()));
            let g = backward(&dy, &x, &weight, activated, shape);
            assert_gradient("dx", |x| objective(x, &weight, &bias, &residual), &x, &g.dx);
            assert_gradient("dw", |w| objective(&x, w, &bias, &residual), &weight, &g.dweight);
            assert_gradient("db", |b| objective(&x, &weight, b, &residual), &bias, &g.dbias);
            assert_gradient("dr", |r| objective(&x, &weight, &bias, r), &residual, &dy);
        }
    }
}
