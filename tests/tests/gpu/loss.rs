use super::device::{Canary, client, dtypes, rounded};
use super::output::assert_output;
use vitmae_cpu::loss as cpu;
use vitmae_kernels::loss::{self, Distance, Objective, Target};
use vitmae_kernels::{Array, Dtype};
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::loss as reference;

const TARGETS: [(Target, cpu::Target, reference::Target); 3] = [
    (Target::Pixels, cpu::Target::Pixels, reference::Target::Pixels),
    (Target::Normalised, cpu::Target::Normalised, reference::Target::Normalised),
    (
        Target::NormalisedPopulation,
        cpu::Target::NormalisedPopulation,
        reference::Target::NormalisedPopulation,
    ),
];

const DISTANCES: [(Distance, cpu::Distance, reference::Distance); 2] = [
    (Distance::Squared, cpu::Distance::Squared, reference::Distance::Squared),
    (Distance::Absolute, cpu::Distance::Absolute, reference::Distance::Absolute),
];

const SQUARED: Objective = Objective { target: Target::Pixels, distance: Distance::Squared };

/// Patches and values a patch: both sides of the units of a cube.
const SHAPES: [(usize, usize); 6] = [(1, 2), (3, 12), (196, 48), (33, 3), (300, 17), (50, 768)];

/// Three of four patches removed, as 0 and 1; at least one is.
fn mask(draws: &mut Draws, rows: usize) -> Vec<f32> {
    let mut mask: Vec<f32> =
        (0..rows).map(|_| f32::from(u8::from(draws.uniform() < 0.75))).collect();
    mask[rows / 2] = 1.0;
    mask
}

/// The smallest deviation of a patch, 1 at most: a patch of nearly one colour is divided by a small
/// deviation, so its roundings grow with it.
fn smallest_deviation(patches: &[f64], targets: &[f64], dim: usize) -> f64 {
    patches
        .chunks(dim)
        .zip(targets.chunks(dim))
        .map(|(patch, target)| {
            (patch[0] - patch[1]).abs() / (target[0] - target[1]).abs().max(1e-3)
        })
        .fold(1.0, f64::min)
        .max(1e-3)
}

#[test]
fn forward_and_backward_equal_the_reference() {
    let (client, mut draws) = (client(), Draws::new(1));
    let cases = SHAPES.into_iter().flat_map(|shape| TARGETS.map(|target| (shape, target)));
    let cases = cases.flat_map(|(shape, target)| DISTANCES.map(|d| (shape, target, d)));
    for dtype in dtypes(&client) {
        for ((rows, dim), (target, of_cpu, of_reference), distances) in cases.clone() {
            let objective = Objective { target, distance: distances.0 };
            let twin_objective = cpu::Objective { target: of_cpu, distance: distances.1 };
            let kind = (of_reference, distances.2);
            let pred = rounded(&draws.vec_f32(rows * dim), dtype);
            let patches = draws.vec_f32(rows * dim);
            let mask = mask(&mut draws, rows);
            let [wide_pred, wide_patches, wide_mask] = [&pred, &patches, &mask].map(|x| widen(x));
            let on_pred = Array::from_f32_as(&client, &pred, dtype);
            let [on_patches, on_mask] = [&patches, &mask].map(|v| Array::from_f32(&client, v));
            let name = |what: &str| format!("{what} {rows}x{dim} {objective:?} of {dtype}");
            let targets = reference::targets(&wide_patches, dim, of_reference);
            let scale = 4.0 / smallest_deviation(&wide_patches, &targets, dim);

            let expected = reference::forward(&wide_pred, &wide_patches, &wide_mask, kind);
            let tolerance = tolerance_at(dim + rows, scale);
            let twin =
                |loss: &mut [f32]| loss[0] = cpu::forward(&pred, &patches, &mask, twin_objective);
            let f32 = Dtype::F32;
            assert_output(&client, &name("loss"), f32, &[expected], tolerance, twin, |loss| {
                loss::forward(&client, &on_pred, &on_patches, &on_mask, objective, loss);
            });

            let gradient = reference::backward(&wide_pred, &wide_patches, &wide_mask, kind);
            let expected: Vec<f64> = gradient.iter().map(|g| 0.5 * g).collect();
            let size = 2.0 * 0.5 / (dim as f64 * wide_mask.iter().sum::<f64>());
            let tolerance = tolerance_at(dim + 6, scale * size);
            let twin = |dpred: &mut [f32]| {
                cpu::backward(&pred, &patches, &mask, twin_objective, 0.5, dpred);
            };
            assert_output(&client, &name("dpred"), dtype, &expected, tolerance, twin, |dpred| {
                loss::backward(&client, &on_pred, &on_patches, &on_mask, objective, 0.5, dpred);
            });
            let twin = |out: &mut [f32]| cpu::normalise_targets(&patches, dim, of_cpu, out);
            let tolerance = tolerance_at(dim + 4, scale);
            assert_output(&client, &name("targets"), f32, &targets, tolerance, twin, |out| {
                loss::normalise_targets(&client, &on_patches, dim, target, out);
            });
        }
    }
}

/// One dimension of a launch has 65 535 cubes at most on many devices; a cube handles a patch.
#[test]
fn more_patches_than_one_dimension_holds_are_normalised() {
    let (client, rows) = (client(), 65_537);
    let patches: Vec<f32> = (0..3 * rows).map(|i| (i % 1009) as f32 / 100.0).collect();
    let on_patches = Array::from_f32(&client, &patches);
    let out = Canary::poisoned(&client, 3 * rows, Dtype::F32);
    loss::normalise_targets(&client, &on_patches, 3, Target::Normalised, out.array());
    let expected = reference::targets(&widen(&patches), 3, reference::Target::Normalised);
    let found = out.finish(&client, "targets");
    assert_close("targets", &found, &expected, tolerance_at(7, 100.0));
}

#[test]
fn a_patch_of_one_colour_has_targets_of_zero() {
    let client = client();
    for (target, of_cpu, _) in &TARGETS[1..] {
        for colour in [0.25f32, 0.3, -1.7] {
            let patch = vec![colour; 768];
            let on_patch = Array::from_f32(&client, &patch);
            let twin = |out: &mut [f32]| {
                cpu::normalise_targets(&patch, 768, *of_cpu, out);
                // Its f64 mean is rounded to f32.
                out.iter_mut().for_each(|t| *t = if t.abs() < 1e-3 { 0.0 } else { *t });
            };
            let (tolerance, f32) = (tolerance_at(1, 0.0), Dtype::F32);
            assert_output(&client, "targets", f32, &[0.0; 768], tolerance, twin, |out| {
                loss::normalise_targets(&client, &on_patch, 768, *target, out);
            });
        }
    }
}

#[test]
fn absolute_errors_have_slopes_of_one_size_and_none_at_zero() {
    let client = client();
    let pred = Array::from_f32(&client, &[3.0, -1e-30, 0.5, 2.0]);
    let patches = Array::from_f32(&client, &[0.0, 0.0, 0.5, 7.0]);
    let mask = Array::from_f32(&client, &[1.0]);
    let objective = Objective { distance: Distance::Absolute, ..SQUARED };
    let expected = [0.25, -0.25, 0.0, -0.25];
    let twin = |dpred: &mut [f32]| dpred.copy_from_slice(&[0.25, -0.25, 0.0, -0.25]);
    let (tolerance, f32) = (tolerance_at(1, 0.0), Dtype::F32);
    assert_output(&client, "dpred", f32, &expected, tolerance, twin, |dpred| {
        loss::backward(&client, &pred, &patches, &mask, objective, 1.0, dpred);
    });
}

#[test]
fn nothing_removed_gives_no_number() {
    let client = client();
    let (values, mask) = (Array::from_f32(&client, &[1.0; 4]), Array::from_f32(&client, &[0.0; 2]));
    let loss = Array::empty(&client, 1, Dtype::F32);
    loss::forward(&client, &values, &values, &mask, SQUARED, &loss);
    assert!(loss.to_f32(&client).expect("a value")[0].is_nan());
}

#[test]
fn values_of_kept_patches_do_not_matter() {
    let client = client();
    let pred = Array::from_f32(&client, &[1.0, 2.0, f32::NAN, f32::INFINITY]);
    let patches = Array::from_f32(&client, &[0.0; 4]);
    let mask = Array::from_f32(&client, &[1.0, 0.0]);
    let (tolerance, f32) = (tolerance_at(1, 1.0), Dtype::F32);
    let twin = |loss: &mut [f32]| loss[0] = 2.5;
    assert_output(&client, "loss", f32, &[2.5], tolerance, twin, |loss| {
        loss::forward(&client, &pred, &patches, &mask, SQUARED, loss);
    });
    let expected = [1.0, 2.0, 0.0, 0.0];
    let twin = |dpred: &mut [f32]| dpred.copy_from_slice(&[1.0, 2.0, 0.0, 0.0]);
    assert_output(&client, "dpred", f32, &expected, tolerance, twin, |dpred| {
        loss::backward(&client, &pred, &patches, &mask, SQUARED, 1.0, dpred);
    });
}
