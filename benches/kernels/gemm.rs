use criterion::Criterion;
use vitmae_benches::{Rate, bench as add, bf16_flop, flop, int8_op, narrow};
use vitmae_cpu::activation::Activation;
use vitmae_cpu::gemm::{Epilogue, MatRef, PackedB, Precision, gemm_packed};
use vitmae_cpu::linear::{self, Shape};
use vitmae_cpu::values::Bf16;
use vitmae_testing::draws::Draws;

/// Rows, inputs and outputs of a linear layer.
const LAYERS: [(&str, [usize; 3]); 7] = [
    ("encoder qkv", [400, 768, 2304]),
    ("encoder fc1", [400, 768, 3072]),
    ("encoder fc2", [400, 3072, 768]),
    ("decoder qkv", [1576, 512, 1536]),
    ("decoder fc1", [1576, 512, 2048]),
    ("decoder fc2", [1576, 2048, 512]),
    ("encoder fc1, one image", [50, 768, 3072]),
];

pub(crate) fn bench(criterion: &mut Criterion<Rate>) {
    for (name, [rows, inputs, outputs]) in LAYERS {
        let shape = Shape { rows, inputs, outputs };
        let mut draws = Draws::new(1);
        let (x, weight) = (draws.vec_f32(rows * inputs), draws.vec_f32(outputs * inputs));
        let (dy, bias) = (draws.vec_f32(rows * outputs), draws.vec_f32(outputs));
        let (mut y, mut pre) = (vec![0.0; rows * outputs], vec![0.0; rows * outputs]);
        let (mut dx, mut dweight) = (vec![0.0; rows * inputs], vec![0.0; outputs * inputs]);
        let product = 2 * rows * inputs * outputs;
        let quantised = linear::quantise(&weight, inputs, outputs);
        add(criterion, "gemm", &format!("{name} forward int8"), int8_op(product), || {
            let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
            linear::forward_int8(&x, &quantised, epilogue, &mut y);
        });
        for (precision, suffix) in [(Precision::F32, ""), (Precision::Bf16, " bf16")] {
            let work = if precision == Precision::F32 { flop(product) } else { bf16_flop(product) };
            let mut case = |what: &str, kernel: &mut dyn FnMut()| {
                add(criterion, "gemm", &format!("{name} {what}{suffix}"), work.clone(), kernel);
            };
            case("forward", &mut || {
                let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
                linear::forward(precision, &x, &weight, epilogue, shape, &mut y);
            });
            let packed = MatRef::row_major(&weight, outputs, inputs).transposed();
            let packed = PackedB::new(precision, packed);
            case("forward, weight packed before", &mut || {
                let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
                let x = MatRef::row_major(&x, rows, inputs);
                gemm_packed(x, &packed, &mut y, false, epilogue);
            });
            if name.contains("fc1") {
                case("forward with gelu", &mut || {
                    let epilogue = Epilogue {
                        bias: Some(&bias),
                        activation: Some(Activation::Gelu),
                        pre: Some((&mut pre).into()),
                        ..Epilogue::default()
                    };
                    linear::forward(precision, &x, &weight, epilogue, shape, &mut y);
                });
            }
            case("backward input", &mut || {
                linear::backward_input(precision, &dy, &weight, shape, &mut dx);
            });
            case("backward weight", &mut || {
                linear::backward_weight(precision, &dy, &x, shape, &mut dweight, false);
            });
        }
        in_memory(criterion, name, shape, [&x, &dy, &weight, &bias], &mut dweight);
    }
}

/// The products in bf16 of values that are bf16 in memory: what goes in and what comes out, not weights and their
/// gradient.
fn in_memory(
    criterion: &mut Criterion<Rate>,
    name: &str,
    shape: Shape,
    [x, dy, weight, bias]: [&[f32]; 4],
    dweight: &mut [f32],
) {
    let precision = Precision::Bf16;
    let Shape { rows, inputs, outputs } = shape;
    let (x, dy, bias) = (narrow(x), narrow(dy), Some(bias));
    let [mut y, mut pre] = [(); 2].map(|()| vec![Bf16::ZERO; rows * outputs]);
    let mut dx = vec![Bf16::ZERO; rows * inputs];
    let work = bf16_flop(2 * rows * inputs * outputs);
    let mut case = |what: &str, kernel: &mut dyn FnMut()| {
        let id = format!("{name} {what} bf16 in memory");
        add(criterion, "gemm", &id, work.clone(), kernel);
    };
    case("forward", &mut || {
        let epilogue = Epilogue { bias, ..Epilogue::default() };
        linear::forward(precision, &x, weight, epilogue, shape, &mut y);
    });
    if name.contains("fc1") {
        case("forward with gelu", &mut || {
            let (activation, pre) = (Some(Activation::Gelu), Some((&mut pre).into()));
            let epilogue = Epilogue { bias, activation, pre, ..Epilogue::default() };
            linear::forward(precision, &x, weight, epilogue, shape, &mut y);
        });
    }
    case("backward input", &mut || {
        linear::backward_input(precision, &dy, weight, shape, &mut dx);
    });
    case("backward weight", &mut || {
        linear::backward_weight(precision, &dy, &x, shape, dweight, false);
    });
}
