//! The pictures that are compiled into the program; sources and licences in `assets/README.md`.

use anyhow::{Context, Result, ensure};
use vitmae_image::{Filter, Image, Limits, decode, resize};

/// A file of `assets/` by its name there.
macro_rules! asset {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../assets/", $name)).as_slice())
    };
}

/// Photographs to train on, with how often each is drawn.
const TRAIN: [((&str, &[u8]), usize); 17] = [
    (asset!("train/astronaut.jpg"), 6),
    (asset!("train/dandelion.jpg"), 5),
    (asset!("train/rocket.jpg"), 4),
    (asset!("train/retina.jpg"), 2),
    (asset!("train/acanthus.jpg"), 3),
    (asset!("train/airplane.jpg"), 4),
    (asset!("train/allium.jpg"), 3),
    (asset!("train/alps.jpg"), 4),
    (asset!("train/boats.jpg"), 4),
    (asset!("train/canyon.jpg"), 4),
    (asset!("train/home.jpg"), 4),
    (asset!("train/hubble.jpg"), 1),
    (asset!("train/brick.jpg"), 2),
    (asset!("train/cell.jpg"), 1),
    (asset!("train/clock.jpg"), 1),
    (asset!("train/grass.jpg"), 1),
    (asset!("train/gravel.jpg"), 1),
];

/// Photographs that the model never sees in training.
const HELD_OUT: [(&str, &[u8]); 3] =
    [asset!("held-out/cat.jpg"), asset!("held-out/coffee.jpg"), asset!("held-out/camera.jpg")];

/// All digits in one picture, 40 a row.
const DIGITS: &[u8] = include_bytes!("../../assets/digits/digits.png");
/// Their labels, one character each.
const LABELS: &str = include_str!("../../assets/digits/labels.txt");
/// Digits to train on; the others are for testing.
pub const TRAIN_DIGITS: usize = 1000;
/// Side of a digit in pixels.
pub const DIGIT_SIDE: usize = 8;

/// A handwritten digit.
pub struct Digit {
    /// `[8, 8]`, one channel.
    pub image: Image,
    /// 0 to 9.
    pub label: usize,
}

/// The photographs to train on, each as often as it is to be drawn.
pub fn train_photos() -> Result<Vec<Image>> {
    let mut photos = Vec::new();
    for ((name, bytes), times) in TRAIN {
        let image = read(name, bytes)?;
        photos.extend(std::iter::repeat_n(image, times));
    }
    Ok(photos)
}

/// Number of different photographs to train on.
pub fn train_photo_count() -> usize {
    TRAIN.len()
}

/// Number of photographs that are held out.
pub fn held_out_photo_count() -> usize {
    HELD_OUT.len()
}

/// The photographs that are held out.
pub fn held_out_photos() -> Result<Vec<Image>> {
    HELD_OUT.iter().map(|&(name, bytes)| read(name, bytes)).collect()
}

/// All digits, the training ones first.
pub fn digits() -> Result<Vec<Digit>> {
    let sheet = decode(DIGITS, &Limits::default()).context("the digits cannot be read")?;
    let columns = sheet.width / DIGIT_SIDE;
    let labels = LABELS.trim().bytes().map(|label| usize::from(label - b'0'));
    let digits: Result<Vec<_>> = labels
        .enumerate()
        .map(|(index, label)| {
            let (top, left) = (index / columns * DIGIT_SIDE, index % columns * DIGIT_SIDE);
            let row = |y: usize| &sheet.data[(top + y) * sheet.width + left..][..DIGIT_SIDE];
            let data = (0..DIGIT_SIDE).flat_map(row).copied().collect();
            Ok(Digit { image: Image::new(DIGIT_SIDE, DIGIT_SIDE, 1, data)?, label })
        })
        .collect();
    let digits = digits?;
    ensure!(sheet.channels == 1 && digits.len() > TRAIN_DIGITS, "the digits are damaged");
    Ok(digits)
}

/// A digit as the model sees it: enlarged to `side` pixels, RGB.
pub fn enlarged(digit: &Digit, side: usize) -> Result<Image> {
    Ok(resize(&digit.image, (side, side), None, Filter::Bicubic)?.to_rgb())
}

fn read(name: &str, bytes: &[u8]) -> Result<Image> {
    let image = decode(bytes, &Limits::default());
    Ok(image.with_context(|| format!("`{name}` cannot be read"))?.to_rgb())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_is_there() {
        assert!(train_photos().unwrap().iter().all(|photo| photo.channels == 3));
        assert_eq!(held_out_photos().unwrap().len(), 3);
        let digits = digits().unwrap();
        assert_eq!(digits.len(), 1797);
        // The first digits of the set, and the sum of all grey levels as scikit-learn has it.
        assert_eq!(
            digits[..10].iter().map(|d| d.label).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        );
        let level =
            |digit: &Digit| digit.image.data.iter().map(|&x| u64::from(x) / 15).sum::<u64>();
        assert_eq!(digits.iter().map(level).sum::<u64>(), 561_718);
    }
}
