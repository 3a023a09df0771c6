use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, traffic};
use vitmae_cpu::activation::{self, Activation};
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
}
