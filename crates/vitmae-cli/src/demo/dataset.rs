//! The demo's training set: crops of photographs and, unlabelled, the digits of the training part.

use vitmae_image::{Image, ImageError};
use vitmae_trainer::data::Dataset;

/// Images in memory, drawn in turn as often as the run needs.
pub struct DemoSet {
    photos: Vec<Image>,
    digits: Vec<Image>,
    digit_every: usize,
    length: usize,
}

impl DemoSet {
    /// A set of `length` samples, of which every `digit_every`-th is a digit.
    pub fn new(
        photos: Vec<Image>,
        digits: Vec<Image>,
        digit_every: usize,
        length: usize,
    ) -> DemoSet {
        DemoSet { photos, digits, digit_every, length }
    }

    fn pick(&self, index: usize) -> &Image {
        let round = index / self.digit_every;
        if index.is_multiple_of(self.digit_every) && !self.digits.is_empty() {
            &self.digits[round % self.digits.len()]
        } else {
            &self.photos[(index - round) % self.photos.len()]
        }
    }
}

impl Dataset for DemoSet {
    fn len(&self) -> usize {
        self.length
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        Ok(self.pick(index).clone())
    }

    fn name(&self, index: usize) -> String {
        format!("demo image {index}")
    }

    fn fingerprint(&self) -> String {
        let (photos, digits) = (self.photos.len(), self.digits.len());
        format!("demo: {photos} photo slots, {digits} digits, one in {}", self.digit_every)
    }
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
