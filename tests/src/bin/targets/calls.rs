//! One call of every operation, with the sizes of a real model, on a paper device.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

use vitmae_kernels::activation::{self, Activation};
use vitmae_kernels::gemm::{self, MatRef, Strategy};
use vitmae_kernels::{
    Array, Capabilities, Client, Dropout, Dtype, Ids, KernelError, adamw, attention, convert,
    cross_entropy, decoder_assembly, dropout, ema, encoder_assembly, gather, interpolation,
    layer_norm, linear, loss, norm, patches, reduce,
};

use crate::paper::{self, Compiled};
use crate::target::Target;

/// Batch, tokens, kept tokens with the class token, heads, width, width of the hidden layer, patches, values
/// of a patch.
const B: usize = 64;
const N: usize = 197;
const K: usize = 50;
const A: usize = 12;
const D: usize = 768;
const H: usize = 3072;
const L: usize = N - 1;
const P: usize = 768;

/// Where a call finds its device and its memory.
struct Desk {
    client: Client,
    dtype: Dtype,
}

impl Desk {
    /// Activations.
    fn act(&self, len: usize) -> Array {
        Array::empty(&self.client, len, self.dtype)
    }

    /// Parameters, statistics, gradients of parameters.
    fn f32(&self, len: usize) -> Array {
        Array::empty(&self.client, len, Dtype::F32)
    }

    fn ids(&self, len: usize) -> Ids {
        Ids::empty(&self.client, len)
    }
}

/// An operation's name and a call of it. Operations without activations are called once, as f32.
type Call = (&'static str, fn(&Desk));

const CALLS: [Call; 15] = [
    ("activation", call_activation),
    ("attention", call_attention),
    ("convert", call_convert),
    ("cross_entropy", call_cross_entropy),
    ("decoder_assembly", call_decoder_assembly),
    ("dropout", call_dropout),
    ("encoder_assembly", call_encoder_assembly),
    ("gather", call_gather),
    ("gemm", call_gemm),
    ("layer_norm", call_layer_norm),
    ("linear", call_linear),
    ("loss", call_loss),
    ("norm", call_norm),
    ("patches", call_patches),
    ("reduce", call_reduce),
];
const F32_CALLS: [Call; 3] =
    [("adamw", call_adamw), ("ema", call_ema), ("interpolation", call_interpolation)];

/// Calls every operation (or `only` one) on a device of `target` and returns what was compiled.
pub(crate) fn compile(target: Target, only: Option<&str>) -> Vec<Compiled> {
    let (client, book) = paper::device(target);
    let capabilities = Capabilities::of(&client);
    let lock = || book.lock().unwrap_or_else(PoisonError::into_inner);
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        if !capabilities.supports(dtype) {
            continue;
        }
        let f32_calls = F32_CALLS.iter().filter(|_| dtype == Dtype::F32);
        for &(call, run) in CALLS.iter().chain(f32_calls) {
            if only.is_some_and(|only| only != call) {
                continue;
            }
            let mut page = lock();
            (page.call, page.dtype) = (call, dtype.to_string());
            drop(page);
            let desk = Desk { client: client.clone(), dtype };
            // A call may refuse a device by a panic; that is an error of the operation, not of this program.
            let result = catch_unwind(AssertUnwindSafe(|| run(&desk)));
            // Launches are compiled on another thread.
            let flushed = client.flush().map_err(|error| error.to_string());
            let error = match (result, flushed) {
                (Err(panic), _) => Some(paper::message(panic.as_ref())),
                (_, Err(error)) => Some(error),
                _ => None,
            };
            if let Some(error) = error {
                lock().compiled.push(Compiled {
                    kernel: format!("vitmae_kernels::{call}::call::Call"),
                    call,
                    dtype: dtype.to_string(),
                    target: target.name(),
                    number: 0,
                    result: Err(error),
                });
            }
        }
    }
    std::mem::take(&mut lock().compiled)
}

fn call_activation(desk: &Desk) {
    let client = &desk.client;
    for activation in Activation::names().filter_map(Activation::from_name) {
        activation::forward(client, activation, &desk.act(B * N * H), &desk.act(B * N * H));
        let [x, dy, dx] = [(); 3].map(|()| desk.act(B * N * H));
        activation::backward(client, activation, &x, &dy, &dx);
    }
    // Rows of an odd width are read value by value.
    for width in [D, 1001] {
        let [x, residual, pre, y] = [(); 4].map(|()| desk.act(B * width));
        let bias = desk.f32(width);
        let linear = Activation::Linear;
        for bias in [None, Some(&bias)] {
            for residual in [None, Some(&residual)] {
                activation::bias_activation(client, &x, bias, linear, residual, None, &y);
                let gelu = Activation::Gelu;
                activation::bias_activation(client, &x, bias, gelu, residual, Some(&pre), &y);
            }
        }
    }
}

fn call_attention(desk: &Desk) {
    let client = &desk.client;
    // The heads of the encoders and decoders of MAE: base and large 64, huge 80, decoder 32.
    for (heads, head_dim) in [(A, 64), (16, 80), (16, 32)] {
        for drop in [None, Some(&Dropout { rate: 0.1, key: [1, 2] })] {
            let shape = attention::Shape { batch: B, tokens: N, heads, head_dim };
            let width = heads * head_dim;
            let [qkv, dqkv] = [(); 2].map(|()| desk.act(B * N * 3 * width));
            let [out, dout] = [(); 2].map(|()| desk.act(B * N * width));
            let lse = desk.f32(B * heads * N);
            refuse(attention::forward(client, &qkv, drop, shape, &out, &lse));
            refuse(attention::backward(client, &dout, &qkv, &out, &lse, drop, shape, &dqkv));
        }
    }
    let shape = attention::Shape { batch: 1, tokens: N, heads: A, head_dim: D / A };
    let (qkv, lse) = (desk.act(N * 3 * D), desk.f32(A * N));
    refuse(attention::probabilities(client, &qkv, &lse, shape, &desk.f32(A * N * N)));
}

/// A refusal is a failure of the call.
fn refuse(result: Result<(), KernelError>) {
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn call_convert(desk: &Desk) {
    let client = &desk.client;
    for len in [B * N * D, 1001] {
        convert::convert(client, &desk.f32(len), &desk.act(len));
        convert::convert(client, &desk.act(len), &desk.f32(len));
    }
    convert::rounded_to_bf16(client, &desk.f32(B * N * D));
}

fn call_cross_entropy(desk: &Desk) {
    let (client, labels) = (&desk.client, [0i64; B]);
    let [logits, dlogits] = [(); 2].map(|()| desk.act(B * 1000));
    cross_entropy::forward(client, &logits, &labels, 0.1, &desk.f32(1));
    cross_entropy::backward(client, &logits, &labels, 0.1, 1.0, &dlogits);
}

fn call_decoder_assembly(desk: &Desk) {
    let client = &desk.client;
    let shape = decoder_assembly::Shape { batch: B, patches: L, kept: K - 1, width: 512 };
    let [visible, dvisible] = [(); 2].map(|()| desk.act(B * K * 512));
    let [out, dout] = [(); 2].map(|()| desk.act(B * N * 512));
    let (token, positions, ids) = (desk.f32(512), desk.f32(N * 512), desk.ids(B * L));
    decoder_assembly::forward(client, &visible, &token, &positions, &ids, shape, &out);
    decoder_assembly::backward_visible(client, &dout, &ids, shape, &dvisible);
    for accumulate in [false, true] {
        decoder_assembly::backward_mask_token(client, &dout, &ids, shape, &token, accumulate);
        decoder_assembly::backward_positions(client, &dout, shape, &positions, accumulate);
    }
}

fn call_dropout(desk: &Desk) {
    let (client, drop) = (&desk.client, Dropout { rate: 0.1, key: [1, 2] });
    let [x, residual, y] = [(); 3].map(|()| desk.act(B * N * D));
    dropout::forward(client, &x, None, &drop, &y);
    dropout::forward(client, &x, Some(&residual), &drop, &y);
    dropout::backward(client, &y, &drop, &x);
    dropout::keep(client, &drop, &desk.f32(B * N * D));
    dropout::drop_path(client, &x, Some(&residual), &drop, B, &y);
    dropout::drop_path_backward(client, &y, &drop, B, &x);
}

fn call_encoder_assembly(desk: &Desk) {
    let client = &desk.client;
    let shape = encoder_assembly::Shape { batch: B, patches: L, kept: K - 1, width: D };
    let [tokens, dtokens] = [(); 2].map(|()| desk.act(B * (K - 1) * D));
    let [out, dout] = [(); 2].map(|()| desk.act(B * K * D));
    let (cls, positions, ids) = (desk.f32(D), desk.f32(N * D), desk.ids(B * (K - 1)));
    encoder_assembly::forward(client, &tokens, &cls, &positions, &ids, shape, &out);
    encoder_assembly::backward_tokens(client, &dout, shape, &dtokens);
    for accumulate in [false, true] {
        encoder_assembly::backward_cls(client, &dout, shape, &cls, accumulate);
        encoder_assembly::backward_positions(client, &dout, &ids, shape, &positions, accumulate);
    }
}

fn call_gather(desk: &Desk) {
    let shape = gather::Shape { batch: B, rows: L, kept: K - 1, width: D };
    let (x, y, ids) = (desk.act(B * L * D), desk.act(B * (K - 1) * D), desk.ids(B * (K - 1)));
    gather::forward(&desk.client, &x, &ids, shape, &y);
    gather::backward(&desk.client, &y, &ids, shape, &x);
}

fn call_gemm(desk: &Desk) {
    let client = &desk.client;
    // Each tile, and sums split along k.
    for [m, n, k] in [[B * N, H, D], [D, D, B * N], [4 * K, D, D], [B, 1000, D]] {
        let (a, b, c) = (desk.act(m * k), desk.act(n * k), desk.f32(m * n));
        let rows = MatRef::row_major(&a, m, k);
        let columns = MatRef::row_major(&a, k, m).transposed();
        let (b, bt) = (MatRef::row_major(&b, k, n), MatRef::row_major(&b, n, k).transposed());
        for (a, b) in [(rows, b), (rows, bt), (columns, b)] {
            for accumulate in [false, true] {
                for strategy in Strategy::ALL {
                    // Matrix units refuse f32, and devices may have none.
                    let _ = gemm::gemm_with(client, strategy, a, b, &c, accumulate);
                }
            }
        }
    }
}

fn call_layer_norm(desk: &Desk) {
    let client = &desk.client;
    // Rows that a plane holds in registers, rows that it does not, and rows of an odd width.
    for width in [D, 1280, 8192, 50] {
        let rows = B * K;
        let [y, dy] = [(); 2].map(|()| desk.act(rows * width));
        let [weight, bias] = [(); 2].map(|()| desk.f32(width));
        let [mean, rstd] = [(); 2].map(|()| desk.f32(rows));
        let [dweight, dbias] = [(); 2].map(|()| desk.f32(width));
        // All of one type, and what goes around the norm in f32.
        for around in [desk.dtype, Dtype::F32] {
            let [x, residual, sum, dx] =
                [(); 4].map(|()| Array::empty(client, rows * width, around));
            layer_norm::forward(client, &x, &weight, &bias, 1e-6, &y, &mean, &rstd);
            let added = layer_norm::Residual { shift: &bias, residual: &residual };
            layer_norm::forward_residual(
                client, &x, added, &weight, &bias, 1e-6, &sum, &y, &mean, &rstd,
            );
            for (residual, add) in [(None, false), (Some(&residual), true)] {
                layer_norm::backward(
                    client, &dy, &x, &weight, &mean, &rstd, residual, &dx, &dweight, &dbias, add,
                );
            }
        }
    }
}

fn call_linear(desk: &Desk) {
    let client = &desk.client;
    let shape = linear::Shape { rows: B * K, inputs: D, outputs: H };
    let (x, y, pre) = (desk.act(B * K * D), desk.act(B * K * H), desk.act(B * K * H));
    let (weight, bias) = (desk.f32(H * D), desk.f32(H));
    let epilogue = linear::Epilogue {
        bias: Some(&bias),
        activation: Some(Activation::Gelu),
        pre: Some(&pre),
        residual: None,
    };
    linear::forward(client, &x, &weight, epilogue, shape, &y);
    // The end of a branch: to f32, in one part and in several.
    for rows in [B * K, B] {
        let [y, residual] = [(); 2].map(|()| desk.f32(rows * D));
        let epilogue =
            linear::Epilogue { residual: Some(&residual), ..linear::Epilogue::default() };
        let shape = linear::Shape { rows, inputs: H, outputs: D };
        linear::forward(client, &desk.act(rows * H), &weight, epilogue, shape, &y);
    }
    linear::backward_input(client, &y, &weight, shape, &x);
    linear::backward_weight(client, &y, &x, shape, &weight, true);
    linear::backward_bias(client, &y, shape, &bias, true);
}

fn call_loss(desk: &Desk) {
    let client = &desk.client;
    let [pred, dpred] = [(); 2].map(|()| desk.act(B * L * P));
    let (patches, mask) = (desk.f32(B * L * P), desk.f32(B * L));
    let targets =
        [loss::Target::Pixels, loss::Target::Normalised, loss::Target::NormalisedPopulation];
    for target in targets {
        for distance in [loss::Distance::Squared, loss::Distance::Absolute] {
            let objective = loss::Objective { target, distance };
            loss::forward(client, &pred, &patches, &mask, objective, &desk.f32(1));
            loss::backward(client, &pred, &patches, &mask, objective, 1.0, &dpred);
        }
        loss::normalise_targets(client, &patches, P, target, &desk.f32(B * L * P));
    }
}

fn call_norm(desk: &Desk) {
    let x = desk.act(H * D);
    norm::sum_of_squares(&desk.client, &x, &desk.f32(1));
    norm::global_norm(&desk.client, &[&x, &desk.act(D)], &desk.f32(1));
    for longest in [None, Some(1.0)] {
        norm::clip_scale(&desk.client, &desk.f32(1), longest, &desk.f32(1));
    }
}

fn call_patches(desk: &Desk) {
    let shape = patches::Shape {
        batch: B,
        channels: 3,
        height: 224,
        width: 224,
        patch_height: 16,
        patch_width: 16,
    };
    let [pixels, patches] = [(); 2].map(|()| desk.act(B * L * P));
    patches::patchify(&desk.client, &pixels, shape, &patches);
    patches::unpatchify(&desk.client, &patches, shape, &pixels);
    let (ids, rows) = (desk.ids(B * (K - 1)), desk.act(B * (K - 1) * P));
    patches::im2col(&desk.client, &pixels, &ids, shape, &rows);
}

fn call_reduce(desk: &Desk) {
    let client = &desk.client;
    for accumulate in [false, true] {
        reduce::sum_rows(client, &desk.act(B * N * H), &desk.f32(H), accumulate);
        reduce::sum_rows(client, &desk.act(3 * H), &desk.f32(H), accumulate);
    }
    for width in [D, 1001] {
        let [a, b, out] = [(); 3].map(|()| desk.act(B * width));
        reduce::add(client, &a, &b, &out);
        let (x, mean) = (desk.act(B * N * width), desk.act(B * width));
        reduce::mean_tokens(client, &x, N, width, 1, &mean);
        reduce::mean_tokens_backward(client, &mean, N, width, 1, &x);
    }
}

fn call_adamw(desk: &Desk) {
    // Twelve blocks have one of these each.
    let arrays: Vec<[Array; 4]> = (0..12).map(|_| [(); 4].map(|()| desk.f32(H * D))).collect();
    let settings =
        adamw::Settings { lr: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.05, step: 1 };
    let parameters: Vec<_> = arrays
        .iter()
        .map(|[value, gradient, m, v]| adamw::Parameter { value, gradient, m, v, settings })
        .collect();
    adamw::step(&desk.client, &parameters, &desk.f32(1));
}

fn call_ema(desk: &Desk) {
    let arrays: Vec<[Array; 2]> = (0..12).map(|_| [(); 2].map(|()| desk.f32(H * D))).collect();
    let parameters: Vec<_> =
        arrays.iter().map(|[average, value]| ema::Parameter { average, value }).collect();
    ema::step(&desk.client, &parameters, &desk.f32(1), 0.9999);
}

fn call_interpolation(desk: &Desk) {
    let client = &desk.client;
    let (from, to) = ((14, 14), (16, 16));
    let (table, out) = (desk.f32(196 * D), desk.f32(256 * D));
    for kernel in [interpolation::Kernel::Torch, interpolation::Kernel::Tf] {
        interpolation::forward(client, &table, from, to, D, kernel, &out);
        for accumulate in [false, true] {
            interpolation::backward(client, &out, from, to, D, kernel, &table, accumulate);
        }
    }
}
