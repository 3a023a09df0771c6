use super::pools;
use vitmae_cpu::attention::{self, Shape};
use vitmae_cpu::dropout::Dropout;
use vitmae_cpu::random::Stream;
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::{tolerance, tolerance_at};
use vitmae_testing::guarded::Guarded;
use vitmae_testing::reference::attention as reference;

/// Token counts around the blocks and tiles, and every head width that models use, at each other's ends.
const SHAPES: [[usize; 4]; 16] = [
    [1, 1, 1, 8],
    [2, 1, 3, 64],
    [1, 2, 2, 12],
    [2, 31, 1, 80],
    [1, 31, 3, 8],
    [2, 33, 2, 32],
    [1, 33, 1, 80],
    [3, 50, 2, 64],
    [1, 50, 12, 64],
    [1, 50, 2, 12],
    [1, 197, 3, 32],
    [1, 197, 2, 80],
    [1, 197, 1, 8],
    [1, 257, 1, 64],
    [1, 257, 2, 12],
    [1, 1025, 1, 16],
];

fn shape([batch, tokens, heads, head_dim]: [usize; 4]) -> Shape {
    Shape { batch, tokens, heads, head_dim }
}

fn reference_shape(shape: Shape) -> reference::Shape {
    let Shape { batch, tokens, heads, head_dim } = shape;
    reference::Shape { batch, tokens, heads, head_dim }
}

fn dropout() -> Dropout {
    Dropout { rate: 0.3, stream: Stream::new(5, "attention", 1, 2) }
}

/// The dropout's scales in the order of the probabilities.
fn keep(dropout: &Dropout, shape: Shape) -> Vec<f64> {
    let pairs = reference_shape(shape).pairs() as u64;
    (0..pairs).map(|index| dropout.keep_scale(index).into()).collect()
}

/// Output, lse, gradient and probabilities of the kernels, for rows q|k|v.
fn kernels(qkv: &[f32], dout: &[f32], dropout: Option<&Dropout>, shape: Shape) -> [Vec<f32>; 4] {
    pools::run("attention", || {
        let rows = shape.batch * shape.heads * shape.tokens;
        let (mut out, mut lse) = (Guarded::poisoned(dout.len()), Guarded::poisoned(rows));
        attention::forward(qkv, dropout, shape, out.slice(), lse.slice());
        let (out, lse) = (out.finish("out"), lse.finish("lse"));
        let mut dqkv = Guarded::poisoned(qkv.len());
        attention::backward(dout, qkv, &out, &lse, dropout, shape, dqkv.slice());
        let mut probabilities = Guarded::poisoned(rows * shape.tokens);
        attention::probabilities(qkv, &lse, shape, probabilities.slice());
        [out, lse, dqkv.finish("dqkv"), probabilities.finish("probabilities")]
    })
}

/// Compares everything with the reference; `size` bounds the entries of `qkv`.
fn check(qkv: &[f32], dout: &[f32], dropout: Option<&Dropout>, shape: Shape, size: f64) {
    let [out, lse, dqkv, probabilities] = kernels(qkv, dout, dropout, shape);
    let keep = dropout.map(|dropout| keep(dropout, shape));
    let (keep, wide) = (keep.as_deref(), widen(qkv));
    let expected = reference::forward(&wide, keep, reference_shape(shape));
    let name = |what: &str| format!("{what} {shape:?}, dropout {}", dropout.is_some());
    // A score of size s is off by s roundings or so, and an exponential turns that into relative error.
    let scores = size * size * (shape.head_dim as f64).sqrt();
    let terms = ((shape.tokens + shape.head_dim) as f64 * (1.0 + scores * scores)) as usize;
    assert_close(&name("out"), &out, &expected.out, tolerance(terms, &expected.out));
    assert_close(&name("lse"), &lse, &expected.lse, tolerance_at(shape.head_dim + 8, 1.0 + scores));
    let wanted = &expected.probabilities;
    assert_close(&name("probabilities"), &probabilities, wanted, tolerance(terms, wanted));

    let expected = reference::backward(&widen(dout), &wide, keep, reference_shape(shape));
    let parts = |values: &[f64], part: usize| -> Vec<f64> {
        values.chunks(shape.width()).skip(part).step_by(3).flatten().copied().collect()
    };
    let found = widen(&dqkv);
    // Without cancellation a gradient of q or k is as large as p·dp·k, summed over a row.
    let cancelling = size * (shape.head_dim as f64).sqrt() / 3.0;
    for (part, letter) in ["dq", "dk", "dv"].into_iter().enumerate() {
        let (found, wanted) = (parts(&found, part), parts(&expected, part));
        let tolerance = match part {
            2 => tolerance(terms, &wanted),
            _ => tolerance_at(terms, cancelling / (shape.tokens as f64).sqrt()),
        };
        assert_close(&name(letter), &found, &wanted, tolerance);
    }
}

#[test]
fn forward_backward_and_probabilities_equal_the_reference() {
    let mut draws = Draws::new(1);
    for shape in SHAPES.map(shape) {
        let len = shape.batch * shape.tokens * shape.width();
        let (qkv, dout) = (draws.vec_f32(3 * len), draws.vec_f32(len));
        check(&qkv, &dout, None, shape, 1.0);
    }
}

#[test]
fn dropped_probabilities_are_those_of_the_stream() {
    let mut draws = Draws::new(2);
    for shape in SHAPES.map(shape).into_iter().filter(|shape| shape.tokens < 200) {
        let len = shape.batch * shape.tokens * shape.width();
        let (qkv, dout) = (draws.vec_f32(3 * len), draws.vec_f32(len));
        check(&qkv, &dout, Some(&dropout()), shape, 1.0);
    }
}
