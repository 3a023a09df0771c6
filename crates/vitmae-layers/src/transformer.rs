//! A stack of blocks and the norm behind it: the body of the encoder and of the decoder.

use vitmae_tensor::ops::Activation;
use vitmae_tensor::{Indices, Tensor};

use crate::attention::chosen;
use crate::{
    Attention, Block, BlockCache, BlockDropout, GradientsDone, LayerError, LayerNorm,
    LayerNormCache, Linear, MakeParam, Mlp, Param,
};

/// Blocks in order, then a norm.
#[derive(Clone, Debug)]
pub struct Transformer {
    /// The blocks.
    pub blocks: Vec<Block>,
    /// Behind the last block, unless what follows has a norm of its own.
    pub norm: Option<LayerNorm>,
    name: String,
}

/// Sizes of a [`Transformer`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// Number of blocks, at least 1.
    pub layers: usize,
    /// D
    pub width: usize,
    /// A
    pub heads: usize,
    /// Width inside the perceptron.
    pub inner: usize,
    /// Of the perceptron.
    pub activation: Activation,
    /// Whether query, key and value have a bias.
    pub qkv_bias: bool,
    /// Of every norm.
    pub eps: f32,
    /// Whether a norm follows the last block.
    pub norm: bool,
}

/// What [`Transformer::backward`] needs from the forward pass.
#[derive(Debug)]
pub struct TransformerCache {
    blocks: Vec<Kept>,
    rows: Option<Indices>,
    norm: Option<LayerNormCache>,
}

/// What is kept of a block.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one a block")]
enum Kept {
    /// All that its backward pass needs.
    Cache(BlockCache),
    /// Its input, from which the rest is computed again.
    Input(Tensor, BlockDropout),
}

/// What can be seen inside a stack.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Input of the first block, then the output of each block, before the norm: `[B, N, D]` each.
    pub hidden_states: Option<Vec<Tensor>>,
    /// Attention probabilities of each block, `[B, A, N, N]`.
    pub attentions: Option<Vec<Tensor>>,
}

impl Transformer {
    /// A stack whose parameters are called `name.blocks.0.norm1.weight` and so on, made by `param`
    /// from name and shape, in order.
    ///
    /// # Errors
    /// The first error of `param`.
    ///
    /// # Panics
    /// If there is no block.
    pub fn build<E>(name: &str, sizes: Sizes, param: &mut MakeParam<'_, E>) -> Result<Self, E> {
        assert!(sizes.layers > 0, "transformer {name}: no block");
        let Sizes { width: d, inner, heads, activation, qkv_bias, eps, .. } = sizes;
        let mut blocks = Vec::with_capacity(sizes.layers);
        for index in 0..sizes.layers {
            let at = |part: &str| format!("{name}.blocks.{index}.{part}");
            let norm1 = LayerNorm::build(&at("norm1"), d, eps, param)?;
            let qkv = Linear::build(&at("attention.qkv"), &[3 * d, d], qkv_bias, param)?;
            let projection = Linear::build(&at("attention.projection"), &[d, d], true, param)?;
            let norm2 = LayerNorm::build(&at("norm2"), d, eps, param)?;
            let fc1 = Linear::build(&at("mlp.fc1"), &[inner, d], true, param)?;
            let fc2 = Linear::build(&at("mlp.fc2"), &[d, inner], true, param)?;
            blocks.push(Block {
                norm1,
                attention: Attention { qkv, projection, heads },
                norm2,
                mlp: Mlp { fc1, fc2, activation },
            });
        }
        let norm = sizes.norm.then(|| LayerNorm::build(&format!("{name}.norm"), d, eps, param));
        let norm = norm.transpose()?;
        Ok(Self { blocks, norm, name: name.to_owned() })
    }

    /// `[B, N, D]` → the same, or `[B, K, D]` for `rows: [B, K]`, and what is asked for on the way; keeps nothing for a
    /// backward pass.
    ///
    /// # Errors
    /// [`LayerError`] if the width of `x` is not `D`, or if `rows` names a token that there is not.
    pub fn infer(
        &self,
        mut x: Tensor,
        rows: Option<&Indices>,
        hidden_states: bool,
        attentions: bool,
    ) -> Result<(Tensor, Trace), LayerError> {
        let mut trace = Trace {
            hidden_states: hidden_states.then(|| vec![x.clone()]),
            attentions: attentions.then(Vec::new),
        };
        for (index, block) in self.blocks.iter().enumerate() {
            let name = self.block_name(index);
            let at = |source| LayerError { layer: name.clone(), source };
            // Whoever looks inside sees every token.
            let rows = if hidden_states { None } else { self.rows_of(index, rows) };
            let (y, attention) = block.infer(x, rows).map_err(at)?;
            if let Some(states) = &mut trace.hidden_states {
                states.push(y.clone());
            }
            if let Some(attentions) = &mut trace.attentions {
                attentions.push(attention.probabilities().map_err(at)?);
            }
            x = y;
        }
        if hidden_states {
            x = chosen(&x, rows).map_err(LayerError::at(&self.name))?;
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(x).map_err(LayerError::at(&self.norm_name()))?.0;
        }
        Ok((x, trace))
    }

    /// `[B, N, D]` → the same, or `[B, K, D]` for `rows: [B, K]`, with the dropout of each block by its index. With
    /// `recompute` a block keeps its input alone, D values a token instead of 10·D, and runs forward again in the
    /// backward pass.
    ///
    /// # Errors
    /// As [`infer`](Self::infer).
    pub fn forward(
        &self,
        mut x: Tensor,
        rows: Option<&Indices>,
        dropout: impl Fn(usize) -> BlockDropout,
        recompute: bool,
    ) -> Result<(Tensor, TransformerCache), LayerError> {
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for (index, block) in self.blocks.iter().enumerate() {
            let name = self.block_name(index);
            let dropout = dropout(index);
            let input = recompute.then(|| x.clone());
            let (y, cache) = block
                .forward(x, self.rows_of(index, rows), &dropout)
                .map_err(LayerError::at(&name))?;
            blocks.push(match input {
                Some(input) => Kept::Input(input, dropout),
                None => Kept::Cache(cache),
            });
            x = y;
        }
        let mut cache = TransformerCache { blocks, rows: rows.cloned(), norm: None };
        if let Some(norm) = &self.norm {
            let (y, kept) = norm.forward(x).map_err(LayerError::at(&self.norm_name()))?;
            cache.norm = Some(kept);
            x = y;
        }
        Ok((x, cache))
    }

    /// Returns `dx` and adds to the gradients; tells `done` of each block behind its pass.
    ///
    /// # Errors
    /// [`LayerError`] if `dy` has not the shape of the output, and those of `done`.
    pub fn backward(
        &mut self,
        cache: TransformerCache,
        dy: Tensor,
        done: &mut GradientsDone<'_>,
    ) -> Result<Tensor, LayerError> {
        let norm_name = self.norm_name();
        let mut dx = match (&mut self.norm, cache.norm) {
            (Some(norm), Some(cache)) => {
                norm.backward(cache, &dy, None).map_err(LayerError::at(&norm_name))?
            }
            _ => dy.clone(),
        };
        drop(dy);
        let last = self.blocks.len().saturating_sub(1);
        let names: Vec<String> = (0..self.blocks.len()).map(|i| self.block_name(i)).collect();
        let blocks = self.blocks.iter_mut().zip(cache.blocks).zip(&names).enumerate();
        for (index, ((block, kept), name)) in blocks.rev() {
            let cache = match kept {
                Kept::Cache(cache) => cache,
                Kept::Input(x, dropout) => {
                    let rows = cache.rows.as_ref().filter(|_| index == last);
                    block.forward(x, rows, &dropout).map_err(LayerError::at(name))?.1
                }
            };
            dx = block.backward(cache, dx).map_err(LayerError::at(name))?;
            done(&block.parameters()).map_err(LayerError::at(name))?;
        }
        Ok(dx)
    }

    /// Parameters of every block in order, then of the norm.
    pub fn parameters(&self) -> Vec<&Param> {
        let blocks = self.blocks.iter().flat_map(Block::parameters);
        blocks.chain(self.norm.iter().flat_map(LayerNorm::parameters)).collect()
    }

    /// As [`parameters`](Self::parameters), to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Param> {
        let blocks = self.blocks.iter_mut().flat_map(Block::parameters_mut);
        blocks.chain(self.norm.iter_mut().flat_map(LayerNorm::parameters_mut)).collect()
    }

    /// Every linear layer.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.blocks.iter_mut().flat_map(|block| {
            let Attention { qkv, projection, .. } = &mut block.attention;
            [qkv, projection, &mut block.mlp.fc1, &mut block.mlp.fc2]
        })
    }

    /// Rows of the stack's output are those of its last block.
    fn rows_of<'a>(&self, index: usize, rows: Option<&'a Indices>) -> Option<&'a Indices> {
        rows.filter(|_| index + 1 == self.blocks.len())
    }

    fn block_name(&self, index: usize) -> String {
        format!("{}.blocks.{index}", self.name)
    }

    fn norm_name(&self) -> String {
        format!("{}.norm", self.name)
    }
}
