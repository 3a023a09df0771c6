//! Results of timm for given draws, and the statistics of our own.

use serde_json::Value;

use super::*;

fn fixture(part: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/training/mixing.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all[part].as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn counts(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
}

#[test]
fn mixed_pixels_and_targets_are_timms() {
    let cases = fixture("mix");
    assert_eq!(cases.len(), 10);
    for case in cases {
        let [batch, channels, height, width] = counts(&case["shape"])[..] else { unreachable!() };
        let count = batch * channels * height * width;
        let mut values: Vec<f32> = (0..count).map(|i| (0.37 * i as f64).sin() as f32).collect();
        let mut pixels = Pixels { values: &mut values, channels, height, width };
        let lambda = case["lambda"].as_f64().unwrap();
        let share = if case["kind"] == "cutmix" {
            // timm does nothing at all where all stays, so that it draws no place.
            let place = numbers(&case["draws"]);
            if lambda < 1.0 { pixels.exchange(lambda, [place[0], place[1]]) } else { 1.0 }
        } else {
            pixels.blend(lambda as f32);
            lambda
        };
        let mix = Mix { smoothing: case["smoothing"].as_f64().unwrap(), ..Mix::default() };
        let targets = mix.targets(&counts(&case["labels"]), 5, share);
        for (what, found, expected) in
            [("pixels", &values, &case["pixels"]), ("targets", &targets, &case["targets"])]
        {
            let expected = numbers(expected);
            assert_eq!(found.len(), expected.len());
            for (at, (&found, expected)) in found.iter().zip(expected).enumerate() {
                assert!((f64::from(found) - expected).abs() < 3e-7, "{what} {at} of {case}");
            }
        }
    }
}

#[test]
fn erased_rectangles_are_timms() {
    let cases = fixture("erase");
    assert_eq!(cases.len(), 30);
    for case in cases {
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let mut draws = numbers(&case["draws"]).into_iter();
        let mut draw = || draws.next().unwrap();
        let found = erased((size("height"), size("width")), 0.75, &mut draw);
        assert_eq!(found.map(Vec::from), case["area"].as_array().map(|_| counts(&case["area"])));
        assert_eq!(draws.next(), None, "{case}");
    }
}

/// Mean and variance of `values`.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count)
}

#[test]
fn areas_and_ratios_of_erased_rectangles_are_distributed_as_they_should() {
    let (height, width) = (512, 512);
    let (mut areas, mut ratios) = (Vec::new(), Vec::new());
    for sample in 0..20_000 {
        let stream = Stream::new(5, "test", 0, sample);
        let mut index = 0;
        let mut draw = || {
            index += 1;
            stream.uniform(index - 1)
        };
        let Some([top, left, h, w]) = erased((height, width), 0.6, &mut draw) else { continue };
        assert!(top + h <= height && left + w <= width);
        areas.push((h * w) as f64 / (height * width) as f64);
        ratios.push((h as f64 / w as f64).ln());
    }
    let share = areas.len() as f64 / 20_000.0;
    assert!((share - 0.6).abs() < 0.02, "{share}");
    let smallest = areas.iter().copied().fold(1.0, f64::min);
    let largest = areas.iter().copied().fold(0.0, f64::max);
    assert!(smallest > 0.0195 && largest < 0.335, "{smallest} {largest}");
    assert!(smallest < 0.022 && largest > 0.331, "{smallest} {largest}");
    // A third at 10/3 is 1.05 of the side, so that the largest and longest are drawn again: means are near those of the
    // uniform laws, areas a little below.
    let (mean, variance) = moments(&areas);
    assert!((mean - 0.1767).abs() < 0.004, "{mean}");
    assert!((variance / (0.3133f64.powi(2) / 12.0) - 1.0).abs() < 0.04, "{variance}");
    let (mean, variance) = moments(&ratios);
    let most = (10.0f64 / 3.0).ln();
    assert!(mean.abs() < 0.02, "{mean}");
    assert!((variance / (most.powi(2) / 3.0) - 1.0).abs() < 0.04, "{variance}");
    assert!(ratios.iter().all(|ratio| ratio.abs() < most + 0.02));
}

#[test]
fn mixing_shares_have_the_moments_of_beta() {
    for alpha in [0.2, 0.8, 1.0] {
        let shares: Vec<f64> = (0..20_000)
            .map(|batch| {
                let mut values = [0.0f32; 2];
                let mut pixels = Pixels { values: &mut values, channels: 1, height: 1, width: 1 };
                let mix = Mix { mixup: alpha, smoothing: 0.0, ..Mix::default() };
                f64::from(mix.apply(&mut pixels, &[0, 1], 2, (3, batch))[0])
            })
            .collect();
        let (mean, variance) = moments(&shares);
        // Of Beta(α, α): ½, 1 / (4 (2 α + 1)), and E (x − ½)⁴ = 3 / (16 (2 α + 1) (2 α + 3)).
        let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
        let fourth = shares.iter().map(|x| (x - 0.5).powi(4)).sum::<f64>() / 20_000.0;
        let fourth_expected = 3.0 / (16.0 * (2.0 * alpha + 1.0) * (2.0 * alpha + 3.0));
        assert!((mean - 0.5).abs() < 0.01, "{alpha}: {mean}");
        assert!((variance / expected - 1.0).abs() < 0.03, "{alpha}: {variance}");
        assert!((fourth / fourth_expected - 1.0).abs() < 0.05, "{alpha}: {fourth}");
    }
}
