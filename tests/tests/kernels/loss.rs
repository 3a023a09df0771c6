use super::pools;
use vitmae_cpu::loss::{self, Target};
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::loss as reference;

const TARGETS: [(Target, reference::Target); 3] = [
    (Target::Pixels, reference::Target::Pixels),
    (Target::Normalised, reference::Target::Normalised),
    (Target::NormalisedPopulation, reference::Target::NormalisedPopulation),
];

/// Patches and values a patch.
const SHAPES: [(usize, usize); 6] = [(1, 2), (3, 12), (196, 48), (33, 3), (257, 17), (50, 768)];

/// Three of four patches removed, as 0 and 1; at least one is.
fn mask(draws: &mut Draws, rows: usize) -> Vec<f32> {
    let mut mask: Vec<f32> =
        (0..rows).map(|_| f32::from(u8::from(draws.uniform() < 0.75))).collect();
    mask[rows / 2] = 1.0;
    mask
}

#[test]
fn forward_and_backward_equal_the_reference() {
    let mut draws = Draws::new(1);
    for ((rows, dim), (target, of_reference)) in
        SHAPES.into_iter().flat_map(|shape| TARGETS.map(|target| (shape, target)))
    {
        let (pred, patches) = (draws.vec_f32(rows * dim), draws.vec_f32(rows * dim));
        let mask = mask(&mut draws, rows);
        let [wide_pred, wide_patches, wide_mask] = [&pred, &patches, &mask].map(|x| widen(x));
        let name = |what: &str| format!("{what} {rows}x{dim} {target:?}");
        // A patch of nearly one colour is divided by a small deviation, so its roundings grow with it.
        let targets = reference::targets(&wide_patches, dim, of_reference);
        let smallest = wide_patches
            .chunks(dim)
            .zip(targets.chunks(dim))
            .map(|(patch, target)| {
                (patch[0] - patch[1]).abs() / (target[0] - target[1]).abs().max(1e-3)
            })
            .fold(1.0, f64::min);
        let scale = 4.0 / smallest.max(1e-3);

        let found =
            pools::run(&name("loss"), || [vec![loss::forward(&pred, &patches, &mask, target)]]);
        let expected = reference::forward(&wide_pred, &wide_patches, &wide_mask, of_reference);
        assert_close(&name("loss"), &found[0], &[expected], tolerance_at(4, scale));

        let gradient = reference::backward(&wide_pred, &wide_patches, &wide_mask, of_reference);
        let expected: Vec<f64> = gradient.iter().map(|g| 0.5 * g).collect();
        let size = 2.0 * 0.5 / (dim as f64 * wide_mask.iter().sum::<f64>());
        pools::assert_output(&name("dpred"), &expected, tolerance_at(6, scale * size), |dpred| {
            loss::backward(&pred, &patches, &mask, target, 0.5, dpred);
        });
        pools::assert_output(&name("targets"), &targets, tolerance_at(4, scale), |out| {
            loss::normalise_targets(&patches, dim, target, out);
        });
    }
}

#[test]
fn a_patch_of_one_colour_has_targets_of_zero() {
    for (target, _) in &TARGETS[1..] {
        pools::assert_output("targets", &[0.0; 12], tolerance_at(1, 0.0), |out| {
            loss::normalise_targets(&[0.25; 12], 12, *target, out);
        });
    }
}

#[test]
fn nothing_removed_gives_no_number() {
    assert!(loss::forward(&[1.0; 4], &[1.0; 4], &[0.0; 2], Target::Pixels).is_nan());
}

#[test]
fn values_of_kept_patches_do_not_matter() {
    let pred = [1.0, 2.0, f32::NAN, f32::INFINITY];
    assert_eq!(loss::forward(&pred, &[0.0; 4], &[1.0, 0.0], Target::Pixels), 2.5);
    pools::assert_output("dpred", &[1.0, 2.0, 0.0, 0.0], tolerance_at(1, 1.0), |dpred| {
        loss::backward(&pred, &[0.0; 4], &[1.0, 0.0], Target::Pixels, 1.0, dpred);
    });
}
