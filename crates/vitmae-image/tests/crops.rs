//! Random crops as torchvision chooses them from the same draws.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use vitmae_image::{Crop, RandomResizedCrop};

#[test]
fn chosen_crops_are_torchvisions() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/training/mixing.json");
    let fixture: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = fixture["crop"].as_array().unwrap();
    assert_eq!(cases.len(), 30);
    for case in cases {
        let numbers = |key: &str| -> Vec<f64> {
            case[key].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let scale = (numbers("scale")[0], numbers("scale")[1]);
        let options = RandomResizedCrop { scale, ..RandomResizedCrop::new((4, 4)) };
        let mut draws = numbers("draws").into_iter();
        let image = (size("height"), size("width"));
        let Crop { left, top, width, height } =
            options.choose(image, &mut || draws.next().unwrap()).unwrap();
        let expected: Vec<usize> = numbers("area").iter().map(|&x| x as usize).collect();
        assert_eq!([top, left, height, width].as_slice(), expected, "{case}");
        assert_eq!(draws.next(), None, "{case}");
    }
}
