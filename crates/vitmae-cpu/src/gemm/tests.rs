//! Every method of the machine against f64: its panels, its corners, and whole products.

use super::kernel::Corner;
use super::left::Panel;
use super::method::Method;
use super::*;
use crate::activation;
use crate::bf16;
use crate::scratch;
use crate::values::Bf16;

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

fn methods() -> impl Iterator<Item = (Precision, Method)> {
    PRECISIONS.into_iter().flat_map(|p| Method::all(p).into_iter().map(move |method| (p, method)))
}

fn draws(count: usize, seed: u32) -> Vec<f32> {
    let draw = |i: usize| crate::random::philox4x32([seed, 0], [i as u32, 0, 0, 0])[0];
    (0..count).map(|i| draw(i) as f32 / u32::MAX as f32 - 0.5).collect()
}

/// `a · b` in f64, of rounded values.
fn product(precision: Precision, a: MatRef, b: MatRef) -> Vec<f64> {
    let at = |m: &MatRef, i: usize, j: usize| {
        let value = m.f32()[i * m.row_stride + j * m.col_stride];
        f64::from(if precision == Precision::F32 { value } else { bf16::round(value) })
    };
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let mut c = vec![0.0; m * n];
    for (i, c) in c.chunks_exact_mut(n).enumerate() {
        for p in 0..k {
            let a = at(&a, i, p);
            c.iter_mut().enumerate().for_each(|(j, c)| *c += a * at(&b, p, j));
        }
    }
    c
}

fn close(found: f32, expected: f64, k: usize) -> bool {
    (f64::from(found) - expected).abs() < 2e-6 * (1.0 + k as f64).sqrt()
}

#[test]
fn every_method_writes_its_corner_and_nothing_else() {
    for (precision, method) in methods() {
        let (mr, nr) = (method.mr(), method.nr());
        for k in [1, 5, 32, 67] {
            let (a, b) = (draws(mr * k, 1), draws(k * nr, 2));
            for (rows, cols) in (1..=mr).flat_map(|rows| (1..=nr).map(move |cols| (rows, cols))) {
                let a = MatRef::row_major(&a[..rows * k], rows, k);
                let b = MatRef::strided(&b, k, cols, nr, 1);
                let expected = product(precision, a, b);
                let mut packed_a = scratch::take(method.packed_a_len(rows, k));
                let mut packed_b = scratch::take(nr * method.words(k));
                method.pack_a(&a, 0..rows, &mut packed_a);
                method.pack_b(&b, 0..cols, &mut packed_b);
                let stride = nr + 3;
                for add in [false, true] {
                    let before = draws(mr * stride + 1, 3);
                    let mut c = before.clone();
                    let corner = Corner { data: c.as_mut_ptr(), stride, rows, cols };
                    let _ready = method.begin();
                    // SAFETY: the panels were packed for this method, and C has room for the corner.
                    unsafe { method.multiply(k, Panel::Packed(&packed_a), &packed_b, corner, add) };
                    for (index, (&found, &before)) in c.iter().zip(&before).enumerate() {
                        let (i, j) = (index / stride, index % stride);
                        let name = || format!("{method:?} {rows}x{cols}x{k} at ({i}, {j})");
                        if i >= rows || j >= cols {
                            assert_eq!(found, before, "{}", name());
                        } else {
                            let start = if add { before.into() } else { 0.0 };
                            assert!(close(found, start + expected[i * cols + j], k), "{}", name());
                        }
                    }
                }
            }
        }
    }
}

/// A matrix whose rows, columns or neither have neighbouring values.
fn view<'a, T>(data: &'a [T], rows: usize, cols: usize, layout: usize) -> MatRef<'a>
where
    Values<'a>: From<&'a [T]>,
{
    match layout {
        0 => MatRef::row_major(&data[..rows * cols], rows, cols),
        1 => MatRef::row_major(&data[..rows * cols], cols, rows).transposed(),
        _ => MatRef::strided(data, rows, cols, 2 * cols, 2),
    }
}

/// Sides that cross panels, groups of panels and k-blocks; views in every layout.
#[test]
fn every_method_gives_the_same_bits_at_any_number_of_threads() {
    let shapes =
        [(50, 97, 1030), (1, 3100, 33), (419, 33, 64), (67, 70, 2050), (33, 1, 31), (1100, 70, 64)];
    for (m, n, k) in shapes {
        let (a, b) = (draws(2 * m * k, 4), draws(2 * n * k, 5));
        for layout in 0..9 {
            let (a, b) = (view(&a, m, k, layout / 3), view(&b, k, n, layout % 3));
            for precision in PRECISIONS {
                let expected = product(precision, a, b);
                for method in Method::all(precision) {
                    let run = |threads: usize| {
                        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                        let mut c = vec![f32::NAN; m * n];
                        let epilogue = Epilogue::default();
                        pool.unwrap().install(|| {
                            gemm_by(method, a, b.into(), (&mut c).into(), false, epilogue)
                        });
                        c
                    };
                    let c = run(1);
                    let name = format!("{method:?} {m}x{n}x{k}, layout {layout}");
                    let right = c.iter().zip(&expected).all(|(&c, &e)| close(c, e, k));
                    assert!(right, "{name}");
                    assert!([2, 3, 8].into_iter().all(|threads| run(threads) == c), "{name}");
                }
            }
        }
    }
}

#[test]
fn small_products_equal_the_others() {
    for (precision, method) in methods() {
        let small = Small { method };
        for (m, n, k) in [(1, 1, 1), (33, 50, 64), (126, 197, 32), (197, 32, 126), (50, 64, 50)] {
            let (a, b) = (draws(2 * m * k, 8), draws(2 * n * k, 9));
            for layout in [0, 1, 3, 4] {
                let (a, b) = (view(&a, m, k, layout / 3), view(&b, k, n, layout % 3));
                let expected = product(precision, a, b);
                let width = n.next_multiple_of(small.nr());
                let mut packed_b = scratch::take(small.packed_len(k, n));
                let mut packed_a = scratch::take(small.scratch_len(m, k));
                small.pack(&b, &mut packed_b);
                let mut c = vec![1.0; m * width];
                for (accumulate, times) in [(false, 1.0), (true, 2.0)] {
                    small.multiply(a, &packed_b, width, &mut c, accumulate, &mut packed_a);
                    for (index, &c) in c.iter().enumerate() {
                        let (i, j) = (index / width, index % width);
                        let expected = if j < n { times * expected[i * n + j] } else { 0.0 };
                        assert!(close(c, expected, k), "{method:?} {m}x{n}x{k} at ({i}, {j})");
                    }
                }
            }
        }
    }
}

#[test]
fn nan_and_infinity_come_through() {
    for (_, method) in methods() {
        for special in [f32::NAN, f32::from_bits(0x7f80_0001), f32::INFINITY, -f32::INFINITY] {
            let (mut a, b, mut c) = (vec![1.0f32; 3 * 40], vec![1.0f32; 40 * 5], vec![0.0; 15]);
            a[40 + 33] = special;
            let (a, b) = (MatRef::row_major(&a, 3, 40), MatRef::row_major(&b, 40, 5));
            gemm_by(method, a, b.into(), (&mut c).into(), false, Epilogue::default());
            let right = |v: f32| if special.is_nan() { v.is_nan() } else { v == special };
            assert!(c[..5].iter().chain(&c[10..]).all(|&v| v == 40.0), "{method:?}");
            assert!(c[5..10].iter().all(|&v| right(v)), "{method:?} {special}");
        }
    }
}

#[test]
fn a_packed_matrix_gives_the_same_bits() {
    for (m, n, k) in [(50, 97, 1030), (1, 3100, 33), (67, 1, 5), (3, 5, 0), (2, 3, 66_000)] {
        let (a, b) = (draws(m * k, 6), draws(n * k, 7));
        let a = MatRef::row_major(&a, m, k);
        for b in [MatRef::row_major(&b, k, n), MatRef::row_major(&b, n, k).transposed()] {
            for precision in PRECISIONS {
                let [mut expected, mut found] = [vec![f32::NAN; m * n], vec![f32::NAN; m * n]];
                gemm(precision, a, b, &mut expected, false, Epilogue::default());
                let packed = PackedB::new(precision, b);
                gemm_packed(a, &packed, &mut found, false, Epilogue::default());
                assert_eq!(found, expected, "{precision:?} {m}x{n}x{k}");
            }
        }
    }
}

#[test]
fn a_packed_matrix_gives_its_values_back() {
    for (n, k) in [(97, 1030), (3100, 33), (1, 5), (32, 16), (48, 64), (3, 33_000), (5, 0), (0, 7)]
    {
        let values = draws(n * k, 7);
        for method in Method::all(Precision::F32) {
            let b = MatRef::row_major(&values, n, k).transposed();
            let packed = PackedB::by(method, b, |len| vec![f32::NAN; len]);
            let mut found = vec![f32::NAN; n * k];
            packed.unpack(&mut found);
            assert_eq!(found, values, "{method:?} {n}x{k}");
        }
    }
}

#[test]
#[should_panic(expected = "values in bf16 are not unpacked")]
fn rounded_values_are_not_given_back() {
    let packed = PackedB::new(Precision::Bf16, MatRef::row_major(&[1.0; 6], 2, 3));
    packed.unpack(&mut [0.0; 6]);
}

/// A matrix of bf16, and the same in f32.
fn in_bf16(values: &[f32]) -> (Vec<Bf16>, Vec<f32>) {
    let mut narrow = vec![Bf16::ZERO; values.len()];
    let mut wide = vec![0.0; values.len()];
    bf16::narrow(values, &mut narrow);
    bf16::widen(&narrow, &mut wide);
    (narrow, wide)
}

fn bits(values: &[Bf16]) -> Vec<u16> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn factors_in_bf16_give_the_bits_of_the_same_values_in_f32() {
    let shapes = [
        (50, 97, 1030),
        (1, 310, 33),
        (67, 70, 256),
        (33, 1, 31),
        (5, 40, 1),
        (67, 70, 2112),
        (1100, 600, 64),
    ];
    for (m, n, k) in shapes {
        let ((a, a_wide), (b, b_wide)) =
            (in_bf16(&draws(2 * m * k, 4)), in_bf16(&draws(2 * n * k, 5)));
        for layout in 0..9 {
            let wide = (view(&a_wide, m, k, layout / 3), view(&b_wide, k, n, layout % 3));
            let narrow = (view(&a, m, k, layout / 3), view(&b, k, n, layout % 3));
            for precision in PRECISIONS {
                for method in Method::all(precision) {
                    let run = |a: MatRef, b: MatRef, threads: usize| {
                        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                        let (mut c, mut rounded) = (vec![f32::NAN; m * n], vec![Bf16::NAN; m * n]);
                        pool.unwrap().install(|| {
                            let none = Epilogue::default();
                            gemm_by(method, a, b.into(), (&mut c).into(), false, none);
                            let none = Epilogue::default();
                            gemm_by(method, a, b.into(), (&mut rounded).into(), false, none);
                        });
                        (c, bits(&rounded))
                    };
                    let expected = run(wide.0, wide.1, 1);
                    for threads in [1, 2, 3, 8] {
                        let same = run(narrow.0, narrow.1, threads) == expected;
                        assert!(same, "{method:?} {m}x{n}x{k}, layout {layout}, {threads} threads");
                    }
                }
            }
        }
    }
}

#[test]
fn a_product_in_bf16_is_that_in_f32_rounded_once() {
    let gelu = Some(Activation::Gelu);
    for (m, n, k) in [(50, 97, 1030), (1, 310, 33), (419, 600, 64), (5, 40, 0)] {
        let (a, b, bias) = (draws(m * k, 4), draws(n * k, 5), draws(n, 6));
        let residual = draws(m * n, 7);
        let (a, b) = (MatRef::row_major(&a, m, k), MatRef::row_major(&b, k, n));
        for method in Method::all(Precision::Bf16) {
            let product = |epilogue: Epilogue| {
                let mut c = vec![f32::NAN; m * n];
                gemm_by(method, a, b.into(), (&mut c).into(), false, epilogue);
                c
            };
            let rounded = |epilogue: Epilogue| {
                let mut c = vec![Bf16::NAN; m * n];
                gemm_by(method, a, b.into(), (&mut c).into(), false, epilogue);
                bits(&c)
            };
            let shift = || Epilogue { bias: Some(&bias), ..Epilogue::default() };
            let sum = || Epilogue { residual: Some(&residual), ..shift() };
            let name = format!("{method:?} {m}x{n}x{k}");
            let (pre, pre_wide) = in_bf16(&product(shift()));
            assert_eq!(rounded(shift()), bits(&pre), "{name}");
            assert_eq!(rounded(sum()), bits(&in_bf16(&product(sum())).0), "{name}");
            let mut activated = vec![0.0; m * n];
            activation::forward(Activation::Gelu, &pre_wide, &mut activated);
            let activated = bits(&in_bf16(&activated).0);
            assert_eq!(rounded(Epilogue { activation: gelu, ..shift() }), activated, "{name}");
            let mut gradient = vec![0.0; m * n];
            let plain = product(Epilogue::default());
            activation::backward(Activation::Gelu, &pre_wide, &plain, &mut gradient);
            let through =
                |x| Epilogue { derivative: Some((Activation::Gelu, x)), ..Epilogue::default() };
            assert_eq!(product(through((&pre_wide).into())), gradient, "{name}");
            let gradient = bits(&in_bf16(&gradient).0);
            assert_eq!(rounded(through((&pre).into())), gradient, "{name}");
            let mut kept = vec![Bf16::NAN; m * n];
            let epilogue = Epilogue { activation: gelu, pre: Some((&mut kept).into()), ..shift() };
            assert_eq!(rounded(epilogue), activated, "{name}");
            assert_eq!(bits(&kept), bits(&pre), "{name}");
        }
    }
}
