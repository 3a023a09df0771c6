use super::pools;
use super::rounded::{narrow, wide};
use vitmae_cpu::attention::{self, Shape};
use vitmae_cpu::dropout::Dropout;
use vitmae_cpu::gemm::Precision;
use vitmae_cpu::random::Stream;
use vitmae_cpu::values::Bf16;
use vitmae_testing::close::{Tolerance, assert_close};
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

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

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
fn kernels(
    precision: Precision,
    qkv: &[f32],
    dout: &[f32],
    dropout: Option<&Dropout>,
    shape: Shape,
) -> [Vec<f32>; 4] {
    pools::run("attention", || {
        let rows = shape.batch * shape.heads * shape.tokens;
        let (mut out, mut lse) = (Guarded::poisoned(dout.len()), Guarded::poisoned(rows));
        attention::forward(precision, qkv, dropout, shape, out.slice(), lse.slice());
        let (out, lse) = (out.finish("out"), lse.finish("lse"));
        let mut dqkv = Guarded::poisoned(qkv.len());
        let into = dqkv.slice();
        attention::backward(precision, dout, qkv, &out, &lse, dropout, shape, into);
        let mut probabilities = Guarded::poisoned(rows * shape.tokens);
        attention::probabilities(precision, qkv, &lse, shape, probabilities.slice());
        [out, lse, dqkv.finish("dqkv"), probabilities.finish("probabilities")]
    })
}

/// Compares everything with the reference, for entries of size 1.
fn check(qkv: &[f32], dout: &[f32], dropout: Option<&Dropout>, shape: Shape) {
    let [out, lse, dqkv, probabilities] = kernels(Precision::F32, qkv, dout, dropout, shape);
    let keep = dropout.map(|dropout| keep(dropout, shape));
    let (keep, wide) = (keep.as_deref(), widen(qkv));
    let expected = reference::forward(&wide, keep, reference_shape(shape));
    let name = |what: &str| format!("{what} {shape:?}, dropout {}", dropout.is_some());
    let terms = shape.tokens + shape.head_dim;
    assert_close(&name("out"), &out, &expected.out, tolerance(terms, &expected.out));
    assert_close(&name("lse"), &lse, &expected.lse, tolerance_at(terms, 1.0));
    let wanted = &expected.probabilities;
    assert_close(&name("probabilities"), &probabilities, wanted, tolerance(terms, wanted));

    let expected = reference::backward(&widen(dout), &wide, keep, reference_shape(shape));
    let parts = |values: &[f64], part: usize| -> Vec<f64> {
        values.chunks(shape.width()).skip(part).step_by(3).flatten().copied().collect()
    };
    let found = widen(&dqkv);
    // Gradients of q and k cancel; a sum of N terms p·dp·k / √head_dim that did not has this size.
    let cancelling = 1.0 / (3.0 * (shape.tokens as f64).sqrt());
    for (part, letter) in ["dq", "dk", "dv"].into_iter().enumerate() {
        let (found, wanted) = (parts(&found, part), parts(&expected, part));
        let tolerance = match part {
            2 => tolerance(terms, &wanted),
            _ => tolerance_at(terms, cancelling),
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
        check(&qkv, &dout, None, shape);
    }
}

#[test]
fn dropped_probabilities_are_those_of_the_stream() {
    let mut draws = Draws::new(2);
    for shape in SHAPES.map(shape).into_iter().filter(|shape| shape.tokens < 200) {
        let len = shape.batch * shape.tokens * shape.width();
        let (qkv, dout) = (draws.vec_f32(3 * len), draws.vec_f32(len));
        check(&qkv, &dout, Some(&dropout()), shape);
    }
}

/// q, k, v and the gradient of the output are values of bf16, so what is left are the roundings of the
/// probabilities and of the gradients of scores, 2⁻⁹ of each at most.
#[test]
fn bf16_rounds_the_factors_alone() {
    let mut draws = Draws::new(6);
    for shape in SHAPES.map(shape) {
        for dropout in [None, Some(dropout())] {
            let len = shape.batch * shape.tokens * shape.width();
            let mut rounded = |len| -> Vec<f32> {
                let draw = draws.vec_f32(len).into_iter();
                draw.map(|v| f32::from_bits(v.to_bits() & 0xffff_0000)).collect()
            };
            let (qkv, dout) = (rounded(3 * len), rounded(len));
            let [out, lse, dqkv, probabilities] =
                kernels(Precision::Bf16, &qkv, &dout, dropout.as_ref(), shape);
            let keep = dropout.as_ref().map(|dropout| keep(dropout, shape));
            let (keep, wide) = (keep.as_deref(), widen(&qkv));
            let expected = reference::forward(&wide, keep, reference_shape(shape));
            let name = |what: &str| format!("{what} {shape:?}, dropout {}", dropout.is_some());
            let terms = shape.tokens + shape.head_dim;
            assert_close(&name("lse"), &lse, &expected.lse, tolerance_at(terms, 1.0));
            let wanted = &expected.probabilities;
            assert_close(&name("probabilities"), &probabilities, wanted, tolerance(terms, wanted));
            let few = Tolerance::new(4e-3, 0.0);
            assert_close(&name("out"), &out, &expected.out, few);
            let expected = reference::backward(&widen(&dout), &wide, keep, reference_shape(shape));
            assert_close(&name("dqkv"), &dqkv, &expected, Tolerance::new(8e-3, 8e-3));
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    // Scores of several hundred: one probability of a row is 1, the others vanish.
    let (mut draws, shape) = (Draws::new(3), shape([1, 33, 2, 12]));
    let len = shape.tokens * shape.width();
    let qkv: Vec<f32> = draws.vec_f32(3 * len).iter().map(|v| v * 64.0).collect();
    let [out, lse, dqkv, probabilities] =
        kernels(Precision::F32, &qkv, &draws.vec_f32(len), None, shape);
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
    let shape = shape([1, 33, 1, 8]);
    let mut qkv = Draws::new(4).vec_f32(3 * 33 * 8);
    qkv[8] = f32::NAN; // the first key
    for precision in PRECISIONS {
        let (mut out, mut lse) = ([0.0; 33 * 8], [0.0; 33]);
        attention::forward(precision, &qkv, None, shape, &mut out, &mut lse);
        assert!(out.iter().chain(&lse).all(|v| v.is_nan()));
    }
}

#[test]
fn nothing_is_attended_by_nothing() {
    for empty in [[0, 3, 2, 8], [2, 0, 2, 8], [2, 3, 0, 8]] {
        let shape = shape(empty);
        for precision in PRECISIONS {
            let (x, mut out): ([f32; 0], [f32; 0]) = ([], []);
            attention::forward(precision, &x, None, shape, &mut out, &mut []);
            attention::backward(precision, &x, &x, &x, &[], None, shape, &mut out);
            attention::probabilities(precision, &x, &[], shape, &mut []);
        }
    }
}

#[test]
fn bf16_in_memory_gives_the_bits_of_the_same_values_in_f32_rounded_once() {
    let mut draws = Draws::new(11);
    for shape in SHAPES.map(shape) {
        let len = shape.batch * shape.tokens * shape.width();
        let (qkv, dout) = (narrow(&draws.vec_f32(3 * len)), narrow(&draws.vec_f32(len)));
        let rows = shape.batch * shape.heads * shape.tokens;
        for dropout in [None, Some(&dropout())] {
            let precision = Precision::Bf16;
            let [out, lse, ..] = kernels(precision, &wide(&qkv), &wide(&dout), dropout, shape);
            let (mut out_found, mut lse_found) = (vec![Bf16::NAN; len], vec![f32::NAN; rows]);
            attention::forward(precision, &qkv, dropout, shape, &mut out_found, &mut lse_found);
            assert_eq!((&out_found, &lse_found), (&narrow(&out), &lse), "{shape:?}");

            let (mut dqkv, mut dqkv_found) = (vec![f32::NAN; 3 * len], vec![Bf16::NAN; 3 * len]);
            let (out, qkv_wide) = (wide(&out_found), wide(&qkv));
            let dout_wide = wide(&dout);
            let to = &mut dqkv;
            attention::backward(precision, &dout_wide, &qkv_wide, &out, &lse, dropout, shape, to);
            let to = &mut dqkv_found;
            attention::backward(precision, &dout, &qkv, &out_found, &lse, dropout, shape, to);
            assert_eq!(dqkv_found, narrow(&dqkv), "{shape:?}");
        }
    }
}
