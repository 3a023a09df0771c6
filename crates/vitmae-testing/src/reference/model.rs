//! The whole masked autoencoder and the classifier, forward in f64, composed of the references.
//!
//! There is no backward here: central differences of [`pretraining`] judge the product's gradients.
//! Parameters are named as inside the product (`vit.blocks.0.attention.qkv.weight`, …).
//!
//! Source: `ViTMAEForPreTraining` and `ViTForImageClassification` of transformers 4.57.6.

use std::collections::BTreeMap;

use super::activation::Activation;
use super::linear::{self, Epilogue};
use super::loss::{self, Distance, Target};
use super::masking::Masking;
use super::{attention, decoder_assembly, encoder_assembly, layer_norm, patches, reduce};

/// Sizes of one stack of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stack {
    /// D or E.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// A.
    pub heads: usize,
    /// Width inside the MLP.
    pub intermediate: usize,
}

/// Everything about a model but its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// The images; `batch` is the number given to [`pretraining`].
    pub images: patches::Shape,
    /// The encoder.
    pub encoder: Stack,
    /// The decoder.
    pub decoder: Stack,
    /// Inside each MLP.
    pub activation: Activation,
    /// Whether the qkv projections have a bias.
    pub qkv_bias: bool,
    /// Of every layer norm.
    pub layer_norm_eps: f64,
    /// What the prediction is compared with.
    pub target: Target,
    /// How.
    pub distance: Distance,
}

/// Values by name.
pub type Parameters = BTreeMap<String, Vec<f64>>;

/// Result of [`encode`].
#[derive(Debug, Clone)]
pub struct Encoded {
    /// `[B, 1+K, D]`.
    pub last_hidden_state: Vec<f64>,
    /// The input of block 0, then the output of each block, before the last norm.
    pub hidden_states: Vec<Vec<f64>>,
    /// `[B, A, 1+K, 1+K]` of each block.
    pub attentions: Vec<Vec<f64>>,
}

/// Result of [`pretraining`].
#[derive(Debug, Clone)]
pub struct Output {
    /// The masked mean squared error.
    pub loss: f64,
    /// `[B, L, PH·PW·C]`.
    pub logits: Vec<f64>,
    /// What the encoder gave.
    pub encoder: Encoded,
    /// As [`Encoded::hidden_states`], of the decoder, `[B, 1+L, E]`.
    pub decoder_hidden_states: Vec<Vec<f64>>,
    /// As [`Encoded::attentions`], of the decoder.
    pub decoder_attentions: Vec<Vec<f64>>,
}

/// Name and shape of every parameter of the pre-training model, in the product's order.
pub fn parameter_shapes(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (d, e) = (config.encoder.width, config.decoder.width);
    let (images, patch_dim) = (config.images, config.images.patch_dim());
    let positions = images.num_patches() + 1;
    let kernel = vec![d, images.channels, images.patch_height, images.patch_width];
    let mut shapes = vec![
        ("vit.cls_token".to_owned(), vec![1, 1, d]),
        ("vit.position_embeddings".to_owned(), vec![1, positions, d]),
        ("vit.patch_embedding.weight".to_owned(), kernel),
        ("vit.patch_embedding.bias".to_owned(), vec![d]),
    ];
    push_blocks(&mut shapes, "vit", config.encoder, config.qkv_bias);
    push_affine(&mut shapes, "vit.norm", vec![d]);
    push_affine(&mut shapes, "decoder.embed", vec![e, d]);
    shapes.push(("decoder.mask_token".to_owned(), vec![1, 1, e]));
    shapes.push(("decoder.position_embeddings".to_owned(), vec![1, positions, e]));
    push_blocks(&mut shapes, "decoder", config.decoder, config.qkv_bias);
    push_affine(&mut shapes, "decoder.norm", vec![e]);
    push_affine(&mut shapes, "decoder.prediction", vec![patch_dim, e]);
    shapes
}

/// Embeds, masks and encodes `pixels: [B, C, H, W]`.
pub fn encode(config: &Config, p: &Parameters, pixels: &[f64], masking: &Masking) -> Encoded {
    let images = patches::Shape { batch: masking.batch, ..config.images };
    let tokens = patches::patch_embedding(
        pixels,
        &p["vit.patch_embedding.weight"],
        &p["vit.patch_embedding.bias"],
        images,
    );
    let shape = encoder_assembly::Shape {
        batch: masking.batch,
        patches: images.num_patches(),
        kept: masking.len_keep,
        width: config.encoder.width,
    };
    let x = encoder_assembly::forward(
        &tokens,
        &p["vit.cls_token"],
        &p["vit.position_embeddings"],
        &masking.ids_keep,
        shape,
    );
    let (hidden_states, attentions) =
        blocks(config, p, "vit", config.encoder, x, masking.batch, 1 + masking.len_keep);
    let last = &hidden_states[config.encoder.layers];
    let last_hidden_state = normalise(config, p, "vit.norm", last);
    Encoded { last_hidden_state, hidden_states, attentions }
}

/// The masked autoencoder on `pixels: [B, C, H, W]`.
pub fn pretraining(config: &Config, p: &Parameters, pixels: &[f64], masking: &Masking) -> Output {
    let images = patches::Shape { batch: masking.batch, ..config.images };
    let encoder = encode(config, p, pixels, masking);
    let visible = affine(p, "decoder.embed", &encoder.last_hidden_state, None);
    let shape = decoder_assembly::Shape {
        batch: masking.batch,
        patches: images.num_patches(),
        kept: masking.len_keep,
        width: config.decoder.width,
    };
    let x = decoder_assembly::forward(
        &visible,
        &p["decoder.mask_token"],
        &masking.ids_restore,
        &p["decoder.position_embeddings"],
        shape,
    );
    let tokens = 1 + images.num_patches();
    let (decoder_hidden_states, decoder_attentions) =
        blocks(config, p, "decoder", config.decoder, x, masking.batch, tokens);
    let last = &decoder_hidden_states[config.decoder.layers];
    let predicted =
        affine(p, "decoder.prediction", &normalise(config, p, "decoder.norm", last), None);
    // Every image's first row belongs to the class token and is dropped.
    let logits: Vec<f64> = predicted
        .chunks(tokens * images.patch_dim())
        .flat_map(|image| image[images.patch_dim()..].to_vec())
        .collect();
    let patches = patches::patchify(pixels, images);
    let loss = loss::forward(&logits, &patches, &masking.mask, (config.target, config.distance));
    Output { loss, logits, encoder, decoder_hidden_states, decoder_attentions }
}

/// How a classifier reads the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Final norm, class token, `classifier`: Hugging Face's class.
    Cls,
    /// Mean of the patch tokens without the final norm, `fc_norm`, `classifier`: the original's.
    MeanFcNorm,
}

/// Class scores `[B, classes]` of `pixels: [B, C, H, W]`, nothing masked.
pub fn classify(
    config: &Config,
    p: &Parameters,
    pixels: &[f64],
    batch: usize,
    head: Head,
) -> Vec<f64> {
    let num_patches = config.images.num_patches();
    let all: Vec<u32> = (0..batch).flat_map(|_| 0..num_patches as u32).collect();
    let masking = Masking {
        batch,
        num_patches,
        len_keep: num_patches,
        ids_keep: all.clone(),
        ids_restore: all,
        mask: vec![0.0; batch * num_patches],
    };
    let encoded = encode(config, p, pixels, &masking);
    let (tokens, width) = (1 + num_patches, config.encoder.width);
    let features = match head {
        Head::Cls => {
            let images = encoded.last_hidden_state.chunks(tokens * width);
            images.flat_map(|image| image[..width].to_vec()).collect()
        }
        Head::MeanFcNorm => {
            let last = &encoded.hidden_states[config.encoder.layers];
            normalise(config, p, "fc_norm", &reduce::mean_tokens(last, tokens, width, 1))
        }
    };
    affine(p, "classifier", &features, None)
}

/// All pre-norm blocks of one stack: the hidden states around them, and their probabilities.
fn blocks(
    config: &Config,
    p: &Parameters,
    stack_name: &str,
    stack: Stack,
    x: Vec<f64>,
    batch: usize,
    tokens: usize,
) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let Stack { width, heads, .. } = stack;
    let shape = attention::Shape { batch, tokens, heads, head_dim: width / heads };
    let (mut hidden_states, mut attentions) = (vec![x], Vec::new());
    for i in 0..stack.layers {
        let at = |part: &str| format!("{stack_name}.blocks.{i}.{part}");
        let x = &hidden_states[i];
        let qkv = affine(p, &at("attention.qkv"), &normalise(config, p, &at("norm1"), x), None);
        let mixed = attention::forward(&qkv, None, shape);
        let x = reduce::add(x, &affine(p, &at("attention.projection"), &mixed.out, None));
        let inner = normalise(config, p, &at("norm2"), &x);
        let inner = affine(p, &at("mlp.fc1"), &inner, Some(config.activation));
        let x = reduce::add(&x, &affine(p, &at("mlp.fc2"), &inner, None));
        hidden_states.push(x);
        attentions.push(mixed.probabilities);
    }
    (hidden_states, attentions)
}

/// The linear layer `name`, with its bias if there is one; sizes come from the weight.
fn affine(p: &Parameters, name: &str, x: &[f64], activation: Option<Activation>) -> Vec<f64> {
    let weight = &p[&format!("{name}.weight")];
    let bias = p.get(&format!("{name}.bias")).map(Vec::as_slice);
    let (inputs, outputs) = sizes(weight.len(), bias, name, x.len());
    let shape = linear::Shape { rows: x.len() / inputs, inputs, outputs };
    linear::forward(x, weight, Epilogue { bias, activation, residual: None }, shape).y
}

/// Inputs and outputs of a weight; without a bias the layer is a qkv projection, D → 3D.
fn sizes(weight: usize, bias: Option<&[f64]>, name: &str, x: usize) -> (usize, usize) {
    let outputs = bias.map_or_else(|| 3 * ((weight / 3) as f64).sqrt() as usize, <[f64]>::len);
    let inputs = weight / outputs;
    assert!(
        inputs * outputs == weight && x.is_multiple_of(inputs),
        "`{name}`: {weight} weights, {x} inputs"
    );
    (inputs, outputs)
}

fn normalise(config: &Config, p: &Parameters, name: &str, x: &[f64]) -> Vec<f64> {
    let (weight, bias) = (&p[&format!("{name}.weight")], &p[&format!("{name}.bias")]);
    layer_norm::forward(x, weight, bias, config.layer_norm_eps).y
}

fn push_blocks(shapes: &mut Vec<(String, Vec<usize>)>, name: &str, stack: Stack, qkv_bias: bool) {
    let Stack { width, intermediate, .. } = stack;
    for i in 0..stack.layers {
        let at = |part: &str| format!("{name}.blocks.{i}.{part}");
        push_affine(shapes, &at("norm1"), vec![width]);
        push_affine(shapes, &at("attention.qkv"), vec![3 * width, width]);
        if !qkv_bias {
            shapes.pop();
        }
        push_affine(shapes, &at("attention.projection"), vec![width, width]);
        push_affine(shapes, &at("norm2"), vec![width]);
        push_affine(shapes, &at("mlp.fc1"), vec![intermediate, width]);
        push_affine(shapes, &at("mlp.fc2"), vec![width, intermediate]);
    }
}

fn push_affine(shapes: &mut Vec<(String, Vec<usize>)>, name: &str, weight: Vec<usize>) {
    let bias = vec![weight[0]];
    shapes.push((format!("{name}.weight"), weight));
    shapes.push((format!("{name}.bias"), bias));
}

#[cfg(test)]
mod tests;
