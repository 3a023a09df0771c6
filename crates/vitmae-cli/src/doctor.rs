//! `vitmae doctor`: the devices of this build and machine, each with a test of itself; with a checkpoint, what is
//! wrong with it.

mod checkpoint;

use std::path::PathBuf;

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use vitmae_cpu::random::Stream;
use vitmae_model::{Masking, VitMaeConfig, VitMaeForPreTraining};
use vitmae_tensor::{Device, Tensor, TensorError};
use vitmae_trainer::{AdamWOptions, TrainState};

use crate::Global;

/// Updates of the test.
const STEPS: u64 = 3;
/// Images of each.
const BATCH: usize = 2;
/// Largest difference of a loss from the CPU's, as in the project's own tests.
const TOLERANCE: f32 = 1e-4;

/// Example: vitmae doctor mae_pretrain_vit_base_full.pth --repair mended
///
/// Without a checkpoint, lists the devices and tests each. Exit code: 0 if nothing is wrong, 1 if something is (with
/// `--repair`, if something could not be mended), 3 if the checkpoint cannot be read.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// A model folder or a file of weights
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: Option<PathBuf>,
    /// Write a mended copy into this new folder, if something can be mended
    #[arg(long, value_name = "OUT", requires = "checkpoint")]
    repair: Option<PathBuf>,
    /// Do not let the model predict a photograph; memory is then that of its largest tensor
    #[arg(long, requires = "checkpoint")]
    no_predict: bool,
    /// Attention heads of the encoder, where no `config.json` says it
    #[arg(long, requires = "checkpoint")]
    heads: Option<usize>,
    /// Attention heads of the decoder, where no `config.json` says it
    #[arg(long, requires = "checkpoint")]
    decoder_heads: Option<usize>,
}

/// Runs the command: code 0 if the checkpoint, or every device that is there, is well, 1 if not.
pub fn run(args: &DoctorArgs, global: &Global) -> Result<u8> {
    if let Some(path) = &args.checkpoint {
        return checkpoint::run(path, args, global);
    }
    let expected = losses(&Device::cpu())?;
    let mut devices = Vec::new();
    let mut all_work = true;
    for name in Device::NAMES.into_iter().filter(|&name| name != "auto") {
        let report = match Device::open(name) {
            Ok(device) => {
                let start = Instant::now();
                let found = losses(&device);
                let seconds = start.elapsed().as_secs_f64();
                let verdict = verdict(found, &expected);
                all_work &= verdict.is_ok();
                describe(name, &device, &verdict, seconds)
            }
            Err(TensorError::DeviceMissing { why, remedy, .. }) => {
                json!({"device": name, "available": false, "why": why, "help": remedy})
            }
            Err(error) => return Err(error.into()),
        };
        if !global.json {
            print(&report);
        }
        devices.push(report);
    }
    if global.json {
        outln!("{}", json!({"auto": Device::auto().to_string(), "devices": devices}));
    } else {
        outln!("`--device auto` takes {}", Device::auto());
    }
    Ok(u8::from(!all_work))
}

/// The losses of a few updates of a small model, from fixed numbers.
fn losses(device: &Device) -> Result<Vec<f32>> {
    let config = VitMaeConfig {
        hidden_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 128,
        decoder_hidden_size: 32,
        decoder_num_hidden_layers: 1,
        decoder_num_attention_heads: 2,
        decoder_intermediate_size: 64,
        image_size: (64, 64),
        patch_size: (8, 8),
        norm_pix_loss: true,
        layer_norm_eps: 1e-6,
        ..VitMaeConfig::default()
    };
    let (height, width) = config.image_size;
    let (patches, ratio) = (config.num_patches(), config.mask_ratio);
    let shape = [BATCH, config.num_channels, height, width];
    let count = shape.iter().product::<usize>() as u64;
    let model = VitMaeForPreTraining::new(config, device, 0)?;
    let mut state = TrainState::new(model, AdamWOptions::default())?;
    let losses = (0..STEPS).map(|step| {
        let stream = Stream::new(0, "doctor", step, 0);
        let pixels: Vec<f32> = (0..count).map(|index| stream.normal(index) as f32).collect();
        let noise: Vec<f64> =
            (0..(BATCH * patches) as u64).map(|index| stream.uniform(index)).collect();
        let masking = Masking::from_noise(&noise, BATCH, patches, ratio)?;
        let pixels = Tensor::from_vec(device, &shape, pixels)?;
        Ok(state.train_step(&pixels, &masking, 1e-3)?.item()?)
    });
    losses.collect()
}

/// The largest difference of the losses, or what is wrong.
fn verdict(found: Result<Vec<f32>>, expected: &[f32]) -> Result<f32, String> {
    let found = found.map_err(|error| format!("{error:#}"))?;
    let differences: Vec<f32> = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).collect();
    // A NaN is not below the tolerance.
    if differences.iter().all(|&difference| difference <= TOLERANCE) {
        Ok(differences.into_iter().fold(0.0, f32::max))
    } else {
        Err(format!("its losses {found:?} differ from the CPU's {expected:?}"))
    }
}

fn describe(name: &str, device: &Device, verdict: &Result<f32, String>, seconds: f64) -> Value {
    let mut report = json!({
        "device": name,
        "available": true,
        "works": verdict.is_ok(),
        "largest_difference": verdict.as_ref().ok(),
        "error": verdict.as_ref().err(),
        "self_test_seconds": seconds,
    });
    #[cfg(feature = "gpu")]
    if let Some(info) = device.gpu_info() {
        let can = info.capabilities;
        report["backend"] = info.backend.into();
        report["capabilities"] = json!({
            "f16": can.f16,
            "bf16": can.bf16,
            "plane": can.plane,
            "matrix_shapes": can.cmma.len(),
            "units_of_a_cube": can.max_units,
            "shared_bytes_of_a_cube": can.max_shared_bytes,
            "buffers_of_a_kernel": can.max_bindings,
        });
    }
    if device.is_cpu() {
        report["threads"] = rayon::current_num_threads().into();
    }
    report
}

fn print(report: &Value) {
    let text = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
    let name = text("device");
    if report["available"] == false {
        outln!("{name:10} not available: {}\n{:10} {}", text("why"), "", text("help"));
        return;
    }
    let seconds = report["self_test_seconds"].as_f64().unwrap_or(f64::NAN);
    match report["largest_difference"].as_f64() {
        Some(difference) => outln!(
            "{name:10} works: losses of {STEPS} updates differ from the CPU's by {difference:.1e}; {seconds:.2} s"
        ),
        None => outln!("{name:10} FAILS: {}", text("error")),
    }
    if let Some(can) = report["capabilities"].as_object() {
        let list: Vec<String> = can.iter().map(|(key, value)| format!("{key} {value}")).collect();
        outln!("{:10} {}: {}", "", text("backend"), list.join(", "));
    }
}
