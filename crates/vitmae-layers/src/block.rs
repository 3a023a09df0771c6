//! One pre-norm transformer block.

use vitmae_tensor::{Indices, Tensor, TensorError, ops};

use crate::attention::chosen;
use crate::{
    Attention, AttentionCache, BlockDropout, LayerNorm, LayerNormCache, Mlp, MlpCache, Param,
};

/// `a = x + attention(norm1(x))`, `y = a + mlp(norm2(a))`.
///
/// Source: arXiv:2010.11929, section 3.1; `ViTMAELayer` of transformers 4.57.6.
#[derive(Clone, Debug)]
pub struct Block {
    /// Before the attention.
    pub norm1: LayerNorm,
    /// The attention.
    pub attention: Attention,
    /// Before the perceptron.
    pub norm2: LayerNorm,
    /// The perceptron.
    pub mlp: Mlp,
}

/// What [`Block::backward`] needs from the forward pass: of each token the inputs of both norms, q|k|v, the
/// attention's output and the argument of the activation, 10·D values where the perceptron is 4·D wide.
#[derive(Clone, Debug)]
pub struct BlockCache {
    norm1: LayerNormCache,
    attention: AttentionCache,
    norm2: LayerNormCache,
    mlp: MlpCache,
    rows: Option<Indices>,
}

impl Block {
    /// `[B, N, D]` → the same, or `[B, K, D]` for `rows: [B, K]`: the outputs of these tokens alone, which
    /// attend to all the same. The others' are not computed.
    ///
    /// # Errors
    /// [`TensorError`] if the width of `x` is not `D`, or if `rows` names a token that there is not.
    pub fn forward(
        &self,
        x: Tensor,
        rows: Option<&Indices>,
        dropout: &BlockDropout,
    ) -> Result<(Tensor, BlockCache), TensorError> {
        let (a, normed, [norm1, norm2], attention) = self.attend(x, rows, dropout)?;
        let (y, mlp) = self.mlp.forward(&normed, &a, dropout.mlp)?;
        Ok((y, BlockCache { norm1, attention, norm2, mlp, rows: rows.cloned() }))
    }

    /// The output of [`forward`](Self::forward) without dropout and, for those who ask to see inside, what the attention
    /// keeps; nothing else is kept for a backward pass.
    pub(crate) fn infer(
        &self,
        x: Tensor,
        rows: Option<&Indices>,
    ) -> Result<(Tensor, AttentionCache), TensorError> {
        let (a, normed, _, attention) = self.attend(x, rows, &BlockDropout::default())?;
        Ok((self.mlp.infer(&normed, &a)?, attention))
    }

    /// The first half: `a`, `norm2(a)`, and what is kept of both norms and the attention.
    #[allow(
        clippy::type_complexity,
        reason = "both halves and what they keep, named where it is taken apart"
    )]
    fn attend(
        &self,
        x: Tensor,
        rows: Option<&Indices>,
        dropout: &BlockDropout,
    ) -> Result<(Tensor, Tensor, [LayerNormCache; 2], AttentionCache), TensorError> {
        let residual = chosen(&x, rows)?;
        let (normed, norm1) = self.norm1.forward_for(x, self.attention.qkv.precision)?;
        let (a, normed, attention, norm2) = self.attention.forward(
            &normed,
            &residual,
            rows,
            (&self.norm2, self.mlp.fc1.precision),
            dropout.probabilities,
            dropout.projection,
        )?;
        Ok((a, normed, [norm1, norm2], attention))
    }

    /// Returns `dx` and adds to the gradients.
    ///
    /// # Errors
    /// [`TensorError`] if `dy` has not the shape of the output.
    pub fn backward(&mut self, cache: BlockCache, dy: Tensor) -> Result<Tensor, TensorError> {
        let normed = self.norm2.again(&cache.norm2, self.mlp.fc1.precision)?;
        let dnormed = self.mlp.backward(cache.mlp, &normed, &dy)?;
        let mut da = self.norm2.backward(cache.norm2, &dnormed, Some(&dy))?;
        drop((normed, dnormed, dy));
        let normed = self.norm1.again(&cache.norm1, self.attention.qkv.precision)?;
        let dnormed = self.attention.backward(cache.attention, &normed, &da)?;
        if let Some(rows) = &cache.rows {
            da = ops::gather_backward(&da, rows, normed.shape()[1])?;
        }
        drop(normed);
        self.norm1.backward(cache.norm1, &dnormed, Some(&da))
    }

    /// Parameters of `norm1`, `attention`, `norm2`, `mlp`.
    pub fn parameters(&self) -> Vec<&Param> {
        let mut all = self.norm1.parameters();
        all.extend(self.attention.parameters());
        all.extend(self.norm2.parameters());
        all.extend(self.mlp.parameters());
        all
    }

    /// As [`parameters`](Self::parameters), to be changed.
    pub fn parameters_mut(&mut self) -> Vec<&mut Param> {
        let mut all = self.norm1.parameters_mut();
        all.extend(self.attention.parameters_mut());
        all.extend(self.norm2.parameters_mut());
        all.extend(self.mlp.parameters_mut());
        all
    }
}
