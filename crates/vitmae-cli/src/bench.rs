//! `vitmae bench`: time, memory and arithmetic rate of one task.

use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::json;
use vitmae_cpu::random::Stream;
use vitmae_model::{ForwardOptions, Masking, VitMaeConfig, VitMaeForPreTraining};
use vitmae_tensor::ops::Precision;
use vitmae_tensor::{Device, Tensor};
use vitmae_trainer::{AdamWOptions, TrainState};

use crate::exit::Usage;
use crate::precision::InferencePrecisionArgs;
use crate::{Global, flops, presets};

/// Learning rate of the training steps, small enough for every size.
const LR: f64 = 1e-4;

/// Example: vitmae bench --model base --task pretrain --batch-size 32 --json
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Model size: tiny, tiny-32, base, large, huge
    #[arg(long, default_value = "base")]
    model: String,
    /// What to measure
    #[arg(long, value_enum, default_value_t = Task::Pretrain)]
    task: Task,
    /// Images at once
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    #[command(flatten)]
    precision: InferencePrecisionArgs,
    /// Compute blocks again in the backward pass
    #[arg(long)]
    recompute: bool,
    /// Steps to measure, after one to warm up; the median counts
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Seed of weights, images and masks
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// Forward, backward and AdamW at 75 % masking
    Pretrain,
    /// Forward alone at 75 % masking, encoder and decoder
    Forward,
    /// The encoder on all patches
    Features,
}

/// Runs the command.
pub fn run(args: &BenchArgs, global: &Global, device: &Device) -> Result<u8> {
    let (precision, int8) = (args.precision.of_tensors(), args.precision.is_int8());
    if int8 && args.task == Task::Pretrain {
        let message = "`--precision int8` is for forward passes: `--task forward` or `features`";
        return Err(Usage(message.to_owned()).into());
    }
    if args.batch_size == 0 || args.steps == 0 {
        return Err(Usage("`--batch-size` and `--steps` must be at least 1".to_owned()).into());
    }
    let config = presets::by_name(&args.model)?;
    let batch = args.batch_size;
    let (pixels, masking) = input(&config, args, device)?;
    let mut model = VitMaeForPreTraining::new(config.clone(), device, args.seed)?;
    model.set_precision(precision);
    let kept = masking.len_keep;
    let (flop, seconds, loss) = match args.task {
        Task::Pretrain => {
            let mut state = TrainState::new(model, AdamWOptions::default())?;
            state.recompute = args.recompute;
            let (seconds, loss) =
                measure(args.steps, || Ok(Some(state.train_step(&pixels, &masking, LR)?.item()?)))?;
            (flops::training(&config, kept), seconds, loss)
        }
        Task::Forward => {
            args.precision.prepare(&mut model, device)?;
            let options = ForwardOptions::default();
            let (seconds, loss) =
                measure(args.steps, || Ok(model.forward(&pixels, &masking, &options)?.loss))?;
            (flops::forward(&config, kept), seconds, loss)
        }
        Task::Features => {
            args.precision.prepare(&mut model.vit, device)?;
            let (seconds, loss) = measure(args.steps, || {
                model.vit.encode(&pixels, false)?.wait()?;
                Ok(None)
            })?;
            (flops::features(&config), seconds, loss)
        }
    };
    let memory = peak_memory()?;
    // The peak is measured on the CPU alone.
    let (name, peak): (_, fn() -> f64) = match precision {
        _ if int8 => ("int8", vitmae_cpu::peak::int8_gops),
        Precision::F32 => ("f32", vitmae_cpu::peak::gflops),
        Precision::Bf16 => ("bf16", vitmae_cpu::peak::bf16_gflops),
    };
    let peak = device.is_cpu().then(peak);
    let [best, median] = [seconds[0], seconds[seconds.len() / 2]];
    let ms = |seconds: f64| 1e3 * seconds / batch as f64;
    let rate = flop * batch as f64 / median / 1e9;
    if global.json {
        let result = json!({
            "model": args.model,
            "task": format!("{:?}", args.task).to_lowercase(),
            "batch_size": batch,
            "precision": name,
            "recompute": args.recompute,
            "device": device.to_string(),
            "threads": rayon::current_num_threads(),
            "steps": args.steps,
            "ms_per_image": ms(median),
            "ms_per_image_best": ms(best),
            "images_per_second": batch as f64 / median,
            "peak_memory_bytes": memory,
            "gflop_per_image": flop / 1e9,
            "gflops": rate,
            "peak_gflops": peak,
            "loss": loss,
        });
        outln!("{result}");
        return Ok(0);
    }
    outln!(
        "{} {:?} in {name}, batch {batch}, median of {} steps",
        args.model,
        args.task,
        args.steps
    );
    outln!("{:10.2} ms an image (best {:.2})", ms(median), ms(best));
    outln!("{:10.2} images a second", batch as f64 / median);
    match peak {
        Some(peak) => {
            let share = 100.0 * rate / peak;
            outln!("{rate:10.1} GFLOP/s, {share:.0} % of the {peak:.1} measured just now");
        }
        None => outln!("{rate:10.1} GFLOP/s"),
    }
    outln!("{:10.1} MiB of memory at most", memory as f64 / f64::from(1 << 20));
    if let Some(loss) = loss {
        outln!("{loss:10.5} loss of the last step");
    }
    Ok(0)
}

/// Runs `step` once to warm up, then `steps` times; their seconds in rising order, and the last
/// loss.
fn measure(
    steps: usize,
    mut step: impl FnMut() -> Result<Option<f32>>,
) -> Result<(Vec<f64>, Option<f32>)> {
    let mut loss = step()?;
    let mut seconds = Vec::with_capacity(steps);
    for _ in 0..steps {
        let start = Instant::now();
        loss = step()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok((seconds, loss))
}

/// Normal noise for pixels and a mask for each image.
fn input(config: &VitMaeConfig, args: &BenchArgs, device: &Device) -> Result<(Tensor, Masking)> {
    let (height, width) = config.image_size;
    let shape = [args.batch_size, config.num_channels, height, width];
    let count: usize = shape.iter().product();
    let stream = Stream::new(args.seed, "bench pixels", 0, 0);
    let pixels = (0..count as u64).map(|index| stream.normal(index) as f32).collect();
    let patches = config.num_patches();
    let stream = Stream::new(args.seed, "bench mask", 0, 0);
    let noise: Vec<f64> =
        (0..(args.batch_size * patches) as u64).map(|index| stream.uniform(index)).collect();
    let masking = Masking::from_noise(&noise, args.batch_size, patches, config.mask_ratio)?;
    Ok((Tensor::from_vec(device, &shape, pixels)?, masking))
}

/// The most memory this process has held, in bytes: `VmHWM` of Linux; none elsewhere.
pub fn peak_memory() -> Result<u64> {
    if !cfg!(target_os = "linux") {
        return Ok(0);
    }
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read the memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}
