//! The graphs of whole models; each mirrors the forward pass of `vitmae-model` that it names.

use vitmae_model::{
    ModelError, Numerics, VitForImageClassification, VitMaeConfig, VitMaeForPreTraining,
    VitMaeModel,
};
use vitmae_tensor::TensorError;

use crate::OnnxError;
use crate::graph::{Graph, Side, Value, int, ints};
use crate::proto::DataType;

/// The name of every graph's images.
pub(crate) const PIXELS: &str = "pixel_values";
/// The name of the noise that orders patches.
pub(crate) const NOISE: &str = "noise";

/// Which patches are kept, as values of a graph.
struct Masked {
    ids_keep: Value,    // [B, K]
    ids_restore: Value, // [B, L]
    mask: Value,        // [B, L], 1 = removed
}

/// `VitMaeModel::encode`: every patch, in grid order.
pub(crate) fn features(graph: &mut Graph, vit: &VitMaeModel) -> Result<(), OnnxError> {
    let (d, patches) = (vit.config.hidden_size, vit.config.num_patches());
    let pixels = pixels(graph, &vit.config);
    let x = encode(graph, vit, &pixels, None)?;
    let cls = graph.tokens(&x, 0..1);
    let cls = graph.reshape(&cls, &[0, d as i64]);
    let of_patches = graph.tokens(&x, 1..1 + patches);
    let mean = mean_of_tokens(graph, &of_patches);
    let tokens = [Side::Batch, Side::Of(1 + patches), Side::Of(d)];
    graph.output("last_hidden_state", &x, DataType::Float, &tokens);
    graph.output("cls", &cls, DataType::Float, &[Side::Batch, Side::Of(d)]);
    graph.output("mean", &mean, DataType::Float, &[Side::Batch, Side::Of(d)]);
    Ok(())
}

/// `VitMaeModel::forward`: the kept patches, in the order of their noise.
pub(crate) fn encoder(graph: &mut Graph, vit: &VitMaeModel, kept: usize) -> Result<(), OnnxError> {
    let (d, patches) = (vit.config.hidden_size, vit.config.num_patches());
    let pixels = pixels(graph, &vit.config);
    let masked = masking(graph, patches, kept);
    let x = encode(graph, vit, &pixels, Some(&masked))?;
    let tokens = [Side::Batch, Side::Of(1 + kept), Side::Of(d)];
    graph.output("last_hidden_state", &x, DataType::Float, &tokens);
    put_out(graph, &masked, patches);
    Ok(())
}

/// `VitMaeForPreTraining::forward`, with the loss.
pub(crate) fn reconstruction(
    graph: &mut Graph,
    model: &VitMaeForPreTraining,
    kept: usize,
) -> Result<(), OnnxError> {
    let config = &model.config;
    let (e, patches) = (config.decoder_hidden_size, config.num_patches());
    let pixels = pixels(graph, config);
    let masked = masking(graph, patches, kept);
    let latent = encode(graph, &model.vit, &pixels, Some(&masked))?;

    let decoder = &model.decoder;
    let visible = graph.linear(&latent, &decoder.embed)?; // [B, 1 + K, E]
    let token = graph.parameter(&decoder.mask_token)?;
    let ones =
        graph.constant("removed".into(), &[1, patches - kept, 1], &vec![1.0; patches - kept]);
    let tokens = graph.op("Mul", &[&token, &ones]);
    let tokens = graph.for_each_image(&tokens, [patches - kept, e], &pixels);
    let of_patches = graph.tokens(&visible, 1..1 + kept);
    let shuffled = graph.concat(&of_patches, &tokens);
    let in_grid = graph.gather(&shuffled, &masked.ids_restore);
    let cls = graph.tokens(&visible, 0..1);
    let x = graph.concat(&cls, &in_grid);
    let positions = graph.parameter(&decoder.position_embeddings)?;
    let x = graph.add(&x, &positions);
    let x = graph.transformer(x, &decoder.transformer)?;
    let x = graph.tokens(&x, 1..1 + patches);
    let logits = graph.linear(&x, &decoder.prediction)?;

    let sides = [Side::Batch, Side::Of(patches), Side::Of(config.patch_dim())];
    graph.output("logits", &logits, DataType::Float, &sides);
    put_out(graph, &masked, patches);
    let loss = loss(graph, config, &pixels, &logits, &masked.mask)?;
    graph.output("loss", &loss, DataType::Float, &[]);
    Ok(())
}

/// `VitForImageClassification::forward`.
pub(crate) fn classifier(
    graph: &mut Graph,
    model: &VitForImageClassification,
) -> Result<(), OnnxError> {
    let (d, patches) = (model.config.hidden_size, model.config.num_patches());
    let pixels = pixels(graph, &model.config);
    let x = encode(graph, &model.vit, &pixels, None)?;
    let features = match &model.fc_norm {
        None => {
            let cls = graph.tokens(&x, 0..1);
            graph.reshape(&cls, &[0, d as i64])
        }
        Some(norm) => {
            let of_patches = graph.tokens(&x, 1..1 + patches);
            let mean = mean_of_tokens(graph, &of_patches);
            graph.layer_norm(&mean, norm)?
        }
    };
    let logits = graph.linear(&features, &model.classifier)?;
    let sides = [Side::Batch, Side::Of(model.config.num_labels())];
    graph.output("logits", &logits, DataType::Float, &sides);
    Ok(())
}

fn pixels(graph: &mut Graph, config: &VitMaeConfig) -> Value {
    let (height, width) = config.image_size;
    let sides = [config.num_channels, height, width].map(Side::Of);
    graph.input(PIXELS, &[Side::Batch, sides[0], sides[1], sides[2]])
}

/// From pixels to the last hidden state, `[B, 1 + K, D]`.
fn encode(
    graph: &mut Graph,
    vit: &VitMaeModel,
    pixels: &str,
    masked: Option<&Masked>,
) -> Result<Value, TensorError> {
    let config = &vit.config;
    let (d, patches) = (config.hidden_size, config.num_patches());
    let kernel = graph.parameter(&vit.patch_embedding.weight)?;
    let bias = vit.patch_embedding.bias.as_ref().map(|bias| graph.parameter(bias)).transpose()?;
    let (height, width) = config.patch_size;
    let side = [height as i64, width as i64];
    let attributes = vec![ints("kernel_shape", &side), ints("strides", &side)];
    let inputs: Vec<&str> = [pixels, &kernel].into_iter().chain(bias.as_deref()).collect();
    let x = graph.op_with("Conv", &inputs, attributes); // [B, D, rows, columns]
    let x = graph.reshape(&x, &[0, d as i64, patches as i64]);
    let x = graph.transpose(&x, &[0, 2, 1]); // [B, L, D]

    let positions = graph.parameter(&vit.position_embeddings)?;
    let of_patches = graph.tokens(&positions, 1..1 + patches);
    let mut x = graph.add(&x, &of_patches);
    if let Some(masked) = masked {
        x = graph.gather(&x, &masked.ids_keep);
    }
    let cls = graph.parameter(&vit.cls_token)?;
    let of_cls = graph.tokens(&positions, 0..1);
    let cls = graph.add(&cls, &of_cls);
    let cls = graph.for_each_image(&cls, [1, d], pixels);
    let x = graph.concat(&cls, &x);
    graph.transformer(x, &vit.transformer)
}

/// The masking of `Masking::from_noise`: the smallest noise is kept, equal noise in index order.
fn masking(graph: &mut Graph, patches: usize, kept: usize) -> Masked {
    let noise = graph.input(NOISE, &[Side::Batch, Side::Of(patches)]);
    let shuffled = graph.argsort(&noise, patches);
    let ids_keep = graph.tokens(&shuffled, 0..kept);
    // Places of patches, by sorting the patches in their places.
    let numbers = graph.op_with("Cast", &[&shuffled], vec![int("to", DataType::Float as i64)]);
    let ids_restore = graph.argsort(&numbers, patches);
    let places = graph.op_with("Cast", &[&ids_restore], vec![int("to", DataType::Float as i64)]);
    let kept = graph.scalar(kept as f32);
    let removed = graph.op("GreaterOrEqual", &[&places, &kept]);
    let mask = graph.op_with("Cast", &[&removed], vec![int("to", DataType::Float as i64)]);
    Masked { ids_keep, ids_restore, mask }
}

fn put_out(graph: &mut Graph, masked: &Masked, patches: usize) {
    let sides = [Side::Batch, Side::Of(patches)];
    graph.output("mask", &masked.mask, DataType::Float, &sides);
    graph.output("ids_restore", &masked.ids_restore, DataType::Int64, &sides);
}

fn mean_of_tokens(graph: &mut Graph, x: &str) -> Value {
    let attributes = vec![ints("axes", &[1]), int("keepdims", 0)];
    graph.op_with("ReduceMean", &[x], attributes)
}

/// The mean over each patch's values, kept as a side of 1.
fn mean_of_patch(graph: &mut Graph, x: &str) -> Value {
    let attributes = vec![ints("axes", &[-1]), int("keepdims", 1)];
    graph.op_with("ReduceMean", &[x], attributes)
}

/// `ops::loss` of the targets that the configuration asks for.
fn loss(
    graph: &mut Graph,
    config: &VitMaeConfig,
    pixels: &str,
    logits: &str,
    mask: &str,
) -> Result<Value, ModelError> {
    let ((rows, columns), (height, width)) = (config.grid(), config.patch_size);
    let sides = [config.num_channels, rows, height, columns, width].map(|side| side as i64);
    let target = graph.reshape(pixels, &[0, sides[0], sides[1], sides[2], sides[3], sides[4]]);
    let target = graph.transpose(&target, &[0, 2, 4, 3, 5, 1]);
    let patch_dim = config.patch_dim();
    let mut target = graph.reshape(&target, &[0, (rows * columns) as i64, patch_dim as i64]);
    if config.norm_pix_loss {
        let mean = mean_of_patch(graph, &target);
        let centred = graph.op("Sub", &[&target, &mean]);
        let square = graph.op("Mul", &[&centred, &centred]);
        let mut variance = mean_of_patch(graph, &square);
        if Numerics::recorded(config)? == Numerics::Torch {
            variance = graph.scaled(&variance, patch_dim as f32 / (patch_dim as f32 - 1.0));
        }
        let small = graph.scalar(1e-6);
        let variance = graph.add(&variance, &small);
        let deviation = graph.op("Sqrt", &[&variance]);
        target = graph.op("Div", &[&centred, &deviation]);
    }
    let difference = graph.op("Sub", &[logits, &target]);
    let square = graph.op("Mul", &[&difference, &difference]);
    let attributes = || vec![ints("axes", &[-1]), int("keepdims", 0)];
    let each = graph.op_with("ReduceMean", &[&square], attributes()); // [B, L]
    let removed = graph.op("Mul", &[&each, mask]);
    let all = || vec![int("keepdims", 0)];
    let sum = graph.op_with("ReduceSum", &[&removed], all());
    let count = graph.op_with("ReduceSum", &[mask], all());
    Ok(graph.op("Div", &[&sum, &count]))
}
