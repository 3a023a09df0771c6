//! What a trained model does not expect, and pictures of a training.

use vitmae_image::{Image, PerChannel, VitImageProcessor};
use vitmae_model::{Masking, VitMaeForPreTraining};
use vitmae_tensor::{Device, Tensor};
use vitmae_trainer::reconstruction::{even_masks, quality};
use vitmae_trainer::{AdamWOptions, TrainState};

use crate::tiny;

const L: usize = 16;

fn processor() -> VitImageProcessor {
    VitImageProcessor {
        image_mean: PerChannel::All(0.5),
        image_std: PerChannel::All(0.125),
        ..VitImageProcessor::default()
    }
}

/// Pixels of one brightness, of another in patch 6, `[3, 16, 16]`.
fn flat(of_image: f32, of_patch: f32) -> Vec<f32> {
    let in_patch = |at: usize| (4..8).contains(&(at / 16 % 16)) && (8..12).contains(&(at % 16));
    (0..768).map(|at| if in_patch(at) { of_patch } else { of_image }).collect()
}

#[test]
fn a_patch_unlike_the_others_surprises_a_model_of_flat_pictures() {
    let device = Device::cpu();
    let model = VitMaeForPreTraining::new(tiny::model(), &device, 3).unwrap();
    let mut state = TrainState::new(model, AdamWOptions::default()).unwrap();
    for step in 0..300u64 {
        let brightness = |image: u64| ((step * 8 + image) * 37 % 100) as f32 / 50.0 - 1.0;
        let pixels: Vec<f32> = (0..8).map(brightness).flat_map(|b| flat(b, b)).collect();
        let pixels = Tensor::from_vec(&device, &[8, 3, 16, 16], pixels).unwrap();
        let masks: Vec<bool> =
            (0..8).flat_map(|i| even_masks(step, i, L, 12, 1).concat()).collect();
        let masking = Masking::from_mask(&masks, 8, L).unwrap();
        state.accumulate(&pixels, &masking, 1.0, (7, step)).unwrap();
        state.update(3e-3, None).unwrap();
    }
    // The defect has the mean brightness of all pictures, which a model that learned nothing would expect.
    let masks = even_masks(1, 2, L, 12, 4);
    let judge = |of_patch| {
        let (patch, error) = quality(&state.model, &flat(0.9, of_patch), &masks, 16, &processor())
            .unwrap()
            .worst()
            .unwrap();
        (patch, error)
    };
    let ((_, whole), (worst, broken)) = (judge(0.9), judge(0.0));
    assert_eq!(worst, 6);
    assert!(broken > 10.0 * whole, "{broken} {whole}");
}

#[test]
fn sheets_are_drawn_and_change_no_bit() {
    use vitmae_image::{Limits, decode};
    use vitmae_trainer::{Event, RunConfig};
    let [with, without, training] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let expected = tiny::run(&tiny::config(without.path()), None);
    assert!(!without.path().join("sheets").exists());
    let mut told = Vec::new();
    let sheets = |folder| RunConfig { sheet_every_epochs: Some(2), ..tiny::config(folder) };
    let watch = &mut |event: &Event<'_>| {
        if let Event::Sheet { epoch, .. } = event {
            told.push(*epoch);
        }
    };
    let found = tiny::run_watched(&sheets(with.path()), &tiny::data(), None, watch).unwrap();
    assert_eq!(tiny::bits(&found.model), tiny::bits(&expected.model));
    assert_eq!(told, [2, 3]);
    let read = |name: &str| decode(&with.path().join("sheets").join(name), &Limits::default());
    let (middle, last) = (read("epoch-0002.png").unwrap(), read("epoch-0003.png").unwrap());
    // Four evaluation images; what is predicted differs, what is shown of the images does not.
    assert_eq!((middle.width, middle.height), (2 + 4 * 18, 2 + 4 * 18));
    let panel = |sheet: &Image, number: usize| -> Vec<u8> {
        let row = |y: usize| sheet.data[(y * 74 + 2 + number * 18) * 3..][..48].to_vec();
        (2..18).flat_map(row).collect()
    };
    assert_eq!(panel(&middle, 1), panel(&last, 1));
    assert_ne!(panel(&middle, 2), panel(&last, 2));

    // Without evaluation images those of training serve, as far as they can be read.
    let broken: Vec<usize> = (0..2).collect();
    let train = std::sync::Arc::new(tiny::Waves { count: 13, broken });
    let data = vitmae_trainer::Datasets { train, evaluation: None };
    tiny::run_watched(&sheets(training.path()), &data, None, &mut |_| {}).unwrap();
    let sheet = decode(&training.path().join("sheets/epoch-0002.png"), &Limits::default()).unwrap();
    assert_eq!(sheet.height, 2 + 8 * 18);

    // A folder that cannot be made costs the picture and not the run.
    std::fs::remove_dir_all(with.path()).unwrap();
    std::fs::create_dir(with.path()).unwrap();
    std::fs::write(with.path().join("sheets"), "in the way").unwrap();
    let mut failed = 0;
    let watch = &mut |event: &Event<'_>| {
        failed += usize::from(matches!(event, Event::SheetFailed { .. }));
    };
    let found = tiny::run_watched(&sheets(with.path()), &tiny::data(), None, watch).unwrap();
    assert_eq!((failed, tiny::bits(&found.model)), (2, tiny::bits(&expected.model)));
}
