use super::pools;
use vitmae_cpu::loss::{self, Distance, Objective, Target};
use vitmae_testing::close::assert_close;
use vitmae_testing::draws::{Draws, widen};
use vitmae_testing::error_model::tolerance_at;
use vitmae_testing::reference::loss as reference;

const TARGETS: [(Target, reference::Target); 3] = [
    (Target::Pixels, reference::Target::Pixels),
    (Target::Normalised, reference::Target::Normalised),
    (Target::NormalisedPopulation, reference::Target::NormalisedPopulation),
];

const DISTANCES: [(Distance, reference::Distance); 2] = [
    (Distance::Squared, reference::Distance::Squared),
    (Distance::Absolute, reference::Distance::Absolute),
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
    let targets = SHAPES.into_iter().flat_map(|shape| TARGETS.map(|target| (shape, target)));
    for (((rows, dim), (target, of_reference)), (distance, distance_of_reference)) in
        targets.flat_map(|case| DISTANCES.map(|distance| (case, distance)))
    {
        let (objective, kind) =
            (Objective { target, distance }, (of_reference, distance_of_reference));
        let (pred, patches) = (draws.vec_f32(rows * dim), draws.vec_f32(rows * dim));
        let mask = mask(&mut draws, rows);
        let [wide_pred, wide_patches, wide_mask] = [&pred, &patches, &mask].map(|x| widen(x));
        let name = |what: &str| format!("{what} {rows}x{dim} {objective:?}");
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
            pools::run(&name("loss"), || [vec![loss::forward(&pred, &patches, &mask, objective)]]);
        let expected = reference::forward(&wide_pred, &wide_patches, &wide_mask, kind);
        assert_close(&name("loss"), &found[0], &[expected], tolerance_at(4, scale));

        let gradient = reference::backward(&wide_pred, &wide_patches, &wide_mask, kind);
        let expected: Vec<f64> = gradient.iter().map(|g| 0.5 * g).collect();
        let size = 2.0 * 0.5 / (dim as f64 * wide_mask.iter().sum::<f64>());
        pools::assert_output(&name("dpred"), &expected, tolerance_at(6, scale * size), |dpred| {
            loss::backward(&pred, &patches, &mask, objective, 0.5, dpred);
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
    for (distance, _) in DISTANCES {
        assert!(loss::forward(&[1.0; 4], &[1.0; 4], &[0.0; 2], of_pixels(distance)).is_nan());
    }
}

#[test]
fn values_of_kept_patches_do_not_matter() {
    let pred = [1.0, 2.0, f32::NAN, f32::INFINITY];
    for (distance, expected, slopes) in [
        (Distance::Squared, 2.5, [1.0, 2.0, 0.0, 0.0]),
        (Distance::Absolute, 1.5, [0.5, 0.5, 0.0, 0.0]),
    ] {
        let objective = of_pixels(distance);
        assert_eq!(loss::forward(&pred, &[0.0; 4], &[1.0, 0.0], objective), expected);
        pools::assert_output("dpred", &slopes, tolerance_at(1, 1.0), |dpred| {
            loss::backward(&pred, &[0.0; 4], &[1.0, 0.0], objective, 1.0, dpred);
        });
    }
}

#[test]
fn absolute_errors_have_slopes_of_one_size_and_none_at_zero() {
    let pred = [3.0, -1e-30, 0.5, 2.0];
    pools::assert_output("dpred", &[0.25, -0.25, 0.0, -0.25], tolerance_at(1, 0.0), |dpred| {
        let objective = of_pixels(Distance::Absolute);
        loss::backward(&pred, &[0.0, 0.0, 0.5, 7.0], &[1.0], objective, 1.0, dpred);
    });
    // What is no number stays none.
    let mut dpred = [0.0; 2];
    let objective = of_pixels(Distance::Absolute);
    loss::backward(&[f32::NAN, 1.0], &[0.0; 2], &[1.0], objective, 1.0, &mut dpred);
    assert!(dpred[0].is_nan() && dpred[1] == 0.5);
}

fn of_pixels(distance: Distance) -> Objective {
    Objective { target: Target::Pixels, distance }
}
