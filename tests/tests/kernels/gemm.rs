use super::pools;
use vitmae_cpu::activation::Activation;
use vitmae_cpu::gemm::{Epilogue, MatRef, Precision, gemm};
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::{tolerance, tolerance_at};
use vitmae_testing::guarded::Guarded;
use vitmae_testing::reference::{activation, linear, reduce};

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// Every m, n, k from a list of small sides, then sides that cross the blocks of a blocked product.
fn shapes() -> Vec<(usize, usize, usize)> {
    let small = [1, 13, 14, 15, 31, 33];
    let mut shapes: Vec<_> = small
        .iter()
        .flat_map(|&m| small.map(|n| (m, n)))
        .flat_map(|(m, n)| small.map(|k| (m, n, k)))
        .collect();
    shapes.extend([
        (50, 197, 64),
        (197, 50, 33),
        (113, 16, 769),
        (225, 49, 513),
        (31, 385, 384),
        (1, 769, 197),
        (769, 1, 385),
        (15, 31, 1025),
        (3, 3100, 5),
        (257, 257, 50),
        (197, 384, 385),
        (7, 1537, 1030),
        (9, 4100, 3),
    ]);
    shapes
}

/// The nearest values that a precision has; random numbers only, so neither NaN nor denormal.
fn rounded(values: &[f32], precision: Precision) -> Vec<f32> {
    let round = |value: &f32| match precision {
        Precision::F32 => *value,
        Precision::Bf16 => {
            let bits = value.to_bits();
            f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
        }
    };
    values.iter().map(round).collect()
}

/// `a: [m, k]` times `b: [k, n]` in f64, through the reference of a linear map.
fn product(
    precision: Precision,
    a: &[f32],
    b: &[f32],
    (m, n, k): (usize, usize, usize),
) -> Vec<f64> {
    let (a, b) = (rounded(a, precision), rounded(b, precision));
    let transposed: Vec<f64> = (0..n * k).map(|i| b[i % k * n + i / k].into()).collect();
    let shape = linear::Shape { rows: m, inputs: k, outputs: n };
    linear::forward(&widen(&a), &transposed, linear::Epilogue::default(), shape).y
}

fn transpose(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect()
}

#[test]
fn products_of_ragged_sizes_equal_the_reference() {
    let mut draws = Draws::new(1);
    let cases = shapes().into_iter().flat_map(|shape| PRECISIONS.map(|p| (shape, p)));
    for (shape @ (m, n, k), precision) in cases {
        let (a, b) = (draws.vec_f32(m * k), draws.vec_f32(k * n));
        let (at, bt) = (transpose(&a, m, k), transpose(&b, k, n));
        let expected = product(precision, &a, &b, shape);
        let tolerance = tolerance_at(k, (k as f64).sqrt() / 3.0);
        for layout in ["nn", "nt", "tn"] {
            let [c] = pools::run(layout, || {
                let mut c = Guarded::poisoned(m * n);
                let a = if layout == "tn" {
                    MatRef::row_major(&at, k, m).transposed()
                } else {
                    MatRef::row_major(&a, m, k)
                };
                let b = if layout == "nt" {
                    MatRef::row_major(&bt, n, k).transposed()
                } else {
                    MatRef::row_major(&b, k, n)
                };
                gemm(precision, a, b, c.slice(), false, Epilogue::default());
                [c.finish("c")]
            });
            assert_close(&format!("{precision:?} {layout} {shape:?}"), &c, &expected, tolerance);
        }
    }
}

#[test]
fn accumulation_adds_to_what_is_there() {
    let mut draws = Draws::new(2);
    let shapes = [(1, 1, 1), (13, 33, 15), (50, 31, 769), (113, 3100, 3), (5, 7, 0)];
    for (shape @ (m, n, k), precision) in
        shapes.into_iter().flat_map(|shape| PRECISIONS.map(|p| (shape, p)))
    {
        let (a, b, c0) = (draws.vec_f32(m * k), draws.vec_f32(k * n), draws.vec_f32(m * n));
        let [c] = pools::run("accumulate", || {
            let mut c = Guarded::filled(&c0);
            let (a, b) = (MatRef::row_major(&a, m, k), MatRef::row_major(&b, k, n));
            gemm(precision, a, b, c.slice(), true, Epilogue::default());
            [c.finish("c")]
        });
        let expected = reduce::add(&widen(&c0), &product(precision, &a, &b, shape));
        assert_close(
            &format!("{precision:?} {shape:?}"),
            &c,
            &expected,
            tolerance(k + 1, &expected),
        );
    }
}

#[test]
fn an_empty_inner_side_gives_zero() {
    for precision in PRECISIONS {
        let mut c = Guarded::poisoned(6);
        let nothing: [f32; 0] = [];
        let (a, b) = (MatRef::row_major(&nothing, 2, 0), MatRef::row_major(&nothing, 0, 3));
        gemm(precision, a, b, c.slice(), false, Epilogue::default());
        assert_eq!(c.finish("c"), [0.0; 6]);
        let mut c = Guarded::poisoned(6);
        let epilogue = Epilogue { bias: Some(&[1.0, 2.0, 3.0]), ..Epilogue::default() };
        gemm(precision, a, b, c.slice(), false, epilogue);
        assert_eq!(c.finish("c"), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
    }
}

#[test]
fn epilogues_equal_the_reference() {
    let mut draws = Draws::new(3);
    let shapes = [(1, 1, 1), (14, 33, 31), (50, 385, 64), (113, 31, 769), (3, 3100, 5)];
    for ((m, n, k), precision) in
        shapes.into_iter().flat_map(|shape| PRECISIONS.map(|p| (shape, p)))
    {
        let (a, b) = (draws.vec_f32(m * k), draws.vec_f32(k * n));
        let (bias, residual) = (draws.vec_f32(n), draws.vec_f32(m * n));
        for parts in 0..8 {
            let (has_bias, has_act, has_residual) = (parts & 1 > 0, parts & 2 > 0, parts & 4 > 0);
            let [pre, y, forgetful] = pools::run("epilogue", || {
                let mut pre = Guarded::poisoned(if has_act { m * n } else { 0 });
                let [mut c, mut forgetful] = [(); 2].map(|()| Guarded::poisoned(m * n));
                let (a, b) = (MatRef::row_major(&a, m, k), MatRef::row_major(&b, k, n));
                let keep = has_act.then(|| pre.slice().into());
                for (c, pre) in [(&mut c, keep), (&mut forgetful, None)] {
                    let epilogue = Epilogue {
                        bias: has_bias.then_some(&bias[..]),
                        activation: has_act.then_some(Activation::Gelu),
                        pre,
                        residual: has_residual.then_some(&residual[..]),
                        ..Epilogue::default()
                    };
                    gemm(precision, a, b, c.slice(), false, epilogue);
                }
                [pre.finish("pre"), c.finish("c"), forgetful.finish("c")]
            });
            assert_eq!(y, forgetful, "{precision:?} {m}x{n}x{k}, parts {parts:03b}: without pre");
            let mut expected = product(precision, &a, &b, (m, n, k));
            let name = format!("{precision:?} {m}x{n}x{k}, parts {parts:03b}");
            let tolerance = tolerance_at(k + 4, 1.0 + (k as f64).sqrt() / 3.0);
            if has_bias {
                expected = reduce::add_row(&expected, &widen(&bias));
            }
            if has_act {
                assert_close(&format!("pre {name}"), &pre, &expected, tolerance);
                expected = activation::forward(&expected, activation::Activation::Gelu);
            }
            if has_residual {
                expected = reduce::add(&expected, &widen(&residual));
            }
            assert_close(&name, &y, &expected, tolerance);
        }
    }
}

#[test]
fn a_strided_view_reads_its_own_elements_only() {
    // Heads of a packed row: columns 3..7 of rows 10 wide, everything else NaN.
    let (m, k, n) = (33, 4, 15);
    let mut draws = Draws::new(4);
    let (a, b) = (draws.vec_f32(m * k), draws.vec_f32(k * n));
    let mut packed = vec![f32::NAN; m * 10];
    for i in 0..m {
        packed[i * 10 + 3..i * 10 + 7].copy_from_slice(&a[i * k..(i + 1) * k]);
    }
    for precision in PRECISIONS {
        let [c] = pools::run("strided", || {
            let mut c = Guarded::poisoned(m * n);
            let view = MatRef::strided(&packed[3..], m, k, 10, 1);
            gemm(
                precision,
                view,
                MatRef::row_major(&b, k, n),
                c.slice(),
                false,
                Epilogue::default(),
            );
            [c.finish("c")]
        });
        let expected = product(precision, &a, &b, (m, n, k));
        assert_close("strided", &c, &expected, tolerance(k, &expected));
    }
}
