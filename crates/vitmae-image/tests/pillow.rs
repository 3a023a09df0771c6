//! The crate against Pillow and transformers: every fixture of `tests/fixtures/images`, which
//! `tests/generate/images.py` writes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::path::PathBuf;

use vitmae_image::{
    Filter, Image, Limits, RandomResizedCrop, VitImageProcessor, augment, decode,
    random_resized_crop, resize,
};

#[test]
fn decoding_equals_pillow() {
    let rows = table("decode.csv");
    let mut wrong = Vec::new();
    for [file, _mode, width, height, channels, hash, rgb_hash] in &rows {
        let image = match decode(&folder().join(file), &Limits::default()) {
            Ok(image) => image,
            Err(error) => {
                wrong.push(format!("{file}: {error:?}"));
                continue;
            }
        };
        let sizes = [image.width, image.height, image.channels].map(|size| size.to_string());
        if sizes != [width, height, channels].map(String::clone) {
            wrong.push(format!("{file}: {sizes:?}, expected {width} {height} {channels}"));
        }
        if fnv(&image.data) != *hash {
            wrong.push(format!("{file}: other pixels"));
        }
        if fnv(&image.to_rgb().data) != *rgb_hash {
            wrong.push(format!("{file}: other pixels after to_rgb"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert!(rows.len() >= 40, "{} images", rows.len());
}

#[test]
fn resize_equals_pillow() {
    let rows = table("resize.csv");
    let mut wrong = Vec::new();
    for row @ [seed, kind, width, height, channels, out_width, out_height, filter, area, hash] in
        &rows
    {
        let image = pattern(kind, number(seed), number(width), number(height), number(channels));
        let area: Vec<f64> = area.split_whitespace().map(|side| side.parse().unwrap()).collect();
        let area = (!area.is_empty()).then(|| [area[0], area[1], area[2], area[3]]);
        let filter = Filter::from_pillow(number(filter) as u64).unwrap();
        let size = (number(out_width), number(out_height));
        if fnv(&resize(&image, size, area, filter).unwrap().data) != *hash {
            wrong.push(row.join(","));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert!(rows.len() >= 500, "{} cases", rows.len());
}

#[test]
fn preprocess_equals_transformers() {
    let text = std::fs::read_to_string(folder().join("processor.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cases = json["cases"].as_array().unwrap();
    assert!(cases.len() >= 20);
    for case in cases {
        let name = format!("{} {}", case["image"], case["config"]);
        let image =
            decode(&folder().join(case["image"].as_str().unwrap()), &Limits::default()).unwrap();
        let processor = VitImageProcessor::from_json(&case["config"].to_string()).unwrap();
        let pixels = processor.preprocess(&image).unwrap();

        let rgb = processor.do_convert_rgb == Some(true);
        let (height, width) = processor.output_size(image.height, image.width);
        let shape = [if rgb { 3 } else { image.channels }, height, width];
        assert_eq!(serde_json::json!(shape), case["shape"], "{name}");
        let sample: Vec<f32> = (case["every_997th"].as_array().unwrap().iter())
            .map(|value| value.as_f64().unwrap() as f32)
            .collect();
        let found: Vec<f32> = pixels.iter().copied().step_by(997).collect();
        assert_eq!(found, sample, "{name}");
        let bytes: Vec<u8> = pixels.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(fnv(&bytes), case["hash"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn random_crops_equal_torchvision_on_the_same_draws() {
    let options = RandomResizedCrop::new((24, 32));
    // Pixels as they are, so that `augment` shows bytes.
    let processor = VitImageProcessor {
        do_rescale: false,
        do_normalize: false,
        ..VitImageProcessor::default()
    };
    let rows = table("crop.csv");
    assert!(rows.len() >= 100);
    let mut fallbacks = 0;
    for [seed, width, height, left, top, crop_width, crop_height, draws, hash] in &rows {
        let image = pattern("noise", number(seed), number(width), number(height), 3);
        let stream = || {
            let (seed, mut used) = (number(seed) as u64, 0);
            move || {
                used += 1;
                (splitmix(seed, used - 1) >> 11) as f64 / (1u64 << 53) as f64
            }
        };

        let (mut draw, mut used) = (stream(), 0);
        let crop = options
            .choose((image.height, image.width), &mut || {
                used += 1;
                draw()
            })
            .unwrap();
        let expected = [left, top, crop_width, crop_height].map(|side| number(side));
        assert_eq!([crop.left, crop.top, crop.width, crop.height], expected, "seed {seed}");
        assert_eq!(used, number(draws), "seed {seed}");
        fallbacks += usize::from(used == 20);

        let pixels = augment(&image, &options, &processor, &mut stream()).unwrap();
        let bytes: Vec<u8> = (0..24 * 32)
            .flat_map(|at| [0, 1, 2].map(|channel| pixels[channel * 24 * 32 + at] as u8))
            .collect();
        assert_eq!(fnv(&bytes), *hash, "seed {seed}");
        let unflipped = random_resized_crop(&image, &options, &mut stream()).unwrap();
        assert_eq!((unflipped.width, unflipped.height), (32, 24));
    }
    assert!(fallbacks >= 5, "{fallbacks} crops fell back to the centre");
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/images"))
}

/// The rows of a CSV file (no quoting) below its heading.
fn table<const N: usize>(name: &str) -> Vec<[String; N]> {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let cells: Vec<String> = line.split(',').map(str::to_owned).collect();
        cells.try_into().unwrap()
    });
    rows.collect()
}

fn number(text: &str) -> usize {
    text.parse().unwrap()
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

#[test]
fn similarity_is_that_of_scikit_image() {
    let rows = table("similarity.csv");
    assert_eq!(rows.len(), 5);
    for [kind_a, seed_a, kind_b, seed_b, width, height, channels, mse, psnr, ssim] in &rows {
        let (width, height, channels) = (number(width), number(height), number(channels));
        let planes = |kind: &str, seed: &str| -> Vec<f32> {
            let image = pattern(kind, number(seed), width, height, channels);
            let channel =
                |c: usize| image.data[c..].iter().step_by(channels).map(|&v| f32::from(v));
            (0..channels).flat_map(channel).collect()
        };
        let (a, b) = (planes(kind_a, seed_a), planes(kind_b, seed_b));
        let found = vitmae_image::mean_squared_error(&a, &b);
        let pairs = [
            (found, mse),
            (vitmae_image::psnr(found, 255.0), psnr),
            (vitmae_image::ssim(&a, &b, [channels, height, width], 255.0).unwrap(), ssim),
        ];
        for (found, expected) in pairs {
            let expected: f64 = expected.parse().unwrap();
            assert!(
                (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
                "{found} {expected}"
            );
        }
    }
}

/// The input images of `resize.csv` and `crop.csv`, as `pattern` of `images.py` makes them.
fn pattern(kind: &str, seed: usize, width: usize, height: usize, channels: usize) -> Image {
    let value = |x: usize, y: usize, c: usize| match kind {
        "noise" => (splitmix(seed as u64, ((y * width + x) * channels + c) as u64) >> 56) as u8,
        "smooth" => {
            let wave = x * (1 + seed % 5) + y * (1 + seed / 5 % 7) + c * 85 + seed % 512;
            (if wave % 512 < 256 { wave % 512 } else { 511 - wave % 512 }) as u8
        }
        "blocks" => {
            let index = ((y / 3) * 65_536 + x / 3) * 4 + c;
            (splitmix(seed as u64, index as u64) >> 63) as u8 * 255
        }
        kind => panic!("no pattern `{kind}`"),
    };
    let mut data = Vec::with_capacity(width * height * channels);
    for y in 0..height {
        for x in 0..width {
            data.extend((0..channels).map(|c| value(x, y, c)));
        }
    }
    Image::new(width, height, channels, data).unwrap()
}
