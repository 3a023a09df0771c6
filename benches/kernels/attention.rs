use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, bf16_flop, flop, narrow};
use vitmae_cpu::attention::{self, Shape};
use vitmae_cpu::gemm::Precision;
use vitmae_cpu::values::Bf16;
use vitmae_testing::draws::Draws;

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    let cases = [
        ("encoder", Shape { batch: 8, tokens: 50, heads: 12, head_dim: 64 }),
        ("encoder, all patches", Shape { batch: 8, tokens: 197, heads: 12, head_dim: 64 }),
        ("decoder", Shape { batch: 8, tokens: 197, heads: 16, head_dim: 32 }),
    ];
    for (name, shape) in cases {
        let Shape { batch, tokens, heads, head_dim } = shape;
        let count = batch * tokens * heads * head_dim;
        let mut draws = Draws::new(1);
        let (qkv, dout) = (draws.vec_f32(3 * count), draws.vec_f32(count));
        let (mut out, mut lse) = (vec![0.0; count], vec![0.0; batch * heads * tokens]);
        let mut dqkv = vec![0.0; 3 * count];
        let product = 2 * batch * heads * tokens * tokens * head_dim;
        for (precision, suffix) in [(Precision::F32, ""), (Precision::Bf16, " bf16")] {
            let work = if precision == Precision::F32 { flop } else { bf16_flop };
            let id = |way: &str| format!("{name} {way}{suffix}");
            attention::forward(precision, &qkv, None, shape, &mut out, &mut lse);
            // Q·Kᵀ and P·V; going back also dP = dO·Vᵀ, dQ, dK, dV, and Q·Kᵀ once more.
            let saved = (out.clone(), lse.clone());
            add(criterion, "attention", &id("forward"), work(2 * product), || {
                attention::forward(precision, &qkv, None, shape, &mut out, &mut lse);
            });
            add(criterion, "attention", &id("backward"), work(5 * product), || {
                let (out, lse) = (&saved.0, &saved.1);
                attention::backward(precision, &dout, &qkv, out, lse, None, shape, &mut dqkv);
            });
        }
        let (qkv, dout, precision) = (narrow(&qkv), narrow(&dout), Precision::Bf16);
        let (mut out, mut dqkv) = (vec![Bf16::ZERO; count], vec![Bf16::ZERO; 3 * count]);
        attention::forward(precision, &qkv, None, shape, &mut out, &mut lse);
        let id = |way: &str| format!("{name} {way} bf16 in memory");
        add(criterion, "attention", &id("forward"), bf16_flop(2 * product), || {
            attention::forward(precision, &qkv, None, shape, &mut out, &mut lse);
        });
        add(criterion, "attention", &id("backward"), bf16_flop(5 * product), || {
            attention::backward(precision, &dout, &qkv, &out, &lse, None, shape, &mut dqkv);
        });
    }
}
