use super::device::{self, Canary, rounded};
use super::output::stored;
use vitmae_kernels::gemm::{MatRef, Strategy, gemm, gemm_with};
use vitmae_kernels::{Array, Capabilities, Client, Dtype, KernelError};
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

/// The strategies that a device without matrix units must have.
const PORTABLE: [Strategy; 3] = [Strategy::Tiled, Strategy::SimpleUnit, Strategy::DoubleUnit];

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
fn products_by_routines_equal_the_reference() {
    // Fewer, because each shape and layout is another kernel to compile.
    let shapes = [[33, 33, 33], [1, 70, 197], [64, 128, 104]];
    assert_products(&PORTABLE[1..], &shapes, &["nn", "nt", "tn"], Dtype::F32);
    for dtype in device::dtypes(&device::client()).into_iter().filter(|&d| device::computes_in(d)) {
        assert_products(&PORTABLE[1..], &[[50, 33, 64]], &["nt"], dtype);
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
        let all = if device::computes_in(dtype) { &PORTABLE[..] } else { &PORTABLE[..1] };
        for &strategy in all {
            let name = format!("{strategy:?} {dtype}");
            let c = multiply(&client, strategy, "tn", (&a, &b), shape, [dtype, Dtype::F32]);
            let c = c.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_close(&name, &c, &expected, tolerance(k, &expected));
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
fn what_does_not_suit_the_device_is_refused() {
    let client = device::client();
    let capabilities = Capabilities::of(&client);
    let values = vec![1.0; 64 * 64];
    for dtype in device::dtypes(&client) {
        for strategy in Strategy::ALL {
            let run =
                multiply(&client, strategy, "nn", (&values, &values), [64; 3], [dtype, Dtype::F32]);
            let on_matrix_units = matches!(strategy, Strategy::SimpleCmma | Strategy::DoubleCmma);
            match run {
                Ok(c) => assert_eq!(c, [64.0; 64 * 64], "{strategy:?} {dtype}"),
                Err(KernelError::Refused { op: "gemm", .. }) => {
                    let must = PORTABLE.contains(&strategy) && device::computes_in(dtype);
                    assert!(!must, "{strategy:?} {dtype}");
                }
                Err(error) => panic!("{strategy:?} {dtype}: {error}"),
            }
            // f32 must never be rounded on the way.
            if on_matrix_units && dtype == Dtype::F32 {
                let chosen = Strategy::choose(dtype, dtype, &capabilities);
                assert!(!matches!(chosen, Strategy::SimpleCmma | Strategy::DoubleCmma));
            }
        }
    }
}

#[test]
fn accumulation_adds_to_what_is_there() {
    let (client, mut draws) = (device::client(), Draws::new(2));
    for shape @ [m, n, k] in [[1, 1, 1], [13, 33, 15], [50, 31, 769], [5, 7, 0]] {
        let (a, b, c0) = (draws.vec_f32(m * k), draws.vec_f32(k * n), draws.vec_f32(m * n));
        let (a_array, b_array) = (Array::from_f32(&client, &a), Array::from_f32(&client, &b));
        let expected = reduce::add(&widen(&c0), &product(&a, &b, shape));
        for strategy in PORTABLE {
            let c = Canary::filled(&client, &c0);
            let (a, b) = (MatRef::row_major(&a_array, m, k), MatRef::row_major(&b_array, k, n));
            gemm_with(&client, strategy, a, b, c.array(), true).expect("every device can");
            let name = format!("{strategy:?} {shape:?}");
            let c = c.finish(&client, &name);
            assert_close(&name, &c, &expected, tolerance(k + 1, &expected));
        }
    }
}

#[test]
fn an_empty_inner_side_gives_zero_and_an_empty_product_nothing() {
    let client = device::client();
    let empty = Array::empty(&client, 0, Dtype::F32);
    for strategy in PORTABLE {
        let c = Canary::poisoned(&client, 6, Dtype::F32);
        let (a, b) = (MatRef::row_major(&empty, 2, 0), MatRef::row_major(&empty, 0, 3));
        gemm_with(&client, strategy, a, b, c.array(), false).expect("every device can");
        assert_eq!(c.finish(&client, "c"), [0.0; 6]);
        let (a, b) = (MatRef::row_major(&empty, 0, 4), MatRef::row_major(&empty, 4, 0));
        gemm_with(&client, strategy, a, b, &empty, false).expect("every device can");
    }
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
