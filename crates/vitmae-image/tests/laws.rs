//! Laws that hold for any image.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use proptest::prelude::*;
use vitmae_image::{
    Crop, Filter, Fit, Image, ImageError, Limits, PerChannel, RandomResizedCrop, Size,
    VitImageProcessor, augment, center_crop, crop, decode, encode_png, horizontal_flip, resize,
};

fn images() -> impl Strategy<Value = Image> {
    (1..40usize, 1..40usize, 1..=4usize).prop_flat_map(|(width, height, channels)| {
        prop::collection::vec(any::<u8>(), width * height * channels)
            .prop_map(move |data| Image::new(width, height, channels, data).unwrap())
    })
}

fn filters() -> impl Strategy<Value = Filter> {
    prop::sample::select(Filter::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn resize_to_the_same_size_is_the_identity(image in images(), filter in filters()) {
        let size = (image.width, image.height);
        prop_assert_eq!(resize(&image, size, None, filter).unwrap(), image);
    }

    #[test]
    fn resize_of_any_box_gives_the_asked_size(
        image in images(),
        size in (1..60usize, 1..60usize),
        corners in prop::array::uniform4(0.0..1.0f64),
        filter in filters(),
    ) {
        let [a, b, c, d] = corners;
        let (width, height) = (image.width as f64, image.height as f64);
        let area = [a.min(b) * width, c.min(d) * height, a.max(b) * width, c.max(d) * height];
        match resize(&image, size, Some(area), filter) {
            Ok(resized) => {
                prop_assert_eq!((resized.width, resized.height), size);
                prop_assert_eq!(resized.data.len(), size.0 * size.1 * image.channels);
            }
            // Both corners fell on one number.
            Err(ImageError::CropBox { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn filters_without_overshoot_stay_in_range(image in images(), size in (1..60usize, 1..60usize)) {
        let image = Image { channels: 1, width: image.width * image.channels, ..image };
        let (low, high) = (image.data.iter().min().unwrap(), image.data.iter().max().unwrap());
        for filter in [Filter::Nearest, Filter::Box, Filter::Bilinear] {
            let resized = resize(&image, size, None, filter).unwrap();
            prop_assert!(resized.data.iter().all(|value| low <= value && value <= high));
        }
    }

    #[test]
    fn two_flips_are_none(image in images()) {
        prop_assert_eq!(horizontal_flip(&horizontal_flip(&image)), image);
    }

    #[test]
    fn flip_mirrors(image in images()) {
        let flipped = horizontal_flip(&image);
        let pixel = |image: &Image, x: usize, y: usize| {
            let at = (y * image.width + x) * image.channels;
            image.data[at..at + image.channels].to_vec()
        };
        for y in 0..image.height {
            for x in 0..image.width {
                prop_assert_eq!(pixel(&flipped, image.width - 1 - x, y), pixel(&image, x, y));
            }
        }
    }

    #[test]
    fn png_keeps_every_image(image in images()) {
        prop_assert_eq!(decode(&encode_png(&image).unwrap(), &Limits::default()).unwrap(), image);
    }

    #[test]
    fn display_inverts_normalise(image in images(), mean in -1.0..1.0f64, std in 0.05..2.0f64) {
        let processor = VitImageProcessor {
            image_mean: PerChannel::All(mean),
            image_std: PerChannel::All(std),
            ..VitImageProcessor::default()
        };
        let pixels = processor.normalise(&image).unwrap();
        let shape = [image.channels, image.height, image.width];
        prop_assert_eq!(processor.denormalise(&pixels, shape).unwrap(), image);
    }

    #[test]
    fn random_crops_lie_inside(
        height in 1..500usize,
        width in 1..500usize,
        draws in prop::collection::vec(0.0..1.0f64, 22),
    ) {
        let mut draws = draws.into_iter();
        let crop = RandomResizedCrop::new((8, 8))
            .choose((height, width), &mut || draws.next().unwrap())
            .unwrap();
        prop_assert!(crop.width >= 1 && crop.left + crop.width <= width);
        prop_assert!(crop.height >= 1 && crop.top + crop.height <= height);
    }

    #[test]
    fn a_config_is_kept(edge in 1..500usize, factor in 1e-4..2.0f64, mean in -3.0..3.0f64) {
        let processor = VitImageProcessor {
            size: Size::ShortestEdge(edge),
            rescale_factor: factor,
            image_mean: PerChannel::Each(vec![mean, 0.1, 1.0 / 3.0]),
            ..VitImageProcessor::default()
        };
        let read = VitImageProcessor::from_json(&processor.to_json()).unwrap();
        prop_assert_eq!(read, processor);
    }
}

#[test]
fn crops_are_cut_where_they_are() {
    let image = Image::new(4, 3, 1, (0..12).collect()).unwrap();
    let area = Crop { left: 1, top: 1, width: 2, height: 2 };
    assert_eq!(crop(&image, area).unwrap().data, [5, 6, 9, 10]);
    // 0.5 pixels round to 0, 1.5 to 2: half to even.
    assert_eq!(center_crop(&image, (2, 1)).unwrap().data, [2, 6]);
    assert_eq!(center_crop(&image, (3, 4)).unwrap(), image);
    assert_eq!(
        center_crop(&image, (4, 4)).unwrap_err().to_string(),
        "box (0, 0, 4, 4) does not lie in the image of 4x3, expected 0 <= left < right <= width \
         and 0 <= top < bottom <= height"
    );
    for area in [
        Crop { width: 0, ..area },
        Crop { left: 3, ..area },
        Crop { top: usize::MAX, ..area },
        Crop { height: 3, ..area },
    ] {
        assert!(matches!(crop(&image, area), Err(ImageError::CropBox { .. })));
    }
}

#[test]
fn a_crop_that_does_not_fit_is_drawn_again_or_cut_down() {
    let chosen = |fit: Fit, draws: [f64; 6]| {
        let options = RandomResizedCrop { fit, ..RandomResizedCrop::new((4, 4)) };
        let mut next = draws.into_iter();
        let crop = options.choose((30, 40), &mut || next.next().unwrap()).unwrap();
        (crop, next.count())
    };
    // 0.992 of 1200 pixels at a ratio of nearly 4/3 are 40 x 30 and fit.
    let fits = [0.99, 0.999, 0.5, 0.25, 0.5, 0.5];
    for fit in [Fit::Retry, Fit::Clamp] {
        assert_eq!(chosen(fit, fits), (Crop { left: 0, top: 0, width: 40, height: 30 }, 2));
    }
    // At 3/4 they are 30 x 40. Drawn again: 0.6 of the area as a square.
    let high = [0.99, 0.0, 0.5, 0.5, 0.9, 0.2];
    let again = Crop { left: 2, top: 3, width: 27, height: 27 };
    assert_eq!(chosen(Fit::Retry, high), (again, 0));
    // Cut down: the full height, and the draws for the place follow at once.
    let cut = Crop { left: 5, top: 0, width: 30, height: 30 };
    assert_eq!(chosen(Fit::Clamp, high), (cut, 2));
}

#[test]
fn draws_and_ranges_are_checked() {
    let image = Image::new(8, 8, 3, vec![7; 192]).unwrap();
    let message = |options: &RandomResizedCrop, draw: f64| {
        let processor = VitImageProcessor::default();
        augment(&image, options, &processor, &mut || draw).unwrap_err().to_string()
    };
    let options = RandomResizedCrop::new((4, 4));
    let wrong = "random crop: `draw` is 1, expected at least 0 and less than 1";
    assert_eq!(message(&options, 1.0), wrong);
    assert!(message(&options, f64::NAN).contains("`draw` is NaN"));
    assert!(message(&options, -0.1).contains("`draw` is -0.1"));
    for (scale, ratio, key) in [
        ((0.0, 1.0), (0.75, 1.25), "scale.0"),
        ((0.5, 0.4), (0.75, 1.25), "scale.1"),
        ((0.5, 1.1), (0.75, 1.25), "scale.1"),
        ((0.5, 1.0), (f64::NAN, 1.25), "ratio.0"),
        ((0.5, 1.0), (0.75, f64::INFINITY), "ratio.1"),
    ] {
        let options = RandomResizedCrop { scale, ratio, ..options.clone() };
        assert!(message(&options, 0.5).contains(&format!("`{key}`")), "{key}");
    }
    let options = RandomResizedCrop { size: (0, 4), ..options };
    assert!(message(&options, 0.5).starts_with("resize: size 4x0 is not possible"));
}
