//! Layer norm and attention on the GPU that CubeCL finds first, or on the one that
//! `CUBECL_WGPU_DEFAULT_DEVICE` names (`Cpu` is a software Vulkan):
//!
//!     cargo run --release -p vitmae-kernels --features wgpu --example layer_norm_and_attention
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use vitmae_kernels::attention::{self, Shape};
use vitmae_kernels::{Array, Dtype, KernelError, cubecl, layer_norm};

fn main() -> Result<(), KernelError> {
    let client = cubecl::Device::default().client();
    let shape = Shape { batch: 2, tokens: 50, heads: 3, head_dim: 64 };
    let (rows, width) = (shape.batch * shape.tokens, 3 * shape.width());
    let values: Vec<f32> = (0..rows * width).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = Array::from_f32(&client, &values);
    let empty = |len| Array::empty(&client, len, Dtype::F32);

    // Rows q|k|v, normalised.
    let [weight, bias] = [1.0, 0.0].map(|value| Array::from_f32(&client, &vec![value; width]));
    let (qkv, mean, rstd) = (empty(rows * width), empty(rows), empty(rows));
    layer_norm::forward(&client, &x, &weight, &bias, 1e-6, &qkv, &mean, &rstd);

    let (out, lse) = (empty(rows * shape.width()), empty(shape.heads * rows));
    attention::forward(&client, &qkv, None, shape, &out, &lse)?;
    println!("{} values, the first are {:?}", out.len, &out.to_f32(&client)?[..4]);

    // The gradient of Σ out.
    let ones = Array::from_f32(&client, &vec![1.0; out.len]);
    let dqkv = empty(rows * width);
    attention::backward(&client, &ones, &qkv, &out, &lse, None, shape, &dqkv)?;
    println!("gradient of the first query {:?}", &dqkv.to_f32(&client)?[..4]);
    Ok(())
}
