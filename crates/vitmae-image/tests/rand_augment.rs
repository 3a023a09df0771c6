//! RandAugment against timm on Pillow (`tests/fixtures/augment/operations.csv`, written by `tests/generate/augment.py`),
//! its notation, and the statistics of its draws.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;

use vitmae_image::{Image, ImageError, Operation, RandAugment};

const FILL: [u8; 3] = [124, 116, 104];

#[test]
fn operations_equal_timm_on_pillow() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/augment/operations.csv");
    let text = std::fs::read_to_string(path).unwrap();
    let mut wrong = BTreeMap::<&str, Vec<&str>>::new();
    let mut rows = 0;
    for row in text.lines().skip(1) {
        let cells: Vec<&str> = row.split(',').collect();
        let [name, level, turned, kind, seed, width, height, hash] = cells[..] else {
            panic!("{row}")
        };
        let number = |text: &str| text.parse::<usize>().unwrap();
        let image = pattern(kind, number(seed), number(width), number(height));
        let (_, operation) = Operation::ALL.into_iter().find(|(n, _)| *n == name).unwrap();
        let result = operation.apply(&image, level.parse().unwrap(), turned == "1", FILL).unwrap();
        if fnv(&result.data) != hash {
            wrong.entry(name).or_default().push(row);
        }
        rows += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Pillow refuses to posterize to 0 bits, which timm asks for at level 10.
    assert_eq!(rows, (15 * 7 - 1) * 2 * 5);
}

#[test]
fn the_notation_is_read_and_mistakes_are_named() {
    let policy: RandAugment = "rand-m9-mstd0.5-inc1".parse().unwrap();
    let expected = RandAugment { magnitude: 9.0, deviation: 0.5, operations: 2, probability: 0.5 };
    assert_eq!(policy, expected);
    assert_eq!(policy.to_string().parse::<RandAugment>().unwrap(), policy);
    let policy: RandAugment = "rand-inc1-n3-m7.5-p0.8".parse().unwrap();
    assert_eq!((policy.operations, policy.magnitude, policy.probability), (3, 7.5, 0.8));
    for (text, message) in [
        ("rand-m9", "found `no `inc1``, expected `inc1`"),
        ("rand-m9-inc0", "found `inc0`, expected `inc1`"),
        ("augmix-m3", "found `augmix`, expected `rand` first"),
        ("rand-m11-inc1", "found `m11`, expected `m` with a level from 0 to 10"),
        ("rand-mNaN-inc1", "found `mNaN`, expected `m`, `n`, `p`, `mstd` or `inc1`"),
        ("rand-n0-inc1", "found `n0`, expected `n` with a whole number"),
        ("rand-m9-mstd-1-inc1", "found `mstd`, expected `mstd` with a number"),
        ("rand-w0-inc1", "found `w0`"),
        ("", "found ``, expected `rand` first"),
    ] {
        let found = text.parse::<RandAugment>().unwrap_err().to_string();
        assert!(found.contains(message), "{text}: {found}");
    }
}

#[test]
fn grey_images_and_wrong_draws_are_refused() {
    let policy: RandAugment = "rand-m9-p1-inc1".parse().unwrap();
    let grey = Image::new(4, 4, 1, vec![7; 16]).unwrap();
    let error = policy.apply(&grey, FILL, &mut || 0.3).unwrap_err();
    assert!(matches!(error, ImageError::Channels { found: 1, .. }), "{error}");
    let error = policy.apply(&grey.to_rgb(), FILL, &mut || 1.0).unwrap_err();
    assert!(matches!(error, ImageError::RandomCrop { .. }), "{error}");
}

#[test]
fn half_of_the_operations_are_applied_and_draws_decide_all() {
    // On this image every operation at level 9 changes something, in either direction.
    let policy: RandAugment = "rand-m9-n1-mstd0.5-inc1".parse().unwrap();
    let image = pattern("noise", 9, 24, 20);
    let image = Image { data: image.data.iter().map(|v| 40 + v / 2).collect(), ..image };
    for (name, operation) in Operation::ALL {
        for turned in [false, true] {
            assert_ne!(operation.apply(&image, 9.0, turned, FILL).unwrap(), image, "{name}");
        }
    }
    let result = |seed: u64| {
        let mut index = 0;
        let mut draw = || {
            index += 1;
            (splitmix(seed, index - 1) >> 11) as f64 / (1u64 << 53) as f64
        };
        policy.apply(&image, FILL, &mut draw).unwrap()
    };
    let changed = (0..2000).filter(|&seed| result(seed) != image).count();
    // 1000 is expected, with a standard deviation of 22.
    assert!((890..1110).contains(&changed), "{changed} of 2000");
    assert_eq!(result(5), result(5));
}

/// As `pattern` of `augment.py`.
fn pattern(kind: &str, seed: usize, width: usize, height: usize) -> Image {
    let value = |x: usize, y: usize, c: usize| match kind {
        "noise" => (splitmix(seed as u64, ((y * width + x) * 3 + c) as u64) >> 56) as u8,
        _ => {
            let wave = (x * (1 + seed % 5) + y * (1 + seed / 5 % 7) + c * 85 + seed % 512) % 512;
            (if wave < 256 { wave } else { 511 - wave }) as u8
        }
    };
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let data = places.flat_map(|(x, y)| [0, 1, 2].map(|c| value(x, y, c))).collect();
    Image::new(width, height, 3, data).unwrap()
}

/// FNV-1a, 64 bits.
fn fnv(data: &[u8]) -> String {
    let hash = data.iter().fold(0xCBF2_9CE4_8422_2325u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    format!("{hash:016x}")
}

/// Number `index` of the splitmix64 stream that starts at `seed`.
fn splitmix(seed: u64, index: u64) -> u64 {
    let z = seed.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
