use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, bytes, narrow, traffic};
use vitmae_cpu::activation::{self, Activation};
use vitmae_cpu::values::Bf16;
use vitmae_testing::draws::Draws;

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    // The hidden layer of the encoder's MLP.
    let count = 8 * 50 * 3072;
    let mut draws = Draws::new(1);
    let (x, dy) = (draws.vec_f32(count), draws.vec_f32(count));
    let mut out = vec![0.0; count];
    for name in ["gelu", "gelu_new", "relu", "silu"] {
        let act = Activation::from_name(name).expect("a name of the table");
        add(criterion, "activation", &format!("{name} forward"), traffic(2 * count), || {
            activation::forward(act, &x, &mut out);
        });
        add(criterion, "activation", &format!("{name} backward"), traffic(3 * count), || {
            activation::backward(act, &x, &dy, &mut out);
        });
    }
    let (x, dy, mut out) = (narrow(&x), narrow(&dy), vec![Bf16::ZERO; count]);
    add(criterion, "activation", "gelu forward bf16", bytes(4 * count), || {
        activation::forward(Activation::Gelu, &x, &mut out);
    });
    add(criterion, "activation", "gelu backward bf16", bytes(6 * count), || {
        activation::backward(Activation::Gelu, &x, &dy, &mut out);
    });
}
