//! The demo's training set: varied crops of photographs and, unlabelled, the digits of the training part.

use vitmae_cpu::random::Stream;
use vitmae_image::{Crop, Image, ImageError, crop};
use vitmae_trainer::data::Dataset;

/// Side of the smallest square cut from a photograph, in pixels.
const SMALLEST: usize = 72;
/// Share of photographs that lose their colours.
const GREY: f64 = 0.2;

/// Images in memory, drawn in turn as often as the run needs.
pub struct DemoSet {
    photos: Vec<Image>,
    digits: Vec<Image>,
    digit_every: usize,
    length: usize,
    seed: u64,
}

/// What a sample is made of.
enum Source<'a> {
    Photo(&'a Image),
    Digit(&'a Image),
}

impl DemoSet {
    /// A set of `length` samples, of which every `digit_every`-th is a digit.
    pub fn new(
        photos: Vec<Image>,
        digits: Vec<Image>,
        digit_every: usize,
        length: usize,
        seed: u64,
    ) -> DemoSet {
        DemoSet { photos, digits, digit_every, length, seed }
    }

    fn pick(&self, index: usize) -> Source<'_> {
        let round = index / self.digit_every;
        if index.is_multiple_of(self.digit_every) && !self.digits.is_empty() {
            Source::Digit(&self.digits[round % self.digits.len()])
        } else {
            Source::Photo(&self.photos[(index - round) % self.photos.len()])
        }
    }
}

impl Dataset for DemoSet {
    fn len(&self) -> usize {
        self.length
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        match self.pick(index) {
            Source::Digit(digit) => Ok(digit.clone()),
            Source::Photo(photo) => {
                vary(photo, &Stream::new(self.seed, "demo photograph", index as u64, 0))
            }
        }
    }

    fn name(&self, index: usize) -> String {
        format!("demo image {index}")
    }

    fn fingerprint(&self) -> String {
        let (photos, digits) = (self.photos.len(), self.digits.len());
        let (every, seed) = (self.digit_every, self.seed);
        format!("demo: {photos} photographs, {digits} digits, one in {every}, seed {seed}")
    }
}

/// A square of a photograph, mirrored, turned and with other colours: a model that saw a few photographs
/// as they are would learn them by heart.
fn vary(photo: &Image, draw: &Stream) -> Result<Image, ImageError> {
    let Image { width, height, .. } = *photo;
    let largest = width.min(height);
    let smallest = SMALLEST.min(largest);
    let side = smallest as f64 * (largest as f64 / smallest as f64).powf(draw.uniform(0));
    let side = (side.round() as usize).clamp(smallest, largest);
    let offset = |index, room: usize| (draw.uniform(index) * (room + 1) as f64) as usize;
    let area = Crop {
        left: offset(1, width - side),
        top: offset(2, height - side),
        width: side,
        height: side,
    };
    let square = crop(photo, area)?;
    let colours = colours(draw);
    let symmetry = draw.bits(3);
    let mut data = Vec::with_capacity(square.data.len());
    for y in 0..side {
        for x in 0..side {
            let (mut y, mut x) = (y, x);
            if symmetry & 1 > 0 {
                y = side - 1 - y;
            }
            if symmetry & 2 > 0 {
                x = side - 1 - x;
            }
            if symmetry & 4 > 0 {
                (y, x) = (x, y);
            }
            let pixel = &square.data[(y * side + x) * 3..][..3];
            data.extend(colours.iter().map(|(channel, table)| table[usize::from(pixel[*channel])]));
        }
    }
    Image::new(side, side, 3, data)
}

/// For each channel of the new picture, the channel it comes from and what becomes of its values:
/// `gain · value ^ gamma + offset`, for some pictures with the green channel alone.
fn colours(draw: &Stream) -> [(usize, [u8; 256]); 3] {
    let between = |index, low: f64, high: f64| low + (high - low) * draw.uniform(index);
    let grey = draw.uniform(4) < GREY;
    let order = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let order = if grey { [1; 3] } else { order[(draw.bits(5) % 6) as usize] };
    let gamma = 2f64.powf(between(6, -0.7, 0.7));
    let (low, range) = (between(7, -0.1, 0.25), between(8, 0.6, 1.1));
    let inverted = draw.bits(9).is_multiple_of(4);
    [0, 1, 2].map(|channel| {
        let own = if grey { 1.0 } else { 2f64.powf(between(10 + channel as u64, -0.4, 0.4)) };
        let table = std::array::from_fn(|value| {
            let value = (value as f64 / 255.0).powf(gamma * own);
            let value = if inverted { 1.0 - value } else { value };
            (255.0 * (low + range * value)).round().clamp(0.0, 255.0) as u8
        });
        (order[channel], table)
    })
}

/// The views of held-out photographs, in a fixed order.
pub struct Views(pub Vec<Image>);

impl Dataset for Views {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        Ok(self.0[index].clone())
    }

    fn name(&self, index: usize) -> String {
        format!("held-out view {index}")
    }

    fn fingerprint(&self) -> String {
        format!("{} held-out views", self.0.len())
    }
}
