use criterion::Criterion;
use vitmae_benches::gpu::Gpu;
use vitmae_benches::{Rate, flop};
use vitmae_kernels::attention::{self, Shape};

pub(crate) fn bench(criterion: &mut Criterion<Rate>, gpu: &Gpu) {
    let cases = [
        ("encoder", Shape { batch: 8, tokens: 50, heads: 12, head_dim: 64 }),
        ("encoder, all patches", Shape { batch: 8, tokens: 197, heads: 12, head_dim: 64 }),
        ("decoder", Shape { batch: 8, tokens: 197, heads: 16, head_dim: 32 }),
    ];
    for (name, shape) in cases {
        let Shape { batch, tokens, heads, head_dim } = shape;
        let count = batch * tokens * heads * head_dim;
        let [qkv, dqkv] = [(); 2].map(|()| gpu.act(3 * count));
        let [out, dout] = [(); 2].map(|()| gpu.act(count));
        let lse = gpu.f32(batch * heads * tokens);
        let product = 2 * batch * heads * tokens * tokens * head_dim;
        let fits = "a head of this width fits every GPU";
        // Q·Kᵀ and P·V; going back also dP = dO·Vᵀ, dQ, dK, dV, and Q·Kᵀ once more.
        gpu.bench(
            criterion,
            "attention",
            &format!("{name} forward"),
            flop(2 * product),
            &out,
            || {
                attention::forward(&gpu.client, &qkv, None, shape, &out, &lse).expect(fits);
            },
        );
        let case = format!("{name} backward");
        gpu.bench(criterion, "attention", &case, flop(5 * product), &dqkv, || {
            attention::backward(&gpu.client, &dout, &qkv, &out, &lse, None, shape, &dqkv)
                .expect(fits);
        });
    }
}
