//! The layers as operations of a graph; each mirrors the layer of its name in `vitmae-layers`.

use vitmae_layers::{Attention, Block, LayerNorm, Linear, Mlp, Transformer};
use vitmae_tensor::TensorError;
use vitmae_tensor::ops::Activation;

use crate::graph::{Graph, Value, float, int, ints};

// The reference rounds √½ to these six digits.
#[allow(clippy::approx_constant, reason = "the constant of the reference, not √½")]
const LAPLACE_MU: f32 = 0.707_107;
const LAPLACE_SIGMA: f32 = 0.282_095;

impl Graph {
    /// `[…, in]` → `[…, out]`
    pub(crate) fn linear(&mut self, x: &str, linear: &Linear) -> Result<Value, TensorError> {
        let weight = self.transposed(&linear.weight)?;
        let y = self.op("MatMul", &[x, &weight]);
        let Some(bias) = &linear.bias else { return Ok(y) };
        let bias = self.parameter(bias)?;
        Ok(self.op("Add", &[&y, &bias]))
    }

    /// `[…, D]` → the same
    pub(crate) fn layer_norm(&mut self, x: &str, norm: &LayerNorm) -> Result<Value, TensorError> {
        let (weight, bias) = (self.parameter(&norm.weight)?, self.parameter(&norm.bias)?);
        let attributes = vec![int("axis", -1), float("epsilon", norm.eps)];
        Ok(self.op_with("LayerNormalization", &[x, &weight, &bias], attributes))
    }

    /// `x + y`
    pub(crate) fn add(&mut self, x: &str, y: &str) -> Value {
        self.op("Add", &[x, y])
    }

    /// `factor · x`
    pub(crate) fn scaled(&mut self, x: &str, factor: f32) -> Value {
        let factor = self.scalar(factor);
        self.op("Mul", &[x, &factor])
    }

    /// `x` with the sides `sides`; 0 keeps a side, −1 is what is left.
    pub(crate) fn reshape(&mut self, x: &str, sides: &[i64]) -> Value {
        let sides = self.integers(sides);
        self.op("Reshape", &[x, &sides])
    }

    /// `x` with its sides in another order.
    pub(crate) fn transpose(&mut self, x: &str, order: &[i64]) -> Value {
        self.op_with("Transpose", &[x], vec![ints("perm", order)])
    }

    /// Tokens `range` of `[B, N, …]`.
    pub(crate) fn tokens(&mut self, x: &str, range: std::ops::Range<usize>) -> Value {
        let bounds = [range.start, range.end].map(|bound| self.integers(&[bound as i64]));
        let axis = self.integers(&[1]);
        self.op("Slice", &[x, &bounds[0], &bounds[1], &axis])
    }

    /// `x` and then `y` along the tokens.
    pub(crate) fn concat(&mut self, x: &str, y: &str) -> Value {
        self.op_with("Concat", &[x, y], vec![int("axis", 1)])
    }

    /// `[1, N, D]` once for each image of `like: [B, …]`.
    pub(crate) fn for_each_image(&mut self, x: &str, sides: [usize; 2], like: &str) -> Value {
        let shape = self.op("Shape", &[like]);
        let bounds = [0, 1].map(|bound| self.integers(&[bound]));
        let batch = self.op("Slice", &[&shape, &bounds[0], &bounds[1]]);
        let rest = self.integers(&sides.map(|side| side as i64));
        let shape = self.op_with("Concat", &[&batch, &rest], vec![int("axis", 0)]);
        self.op("Expand", &[x, &shape])
    }

    /// Rows `ids: [B, K]` of each image of `x: [B, N, D]`.
    pub(crate) fn gather(&mut self, x: &str, ids: &str) -> Value {
        let axis = self.integers(&[2]);
        let ids = self.op("Unsqueeze", &[ids, &axis]);
        self.op_with("GatherND", &[x, &ids], vec![int("batch_dims", 1)])
    }

    /// The order that sorts each row of `x: [B, N]`, equal values as they stand.
    pub(crate) fn argsort(&mut self, x: &str, count: usize) -> Value {
        let count = self.integers(&[count as i64]);
        let attributes = vec![int("axis", -1), int("largest", 0), int("sorted", 1)];
        let [_, order] = self.op_many("TopK", &[x, &count], attributes);
        order
    }

    /// Blocks and norm, `[B, N, D]` → the same.
    pub(crate) fn transformer(
        &mut self,
        mut x: Value,
        transformer: &Transformer,
    ) -> Result<Value, TensorError> {
        for block in &transformer.blocks {
            x = self.block(&x, block)?;
        }
        match &transformer.norm {
            Some(norm) => self.layer_norm(&x, norm),
            None => Ok(x),
        }
    }

    fn block(&mut self, x: &str, block: &Block) -> Result<Value, TensorError> {
        let normed = self.layer_norm(x, &block.norm1)?;
        let attended = self.attention(&normed, &block.attention)?;
        let a = self.add(x, &attended);
        let normed = self.layer_norm(&a, &block.norm2)?;
        let hidden = self.mlp(&normed, &block.mlp)?;
        Ok(self.add(&a, &hidden))
    }

    fn attention(&mut self, x: &str, attention: &Attention) -> Result<Value, TensorError> {
        let width = attention.projection.weight.value.shape()[0];
        let (heads, head_dim) = (attention.heads as i64, width / attention.heads);
        let qkv = self.linear(x, &attention.qkv)?; // [B, N, 3·D]
        let parts = self.integers(&[width as i64; 3]);
        let parts = self.op_many::<3>("Split", &[&qkv, &parts], vec![int("axis", -1)]);
        let [q, k, v] = parts.map(|part| self.reshape(&part, &[0, 0, heads, head_dim as i64]));
        let q = self.transpose(&q, &[0, 2, 1, 3]); // [B, A, N, D/A]
        let k = self.transpose(&k, &[0, 2, 3, 1]);
        let v = self.transpose(&v, &[0, 2, 1, 3]);
        let scores = self.op("MatMul", &[&q, &k]);
        let scores = self.scaled(&scores, 1.0 / (head_dim as f32).sqrt());
        let p = self.op_with("Softmax", &[&scores], vec![int("axis", -1)]);
        let mixed = self.op("MatMul", &[&p, &v]);
        let mixed = self.transpose(&mixed, &[0, 2, 1, 3]);
        let mixed = self.reshape(&mixed, &[0, 0, width as i64]);
        self.linear(&mixed, &attention.projection)
    }

    fn mlp(&mut self, x: &str, mlp: &Mlp) -> Result<Value, TensorError> {
        let pre = self.linear(x, &mlp.fc1)?;
        let hidden = self.activation(&pre, mlp.activation);
        self.linear(&hidden, &mlp.fc2)
    }

    /// The formulas of `vitmae_cpu::activation`.
    fn activation(&mut self, x: &str, activation: Activation) -> Value {
        match activation {
            Activation::Gelu => self.gelu(x),
            Activation::Gelu10 => {
                let y = self.gelu(x);
                self.clipped(&y, -10.0, 10.0)
            }
            Activation::GeluTanh => {
                let square = self.op("Mul", &[x, x]);
                let cube = self.op("Mul", &[&square, x]);
                let cube = self.scaled(&cube, 0.044_715);
                let inner = self.add(x, &cube);
                let inner = self.scaled(&inner, (2.0 / std::f32::consts::PI).sqrt());
                let tanh = self.op("Tanh", &[&inner]);
                self.half_of_one_more(x, &tanh)
            }
            Activation::QuickGelu => {
                let inner = self.scaled(x, 1.702);
                let gate = self.op("Sigmoid", &[&inner]);
                self.op("Mul", &[x, &gate])
            }
            Activation::Laplace => {
                let mean = self.scalar(LAPLACE_MU);
                let inner = self.op("Sub", &[x, &mean]);
                let inner = self.scaled(&inner, 1.0 / (LAPLACE_SIGMA * std::f32::consts::SQRT_2));
                let erf = self.op("Erf", &[&inner]);
                let one = self.scalar(1.0);
                let sum = self.add(&erf, &one);
                self.scaled(&sum, 0.5)
            }
            Activation::LeakyRelu => self.op_with("LeakyRelu", &[x], vec![float("alpha", 0.01)]),
            Activation::Linear => x.to_owned(),
            Activation::Mish => {
                let softplus = self.op("Softplus", &[x]);
                let tanh = self.op("Tanh", &[&softplus]);
                self.op("Mul", &[x, &tanh])
            }
            Activation::Relu => self.op("Relu", &[x]),
            Activation::Relu2 => {
                let y = self.op("Relu", &[x]);
                self.op("Mul", &[&y, &y])
            }
            Activation::Relu6 => self.clipped(x, 0.0, 6.0),
            Activation::Selu => self.op("Selu", &[x]),
            Activation::Elu => self.op("Elu", &[x]),
            Activation::Sigmoid => self.op("Sigmoid", &[x]),
            Activation::Silu => {
                let gate = self.op("Sigmoid", &[x]);
                self.op("Mul", &[x, &gate])
            }
            Activation::Tanh => self.op("Tanh", &[x]),
        }
    }

    /// `x·Φ(x)`; the operation of this name came with opset 20.
    fn gelu(&mut self, x: &str) -> Value {
        let inner = self.scaled(x, std::f32::consts::FRAC_1_SQRT_2);
        let erf = self.op("Erf", &[&inner]);
        self.half_of_one_more(x, &erf)
    }

    /// `½·x·(1 + y)`
    fn half_of_one_more(&mut self, x: &str, y: &str) -> Value {
        let one = self.scalar(1.0);
        let sum = self.add(y, &one);
        let product = self.op("Mul", &[x, &sum]);
        self.scaled(&product, 0.5)
    }

    fn clipped(&mut self, x: &str, low: f32, high: f32) -> Value {
        let (low, high) = (self.scalar(low), self.scalar(high));
        self.op("Clip", &[x, &low, &high])
    }
}
