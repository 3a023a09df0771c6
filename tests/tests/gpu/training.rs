//! The whole model on the GPU beside the CPU: one pass, and training from one seed.

use super::device::device;
use vitmae_layers::Param;
use vitmae_model::{Masking, VitMaeConfig, VitMaeForPreTraining};
use vitmae_tensor::ops::{AdamWParameter, Precision};
use vitmae_tensor::{Device, Tensor};
use vitmae_testing::close::{Tolerance, assert_close};
use vitmae_testing::draws::Draws;
use vitmae_trainer::{AdamWOptions, Ema, TrainState};

/// Images of a batch.
const BATCH: usize = 4;
/// Updates of the training test.
const STEPS: u64 = 20;

/// Two encoder blocks and a decoder block on rectangular patches; head widths 16 and 8.
fn config() -> VitMaeConfig {
    VitMaeConfig {
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 72,
        decoder_hidden_size: 24,
        decoder_num_hidden_layers: 1,
        decoder_num_attention_heads: 3,
        decoder_intermediate_size: 40,
        image_size: (24, 16),
        patch_size: (4, 2),
        norm_pix_loss: true,
        layer_norm_eps: 1e-6,
        ..VitMaeConfig::default()
    }
}

/// A batch on both devices.
struct Batch {
    pixels: Vec<f32>,
    masking: Masking,
}

impl Batch {
    fn new(config: &VitMaeConfig, draws: &mut Draws) -> Self {
        let patches = config.num_patches();
        let noise: Vec<f64> = (0..BATCH * patches).map(|_| draws.uniform()).collect();
        let masking =
            Masking::from_noise(&noise, BATCH, patches, config.mask_ratio).expect("a mask");
        let (height, width) = config.image_size;
        Self { pixels: draws.vec_f32(BATCH * config.num_channels * height * width), masking }
    }

    fn pixels(&self, config: &VitMaeConfig, device: &Device) -> Tensor {
        let (height, width) = config.image_size;
        let shape = [BATCH, config.num_channels, height, width];
        Tensor::from_slice(device, &shape, &self.pixels).expect("a batch")
    }
}

/// The model of seed 3 with parameters that are not at rest: biases and tokens start at zero.
fn model(config: &VitMaeConfig, device: &Device) -> VitMaeForPreTraining {
    let mut model = VitMaeForPreTraining::new(config.clone(), device, 3).expect("a model");
    let mut draws = Draws::new(5);
    for param in model.parameters_mut() {
        let values = param.value.to_vec().expect("its values");
        let moved: Vec<f32> = values.iter().map(|x| x + 0.1 * draws.vec_f32(1)[0]).collect();
        param.value.set(&moved).expect("as many values");
    }
    model
}

#[test]
fn outputs_and_gradients_equal_the_cpus() {
    let config = config();
    let batch = Batch::new(&config, &mut Draws::new(1));
    let on = |device: Device| {
        let mut model = model(&config, &device);
        let pixels = batch.pixels(&config, &device);
        let output = model.forward(&pixels, &batch.masking, &Default::default()).unwrap();
        let loss = model.forward_backward(&pixels, &batch.masking, &Default::default()).unwrap();
        let gradients: Vec<(String, Vec<f32>)> = model
            .parameters()
            .iter()
            .filter_map(|p| Some((p.name.clone(), p.grad.as_ref()?.to_vec().unwrap())))
            .collect();
        let hidden = output.last_hidden_state.to_vec().unwrap();
        (loss.item().unwrap(), output.logits.to_vec().unwrap(), hidden, gradients)
    };
    let (cpu, gpu) = (on(Device::cpu()), on(device()));
    let tolerance = Tolerance::new(1e-5, 1e-5);
    assert_close("loss", &[gpu.0], &[cpu.0], tolerance);
    assert_close("logits", &gpu.1, &cpu.1, tolerance);
    assert_close("last_hidden_state", &gpu.2, &cpu.2, tolerance);
    assert_eq!(gpu.3.len(), cpu.3.len());
    for ((name, gpu), (_, cpu)) in gpu.3.iter().zip(&cpu.3) {
        assert_close(name, gpu, cpu, Tolerance::new(1e-5, 1e-4));
    }
}

/// A parameter's values without the biases of keys: those shift all scores of a row alike, so their gradient
/// is 0 and what AdamW makes of it is rounding, as large as the learning rate.
fn of_gradient(param: &Param) -> Vec<f32> {
    let mut values = param.value.to_vec().expect("its values");
    if param.name.ends_with("qkv.bias") {
        let width = values.len() / 3;
        values.drain(width..2 * width);
    }
    values
}

#[test]
fn twenty_training_steps_equal_the_cpus() {
    let config = config();
    let on = |device: Device| {
        let mut draws = Draws::new(2);
        let model = VitMaeForPreTraining::new(config.clone(), &device, 3).unwrap();
        let mut state = TrainState::new(model, AdamWOptions::default()).unwrap();
        let losses: Vec<f32> = (0..STEPS)
            .map(|_| {
                let batch = Batch::new(&config, &mut draws);
                let pixels = batch.pixels(&config, &device);
                state.train_step(&pixels, &batch.masking, 1e-3).unwrap().item().unwrap()
            })
            .collect();
        let first: Vec<f32> = VitMaeForPreTraining::new(config.clone(), &Device::cpu(), 3)
            .unwrap()
            .parameters()
            .iter()
            .flat_map(|p| of_gradient(p))
            .collect();
        let last = state.model.parameters().iter().flat_map(|p| of_gradient(p)).collect::<Vec<_>>();
        let moments = state.optimizer.moments().iter().flatten();
        let moments: Vec<f32> = moments
            .flat_map(|both| [both.m.to_vec().unwrap(), both.v.to_vec().unwrap()].concat())
            .collect();
        (losses, first, last, moments)
    };
    let (cpu, gpu) = (on(Device::cpu()), on(device()));
    assert_close("losses", &gpu.0, &cpu.0, Tolerance::new(1e-4, 0.0));
    assert_close("parameters", &gpu.2, &cpu.2, Tolerance::new(1e-5, 0.0));
    assert_close("moments", &gpu.3, &cpu.3, Tolerance::new(1e-5, 1e-3));
    let moved = cpu.1.iter().zip(&cpu.2).filter(|(a, b)| (*a - *b).abs() > 5e-3).count();
    assert!(moved > cpu.1.len() / 2, "only {moved} of {} parameters moved", cpu.1.len());
}

#[test]
fn the_average_of_the_weights_equals_the_cpus() {
    let config = config();
    let on = |device: Device| {
        let mut draws = Draws::new(6);
        let model = VitMaeForPreTraining::new(config.clone(), &device, 3).unwrap();
        let mut state = TrainState::new(model, AdamWOptions::default()).unwrap();
        state.ema = Some(Ema::new(&state.model, 0.9).unwrap());
        let values = |model: &VitMaeForPreTraining| -> Vec<f32> {
            model.parameters().iter().flat_map(|p| of_gradient(p)).collect()
        };
        let mut step = |state: &mut TrainState, factor: f32| {
            let mut batch = Batch::new(&config, &mut draws);
            batch.pixels.iter_mut().for_each(|value| *value *= factor);
            let pixels = batch.pixels(&config, &device);
            state.train_step(&pixels, &batch.masking, 1e-3).unwrap().item().unwrap()
        };
        for _ in 0..STEPS {
            assert!(step(&mut state, 1.0).is_finite());
        }
        let average = values(&state.ema.as_ref().unwrap().model);
        assert!(!step(&mut state, f32::NAN).is_finite());
        let after = values(&state.ema.as_ref().unwrap().model);
        assert_eq!(after, average, "an update without effect moved it");
        (average, values(&state.model))
    };
    let ((gpu, _), (cpu, weights)) = (on(device()), on(Device::cpu()));
    assert_close("average", &gpu, &cpu, Tolerance::new(1e-5, 0.0));
    let apart = cpu.iter().zip(&weights).filter(|(a, b)| (*a - *b).abs() > 1e-3).count();
    assert!(apart > cpu.len() / 2, "only {apart} of {} differ from the weights", cpu.len());
}

/// A value that lies between two of bf16 goes to either side by its last bits, which differ between devices, so losses are
/// compared less closely than in f32.
#[test]
fn training_in_bf16_follows_the_cpus() {
    let config = config();
    let on = |device: Device, precision: Precision| {
        let mut draws = Draws::new(2);
        let mut model = VitMaeForPreTraining::new(config.clone(), &device, 3).unwrap();
        model.set_precision(precision);
        let mut state = TrainState::new(model, AdamWOptions::default()).unwrap();
        let step = |_| {
            let batch = Batch::new(&config, &mut draws);
            let pixels = batch.pixels(&config, &device);
            state.train_step(&pixels, &batch.masking, 1e-3).unwrap().item().unwrap()
        };
        (0..STEPS).map(step).collect::<Vec<f32>>()
    };
    let found = on(device(), Precision::Bf16);
    assert_close("losses", &found, &on(Device::cpu(), Precision::Bf16), Tolerance::new(1e-3, 0.0));
    assert_ne!(found, on(device(), Precision::F32), "nothing was rounded");
}

#[test]
fn tensors_of_two_devices_are_refused() {
    let a = Tensor::from_slice(&device(), &[2], &[1.0, 2.0]).unwrap();
    let b = Tensor::from_slice(&Device::cpu(), &[2], &[1.0, 2.0]).unwrap();
    let error = vitmae_tensor::ops::add(&a, &b).unwrap_err().to_string();
    let name = device().to_string();
    assert_eq!(error, format!("add: tensors on `{name}` and on `cpu`, expected one device"));
    let sum = vitmae_tensor::ops::add(&a, &b.to_device(&device()).unwrap()).unwrap();
    assert_eq!(sum.to_vec().unwrap(), [2.0, 4.0]);
}

#[test]
fn a_clone_on_the_gpu_is_independent_once_written() {
    let mut value = Tensor::from_slice(&device(), &[3], &[1.0, 2.0, 3.0]).unwrap();
    let before = value.clone();
    let zeros = || Tensor::zeros(&device(), &[3]).unwrap();
    let gradient = Tensor::from_slice(&device(), &[3], &[1.0; 3]).unwrap();
    let settings = vitmae_tensor::ops::AdamW {
        lr: 0.5,
        betas: [0.9, 0.95],
        eps: 1e-8,
        weight_decay: 0.0,
        step: 1,
    };
    let (mut m, mut v) = (zeros(), zeros());
    let scale = Tensor::from_slice(&device(), &[], &[1.0]).unwrap();
    let (gradient, value_now) = (&gradient, &mut value);
    let parameter = AdamWParameter { value: value_now, gradient, m: &mut m, v: &mut v, settings };
    vitmae_tensor::ops::adamw(&mut [parameter], &scale).unwrap();
    assert_eq!(before.to_vec().unwrap(), [1.0, 2.0, 3.0]);
    assert_close("value", &value.to_vec().unwrap(), &[0.5, 1.5, 2.5], Tolerance::new(1e-5, 0.0));
}
