use super::device::{self, Canary, rounded};
use super::output::stored;
use vitmae_kernels::gemm::{MatRef, Strategy, gemm, gemm_with};
use vitmae_kernels::{Array, Client, Dtype, KernelError};
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::{tolerance, tolerance_at};
use vitmae_testing::reference::{linear, reduce};

/// m, n, k: small sides, sides around the tiles, sums long enough to be split, and more tiles than one.
const SHAPES: [[usize; 3]; 16] = [
    [1, 1, 1],
    [1, 33, 13],
    [14, 1, 31],
    [15, 31, 14],
    [31, 13, 1],
    [33, 33, 33],
    [50, 197, 64],
    [197, 50, 33],
    [113, 16, 769],
    [65, 49, 513],
    [1, 769, 197],
    [129, 1, 385],
    [15, 31, 1025],
    [3, 700, 5],
    [129, 257, 50],
    [64, 128, 104],
];

/// `a: [m, k]` times `b: [k, n]` in f64, through the reference of a linear map.
fn product(a: &[f32], b: &[f32], [m, n, k]: [usize; 3]) -> Vec<f64> {
    let transposed: Vec<f64> = (0..n * k).map(|i| b[i % k * n + i / k].into()).collect();
    let shape = linear::Shape { rows: m, inputs: k, outputs: n };
    linear::forward(&widen(a), &transposed, linear::Epilogue::default(), shape).y
}

fn transpose(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect()
}

/// `A·B` with the operands laid out as `layout` says.
fn multiply(
    client: &Client,
    strategy: Strategy,
    layout: &str,
    (a, b): (&[f32], &[f32]),
    [m, n, k]: [usize; 3],
    [operands, out]: [Dtype; 2],
) -> Result<Vec<f32>, KernelError> {
    let array = |values: &[f32]| Array::from_f32_as(client, values, operands);
    let c = Canary::poisoned(client, m * n, out);
    let (a_array, b_array);
    let a = if layout == "tn" {
        a_array = array(&transpose(a, m, k));
        MatRef::row_major(&a_array, k, m).transposed()
    } else {
        a_array = array(a);
        MatRef::row_major(&a_array, m, k)
    };
    let b = if layout == "nt" {
        b_array = array(&transpose(b, k, n));
        MatRef::row_major(&b_array, n, k).transposed()
    } else {
        b_array = array(b);
        MatRef::row_major(&b_array, k, n)
    };
    gemm_with(client, strategy, a, b, c.array(), false)?;
    Ok(c.finish(client, layout))
}

/// Compares the product of one shape in some layouts with the reference.
fn assert_products(strategies: &[Strategy], shapes: &[[usize; 3]], layouts: &[&str], dtype: Dtype) {
    let (client, mut draws) = (device::client(), Draws::new(1));
    for &shape in shapes {
        let [m, n, k] = shape;
        let a = rounded(&draws.vec_f32(m * k), dtype);
        let b = rounded(&draws.vec_f32(k * n), dtype);
        let expected = product(&a, &b, shape);
        let bound = stored(tolerance_at(k, (k as f64).sqrt() / 3.0), dtype);
        for &layout in layouts {
            for &strategy in strategies {
                let name = format!("{strategy:?} {layout} {shape:?} {dtype}");
                let c = multiply(&client, strategy, layout, (&a, &b), shape, [dtype; 2]);
                let c = c.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_close(&name, &c, &expected, bound);
            }
        }
    }
}

#[test]
fn products_of_ragged_sizes_equal_the_reference() {
    for dtype in device::dtypes(&device::client()) {
        assert_products(&[Strategy::Tiled], &SHAPES, &["nn", "nt", "tn"], dtype);
    }
}

#[test]
fn half_operands_give_an_f32_product() {
    let (client, mut draws) = (device::client(), Draws::new(5));
    for dtype in device::dtypes(&client) {
        let shape @ [m, n, k] = [50, 33, 197];
        let a = rounded(&draws.vec_f32(m * k), dtype);
        let b = rounded(&draws.vec_f32(k * n), dtype);
        let expected = product(&a, &b, shape);
        let tiled = Strategy::Tiled;
        let c = multiply(&client, tiled, "tn", (&a, &b), shape, [dtype, Dtype::F32]);
        let c = c.unwrap_or_else(|error| panic!("{dtype}: {error}"));
        assert_close(&dtype.to_string(), &c, &expected, tolerance(k, &expected));
    }
}

#[test]
fn products_on_matrix_units_equal_the_reference() {
    let (client, mut draws) = (device::client(), Draws::new(8));
    // Whole tiles, parts of tiles in each direction, and sums in parts.
    for shape @ [m, n, k] in [[128, 256, 64], [200, 136, 72], [72, 264, 40], [392, 96, 2056]] {
        for dtype in device::dtypes(&client).into_iter().filter(|&dtype| dtype != Dtype::F32) {
            let a = rounded(&draws.vec_f32(m * k), dtype);
            let b = rounded(&draws.vec_f32(k * n), dtype);
            let expected = product(&a, &b, shape);
            for layout in ["nn", "nt", "tn"] {
                let name = format!("{layout} {shape:?} {dtype}");
                let types = [dtype, Dtype::F32];
                match multiply(&client, Strategy::Matrix, layout, (&a, &b), shape, types) {
                    Ok(c) => assert_close(&name, &c, &expected, tolerance(k, &expected)),
                    Err(error) => assert!(!device::matrix_units(dtype), "{name}: {error}"),
                }
            }
            let before = draws.vec_f32(m * n);
            let c = Canary::filled(&client, &before);
            let [a, b] = [&a, &b].map(|values| Array::from_f32_as(&client, values, dtype));
            let (a, b) = (MatRef::row_major(&a, m, k), MatRef::row_major(&b, k, n));
            gemm(&client, a, b, c.array(), true);
            let expected = reduce::add(&widen(&before), &expected);
            let name = format!("{shape:?} {dtype}, accumulated");
            assert_close(&name, &c.finish(&client, &name), &expected, tolerance(k + 1, &expected));
        }
    }
}

#[test]
fn operands_of_two_types_multiply() {
    let (client, mut draws) = (device::client(), Draws::new(6));
    for dtype in device::dtypes(&client) {
        let shape @ [m, n, k] = [50, 33, 65];
        let a = rounded(&draws.vec_f32(m * k), dtype);
        // Exact in every type, so that it does not matter whether the device rounds it.
        let b = rounded(&draws.vec_f32(k * n), Dtype::BF16);
        let (a_array, b_array) =
            (Array::from_f32_as(&client, &a, dtype), Array::from_f32(&client, &b));
        let c = Canary::poisoned(&client, m * n, dtype);
        let a_view = MatRef::row_major(&a_array, m, k);
        gemm(&client, a_view, MatRef::row_major(&b_array, k, n), c.array(), false);
        let bound = tolerance_at(k, (k as f64).sqrt() / 3.0);
        let c = c.finish(&client, "c");
        assert_close("two types", &c, &product(&a, &b, shape), stored(bound, dtype));
    }
}

#[test]
fn what_does_not_suit_matrix_units_is_refused() {
    let client = device::client();
    let refused = |[m, n, k]: [usize; 3], dtype: Dtype| {
        let (a, b) = (vec![1.0; m * k], vec![1.0; k * n]);
        let types = [dtype, Dtype::F32];
        match multiply(&client, Strategy::Matrix, "nn", (&a, &b), [m, n, k], types) {
            Ok(_) => false,
            Err(KernelError::Refused { op: "gemm", .. }) => true,
            Err(error) => panic!("{error}"),
        }
    };
    // f32 must never be rounded on the way.
    assert!(refused([128, 128, 128], Dtype::F32));
    for dtype in device::dtypes(&client).into_iter().filter(|&dtype| dtype != Dtype::F32) {
        assert_eq!(refused([128, 128, 128], dtype), !device::matrix_units(dtype));
        // Rows that are no whole vectors, and products too small for a tile.
        assert!(refused([128, 128, 127], dtype) && refused([128, 127, 128], dtype));
        assert!(refused([8, 128, 128], dtype));
    }
}

#[test]
fn accumulation_adds_to_what_is_there() {
    let (client, mut draws) = (device::client(), Draws::new(2));
    for shape @ [m, n, k] in [[1, 1, 1], [13, 33, 15], [50, 31, 769], [5, 7, 0]] {
        let (a, b, c0) = (draws.vec_f32(m * k), draws.vec_f32(k * n), draws.vec_f32(m * n));
        let (a_array, b_array) = (Array::from_f32(&client, &a), Array::from_f32(&client, &b));
        let expected = reduce::add(&widen(&c0), &product(&a, &b, shape));
        let c = Canary::filled(&client, &c0);
        let (a, b) = (MatRef::row_major(&a_array, m, k), MatRef::row_major(&b_array, k, n));
        gemm(&client, a, b, c.array(), true);
        let name = format!("{shape:?}");
        assert_close(&name, &c.finish(&client, &name), &expected, tolerance(k + 1, &expected));
    }
}

#[test]
fn an_empty_inner_side_gives_zero_and_an_empty_product_nothing() {
    let client = device::client();
    let empty = Array::empty(&client, 0, Dtype::F32);
    let c = Canary::poisoned(&client, 6, Dtype::F32);
    let (a, b) = (MatRef::row_major(&empty, 2, 0), MatRef::row_major(&empty, 0, 3));
    gemm(&client, a, b, c.array(), false);
    assert_eq!(c.finish(&client, "c"), [0.0; 6]);
    let (a, b) = (MatRef::row_major(&empty, 0, 4), MatRef::row_major(&empty, 4, 0));
    gemm(&client, a, b, &empty, false);
}

#[test]
fn a_strided_view_reads_its_own_elements_only() {
    // Heads of a packed row: columns 3..7 of rows 10 wide, or every second one, everything else NaN.
    let (client, mut draws) = (device::client(), Draws::new(4));
    let shape @ [m, n, k] = [33, 15, 4];
    let (a, b) = (draws.vec_f32(m * k), draws.vec_f32(k * n));
    let expected = product(&a, &b, shape);
    for (offset, col_stride) in [(3, 1), (1, 2)] {
        let mut packed = vec![f32::NAN; m * 10];
        for (at, value) in a.iter().enumerate() {
            packed[at / k * 10 + offset + at % k * col_stride] = *value;
        }
        let (packed, b) = (Array::from_f32(&client, &packed), Array::from_f32(&client, &b));
        let c = Canary::poisoned(&client, m * n, Dtype::F32);
        let view = MatRef::strided(&packed, offset, [m, k], [10, col_stride]);
        gemm(&client, view, MatRef::row_major(&b, k, n), c.array(), false);
        let c = c.finish(&client, "c");
        assert_close("strided", &c, &expected, tolerance(k, &expected));
    }
}

#[test]
fn a_product_is_the_same_in_every_run() {
    let (client, mut draws) = (device::client(), Draws::new(7));
    let shape @ [m, n, k] = [65, 33, 1030];
    let (a, b) = (draws.vec_f32(m * k), draws.vec_f32(k * n));
    let run = || {
        let c = multiply(&client, Strategy::Tiled, "nn", (&a, &b), shape, [Dtype::F32; 2]);
        c.expect("every device can")
    };
    let first = run();
    assert!(first.iter().zip(run()).all(|(a, b)| a.to_bits() == b.to_bits()));
}
