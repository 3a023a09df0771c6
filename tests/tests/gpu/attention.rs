use super::device::{self, Canary};
use vitmae_kernels::attention::{self, Shape};
use vitmae_kernels::{Array, Client, Dropout, Dtype};
use vitmae_testing::close::{Tolerance, assert_close};
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::{tolerance, tolerance_at};
use vitmae_testing::reference::attention as reference;

/// Token counts around the tiles, and every head width that models use.
const SHAPES: [[usize; 4]; 12] = [
    [1, 1, 1, 8],
    [2, 1, 3, 64],
    [1, 2, 2, 12],
    [1, 31, 1, 80],
    [1, 33, 2, 32],
    [2, 50, 3, 64],
    [1, 50, 2, 12],
    [1, 65, 1, 128],
    [2, 17, 2, 9],
    [1, 33, 1, 10],
    [1, 197, 1, 64],
    [1, 257, 1, 12],
];

fn shape([batch, tokens, heads, head_dim]: [usize; 4]) -> Shape {
    Shape { batch, tokens, heads, head_dim }
}

fn reference_shape(shape: Shape) -> reference::Shape {
    let Shape { batch, tokens, heads, head_dim } = shape;
    reference::Shape { batch, tokens, heads, head_dim }
}

const DROPOUT: Dropout = Dropout { rate: 0.3, key: [0x1234_5678, 0x9abc_def0] };

/// The dropout's scales in the order of the probabilities, from the generator of the CPU.
fn keep(dropout: &Dropout, shape: Shape) -> Vec<f64> {
    let scale = |index: usize| {
        let counter = [(index / 4) as u32, 0, 0, 2];
        let word = vitmae_cpu::random::philox4x32(dropout.key, counter)[index % 4];
        let dropped = f64::from(word) < f64::from(dropout.rate) * 4_294_967_296.0;
        if dropped { 0.0 } else { 1.0 / (1.0 - f64::from(dropout.rate)) }
    };
    (0..reference_shape(shape).pairs()).map(scale).collect()
}

/// Output, lse, gradient and probabilities of the kernels, for rows q|k|v.
fn kernels(
    client: &Client,
    qkv: &[f32],
    dout: &[f32],
    dropout: Option<&Dropout>,
    shape: Shape,
    dtype: Dtype,
) -> [Vec<f32>; 4] {
    let rows = shape.batch * shape.heads * shape.tokens;
    let (qkv, dout) = [qkv, dout].map(|v| Array::from_f32_as(client, v, dtype)).into();
    let out = Canary::poisoned(client, dout.len, dtype);
    let lse = Canary::poisoned(client, rows, Dtype::F32);
    let dqkv = Canary::poisoned(client, qkv.len, dtype);
    let probabilities = Canary::poisoned(client, rows * shape.tokens, Dtype::F32);
    let (o, l, d) = (out.array(), lse.array(), dqkv.array());
    attention::forward(client, &qkv, dropout, shape, o, l).expect("it fits");
    attention::backward(client, &dout, &qkv, o, l, dropout, shape, d).expect("it fits");
    attention::probabilities(client, &qkv, l, shape, probabilities.array()).expect("it fits");
    [(out, "out"), (lse, "lse"), (dqkv, "dqkv"), (probabilities, "probabilities")]
        .map(|(canary, name)| canary.finish(client, name))
}

/// Compares everything with the reference, for entries of size 1.
fn check(draws: &mut Draws, dropout: Option<&Dropout>, shape: Shape, dtype: Dtype) {
    let client = device::client();
    let len = shape.batch * shape.tokens * shape.width();
    let qkv = device::rounded(&draws.vec_f32(3 * len), dtype);
    let dout = device::rounded(&draws.vec_f32(len), dtype);
    let [out, lse, dqkv, probabilities] = kernels(&client, &qkv, &dout, dropout, shape, dtype);
    let keep = dropout.map(|dropout| keep(dropout, shape));
    let (keep, wide) = (keep.as_deref(), widen(&qkv));
    let expected = reference::forward(&wide, keep, reference_shape(shape));
    let name = |what: &str| format!("{what} {shape:?}, dropout {}, {dtype}", dropout.is_some());
    let terms = shape.tokens + shape.head_dim;
    // Half a unit in the last place of what is stored.
    let rounding = device::rounding(dtype);
    let stored = |t: Tolerance, size: f64| {
        Tolerance::new((t.abs + rounding * size).min(Tolerance::CAP.abs), t.rel + rounding)
    };
    // Matrix units take the weights, and in the backward pass the gradients of the scores, in the type of the
    // activations: N roundings of values of size 1/N. Several times what they come to on average.
    let of_weights =
        if device::matrix_units(dtype) { 4.0 / (shape.tokens as f64).sqrt() } else { 0.0 };
    let wanted = &expected.out;
    assert_close(&name("out"), &out, wanted, stored(tolerance(terms, wanted), of_weights));
    assert_close(&name("lse"), &lse, &expected.lse, tolerance_at(terms, 1.0));
    let wanted = &expected.probabilities;
    assert_close(&name("probabilities"), &probabilities, wanted, tolerance(terms, wanted));

    let expected = reference::backward(&widen(&dout), &wide, keep, reference_shape(shape));
    let parts = |values: &[f64], part: usize| -> Vec<f64> {
        values.chunks(shape.width()).skip(part).step_by(3).flatten().copied().collect()
    };
    let found = widen(&dqkv);
    // Gradients of q and k cancel; a sum of N terms p·dp·k / √head_dim that did not has this size. The
    // stored output enters them through delta.
    let cancelling = 1.0 / (3.0 * (shape.tokens as f64).sqrt());
    for (part, letter) in ["dq", "dk", "dv"].into_iter().enumerate() {
        let (found, wanted) = (parts(&found, part), parts(&expected, part));
        let tolerance = match part {
            2 => stored(tolerance(terms, &wanted), of_weights),
            _ => stored(tolerance_at(terms, cancelling), cancelling + of_weights),
        };
        assert_close(&name(letter), &found, &wanted, tolerance);
    }
}

#[test]
fn forward_backward_and_probabilities_equal_the_reference() {
    let (client, mut draws) = (device::client(), Draws::new(1));
    for dtype in device::dtypes(&client) {
        for shape in device::some(&SHAPES.map(shape), dtype) {
            check(&mut draws, None, shape, dtype);
        }
    }
}

#[test]
fn dropped_probabilities_are_those_of_the_stream() {
    let mut draws = Draws::new(2);
    for shape in [[1, 2, 2, 12], [2, 50, 3, 64], [1, 33, 1, 10], [2, 17, 2, 9]].map(shape) {
        check(&mut draws, Some(&DROPOUT), shape, Dtype::F32);
    }
}

#[test]
fn the_same_bits_as_before_and_close_to_the_cpu() {
    let (client, mut draws, shape) = (device::client(), Draws::new(5), shape([2, 50, 2, 32]));
    let len = shape.batch * shape.tokens * shape.width();
    let (qkv, dout) = (draws.vec_f32(3 * len), draws.vec_f32(len));
    let run = || kernels(&client, &qkv, &dout, None, shape, Dtype::F32);
    let first = run();
    assert_eq!(first, run());

    let Shape { batch, tokens, heads, head_dim } = shape;
    let twin = vitmae_cpu::attention::Shape { batch, tokens, heads, head_dim };
    let (mut out, mut lse) = (vec![0.0; len], vec![0.0; batch * heads * tokens]);
    let precision = vitmae_cpu::gemm::Precision::F32;
    vitmae_cpu::attention::forward(precision, &qkv, None, twin, &mut out, &mut lse);
    let mut dqkv = vec![0.0; qkv.len()];
    vitmae_cpu::attention::backward(precision, &dout, &qkv, &out, &lse, None, twin, &mut dqkv);
    let close = tolerance_at(tokens + head_dim, 1.0);
    assert_close("out", &first[0], &widen(&out), close);
    assert_close("lse", &first[1], &widen(&lse), close);
    assert_close("dqkv", &first[2], &widen(&dqkv), close);
}

#[test]
fn large_scores_do_not_overflow() {
    // Scores of several hundred: one probability of a row is 1, the others vanish.
    let (client, mut draws, shape) = (device::client(), Draws::new(3), shape([1, 33, 2, 12]));
    let len = shape.tokens * shape.width();
    let qkv: Vec<f32> = draws.vec_f32(3 * len).iter().map(|v| v * 64.0).collect();
    let dout = draws.vec_f32(len);
    let [out, lse, dqkv, probabilities] = kernels(&client, &qkv, &dout, None, shape, Dtype::F32);
    let expected = reference::forward(&widen(&qkv), None, reference_shape(shape));
    // A score of 1000 has roundings of 1e-4, and its exponential that relative error.
    let tolerance = Tolerance::new(1e-3, 1e-3);
    assert_close("lse", &lse, &expected.lse, tolerance_at(shape.head_dim, 1000.0));
    assert_close("probabilities", &probabilities, &expected.probabilities, tolerance);
    let relative: Vec<f32> = out.iter().map(|v| v / 64.0).collect();
    let expected: Vec<f64> = expected.out.iter().map(|v| v / 64.0).collect();
    assert_close("out", &relative, &expected, tolerance);
    assert!(dqkv.iter().all(|v| v.is_finite()));
}

#[test]
fn nan_is_not_lost() {
    let (client, shape) = (device::client(), shape([1, 33, 1, 8]));
    let mut qkv = Draws::new(4).vec_f32(3 * 33 * 8);
    qkv[8] = f32::NAN; // the first key
    let out = Canary::poisoned(&client, 33 * 8, Dtype::F32);
    let lse = Canary::poisoned(&client, 33, Dtype::F32);
    let qkv = Array::from_f32(&client, &qkv);
    attention::forward(&client, &qkv, None, shape, out.array(), lse.array()).expect("it fits");
    let all_nan = |values: Vec<f32>| values.iter().all(|v| v.is_nan());
    assert!(all_nan(out.finish(&client, "out")) && all_nan(lse.finish(&client, "lse")));
}

#[test]
fn nothing_is_attended_by_nothing() {
    let client = device::client();
    let none = Array::empty(&client, 0, Dtype::F32);
    for shape in [[0, 3, 2, 8], [2, 0, 2, 8], [2, 3, 0, 8]].map(shape) {
        attention::forward(&client, &none, None, shape, &none, &none).expect("nothing");
        attention::backward(&client, &none, &none, &none, &none, None, shape, &none)
            .expect("nothing");
        attention::probabilities(&client, &none, &none, shape, &none).expect("nothing");
    }
}
