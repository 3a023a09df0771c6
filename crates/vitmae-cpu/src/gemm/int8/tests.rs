//! 8-bit products against f64 on the quantised factors, and against themselves.

use super::*;

/// The rows of a matrix that [`gemm_int8`] multiplies as it sees them: quantised and back.
fn seen(a: &[f32], k: usize) -> Vec<f64> {
    let rows = a.chunks_exact(k).flat_map(|row| {
        let (scale, zero) = range(row);
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        row.iter().map(move |value| {
            let u = f32::from(integer::<true>(*value, inverse, zero as f32));
            f64::from(scale) * f64::from(u - zero as f32)
        })
    });
    rows.collect()
}

fn draws(count: usize, seed: u32) -> Vec<f32> {
    let draw = |i: usize| crate::random::philox4x32([seed, 0], [i as u32, 0, 0, 0])[0];
    (0..count).map(|i| draw(i) as f32 / u32::MAX as f32 - 0.4).collect()
}

fn run(a: &[f32], b: &QuantisedB, m: usize) -> Vec<f32> {
    let mut c = vec![f32::NAN; m * b.n];
    gemm_int8(a, b, &mut c, Epilogue::default());
    c
}

/// The product of what the quantised factors stand for, in f64.
fn expected(a: &[f32], b: &[f32], [m, n, k]: [usize; 3]) -> Vec<f64> {
    let a = seen(a, k);
    let mut c = vec![0.0; m * n];
    for j in 0..n {
        let column = || (0..k).map(|p| b[p * n + j]);
        let scale = column().fold(0.0f32, |l, b| l.max(b.abs())) / 127.0;
        for i in 0..m {
            let terms = column().enumerate().map(|(p, b)| {
                a[i * k + p] * f64::from((b * (1.0 / scale)).round_ties_even() * scale)
            });
            c[i * n + j] = terms.sum();
        }
    }
    c
}

#[test]
fn sums_are_those_of_the_integers_at_any_number_of_threads() {
    for [m, n, k] in [[1, 1, 1], [50, 97, 130], [197, 33, 64], [15, 200, 1000], [419, 64, 67]] {
        let (a, b) = (draws(m * k, 1), draws(k * n, 2));
        let packed = QuantisedB::new(MatRef::row_major(&b, k, n));
        let expected = expected(&a, &b, [m, n, k]);
        let found = run(&a, &packed, m);
        for (found, expected) in found.iter().zip(&expected) {
            let error = (f64::from(*found) - expected).abs();
            assert!(error < 1e-5 * (k as f64).sqrt(), "{m}x{n}x{k}: {found} {expected}");
        }
        for threads in [1, 2, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| run(&a, &packed, m)), found, "{threads} threads");
        }
    }
}

#[test]
fn every_way_to_multiply_gives_the_same_bits() {
    let level = Level::here();
    for (rows, cols) in (1..=MR).zip([32, 1, 15, 16, 17, 31].into_iter().cycle()) {
        for k in [1, 64, 65, 700] {
            let words = words(k);
            // With the largest integers there are.
            let byte = |i: usize, step: usize| (i * step % 256) as u8;
            let a: Vec<u8> =
                (0..rows * words * 4).map(|i| if i % 3 == 0 { 255 } else { byte(i, 37) }).collect();
            let b: Vec<i8> = (0..NR * words * 4)
                .map(|i| if i % 5 == 0 { -127 } else { byte(i, 91) as i8 })
                .collect();
            let (a, b) = (scratched(&a), scratched(&b));
            let (scales, column_scales) = (draws(rows, 11), draws(cols, 12));
            let zeros: Vec<i32> = (0..rows as i32).map(|i| 17 * i).collect();
            let sums: Vec<i32> = (0..cols as i32).map(|j| 1000 * j - 9000).collect();
            let scaling = Scaling {
                scales: &scales,
                zeros: &zeros,
                column_scales: &column_scales,
                sums: &sums,
            };
            let run = |level: Level| {
                let mut c = vec![7.0; rows * (cols + 3)];
                let corner = Corner { data: c.as_mut_ptr(), stride: cols + 3, rows, cols };
                // SAFETY: the panels and the corner have these sizes; the level is this CPU's.
                unsafe { level.multiply(&a, &b, &scaling, corner) };
                c
            };
            assert_eq!(run(level), run(Level::Plain), "{rows} rows, {cols} columns, k {k}");
        }
    }
}

fn scratched<T: bytemuck::Pod>(bytes: &[T]) -> Vec<f32> {
    let bytes: &[u8] = bytemuck::cast_slice(bytes);
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

#[test]
fn an_8_bit_product_is_near_the_product() {
    let [m, n, k] = [64, 48, 768];
    let (a, b) = (draws(m * k, 3), draws(k * n, 4));
    let found = run(&a, &QuantisedB::new(MatRef::row_major(&b, k, n)), m);
    let (mut error, mut size) = (0.0, 0.0);
    for i in 0..m {
        for j in 0..n {
            let exact: f64 =
                (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j])).sum();
            error += (f64::from(found[i * n + j]) - exact).powi(2);
            size += exact.powi(2);
        }
    }
    assert!((error / size).sqrt() < 5e-3, "{}", (error / size).sqrt());
}

#[test]
fn zeros_are_exact_and_what_is_not_finite_shows() {
    let (m, n, k) = (3, 5, 70);
    let b = draws(k * n, 5);
    let packed = QuantisedB::new(MatRef::row_major(&b, k, n));
    assert!(run(&vec![0.0; m * k], &packed, m).iter().all(|&c| c == 0.0));
    for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut a = draws(m * k, 6);
        a[k + 69] = special;
        let c = run(&a, &packed, m);
        assert!(c[n..2 * n].iter().all(|c| c.is_nan()), "{special}");
        assert!(c[..n].iter().chain(&c[2 * n..]).all(|c| c.is_finite()), "{special}");
        let mut b = b.clone();
        b[3 * n + 2] = special;
        let c = run(&draws(m * k, 6), &QuantisedB::new(MatRef::row_major(&b, k, n)), m);
        assert!(c.chunks_exact(n).all(|row| row[2].is_nan() && row[1].is_finite()));
    }
}

#[test]
fn the_epilogue_is_that_of_every_product() {
    let (m, n, k) = (20, 40, 33);
    let (a, b) = (draws(m * k, 7), draws(k * n, 8));
    let (bias, residual) = (draws(n, 9), draws(m * n, 10));
    let packed = QuantisedB::new(MatRef::row_major(&b, k, n));
    let plain = run(&a, &packed, m);
    let mut c = vec![0.0; m * n];
    let epilogue = Epilogue { bias: Some(&bias), residual: Some(&residual), ..Epilogue::default() };
    gemm_int8(&a, &packed, &mut c, epilogue);
    for (i, c) in c.iter().enumerate() {
        assert_eq!(*c, plain[i] + bias[i % n] + residual[i]);
    }
}
