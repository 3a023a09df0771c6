//! The `vitmae` command: pre-train, reconstruct, extract features, inspect, convert, export, benchmark, list
//! devices, demo.
//!
//! Results go to stdout, progress and messages to stderr. Exit codes: 0 ok, 1 run failed, 2 usage,
//! 3 bad input, 4 loss not finite, 5 device missing, 6 system or disk failure, 130 and 143 after
//! SIGINT and SIGTERM with a checkpoint saved. Whoever reads the results may stop reading: the program then ends by
//! SIGPIPE, as others do.
#![forbid(unsafe_code)]
#![expect(unreachable_pub, reason = "in a program, `pub` marks what a file offers to the others")]

// First, since its macros are what every other module prints with.
#[macro_use]
mod output;

mod bench;
mod chart;
mod classify;
mod convert;
mod data;
mod demo;
mod device;
mod doctor;
mod exit;
mod export_onnx;
mod features;
mod finetune;
mod flops;
mod html;
mod inspect;
mod linprobe_lars;
mod mask_file;
mod model_folder;
mod npy;
mod precision;
mod presets;
mod pretrain;
mod processes;
mod progress;
mod quality;
mod recipes;
mod reconstruct;
mod report;
mod run_args;
mod signals;
mod training;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use vitmae_tensor::Device;
use vitmae_trainer::Team;

/// Masked autoencoders (ViTMAE): pre-train, reconstruct, extract features.
#[derive(Parser)]
#[command(name = "vitmae", version, propagate_version = true, arg_required_else_help = true)]
// The last of two equal options counts, so that a script can add to a command line.
#[command(args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
struct Global {
    /// Where to compute: auto, cpu, gpu, wgpu, vulkan, cuda, hip, metal or lavapipe, as in cuda:1
    #[arg(long, global = true, default_value = "auto")]
    device: String,
    /// Threads that compute; results do not depend on it [default: one for each core]
    #[arg(long, global = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print the result as one JSON object
    #[arg(long, global = true)]
    json: bool,
    /// No progress and no notes on stderr
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Pre-train on a folder of images
    Pretrain(Box<pretrain::PretrainArgs>),
    /// Draw original, masked image and reconstruction side by side
    Reconstruct(reconstruct::ReconstructArgs),
    /// Measure reconstructions: MSE, PSNR, SSIM, and a map of what the model did not expect
    Quality(quality::QualityArgs),
    /// Write the encoder's vectors of images to a file
    Features(features::FeaturesArgs),
    /// Classify labelled images by the nearest neighbours of the encoder's vectors
    Knn(classify::KnnArgs),
    /// Classify labelled images by a linear map of the encoder's vectors
    Linprobe(Box<classify::LinprobeArgs>),
    /// Train a classifier on a pre-trained encoder
    Finetune(Box<finetune::FinetuneArgs>),
    /// Classify labelled images by a fine-tuned classifier
    Evaluate(finetune::EvaluateArgs),
    /// Look through images, pack them, measure how fast they are read
    Data(data::DataArgs),
    /// Write tables, curves and a page about a training
    Report(report::ReportArgs),
    /// List and show the settings of published and small trainings
    Recipes(recipes::RecipesArgs),
    /// Show what a checkpoint holds
    Inspect(inspect::InspectArgs),
    /// Write a checkpoint in another layout
    Convert(convert::ConvertArgs),
    /// Write a model as an ONNX graph
    ExportOnnx(export_onnx::ExportOnnxArgs),
    /// Say what is wrong with a checkpoint and mend it; without one, list the devices and test each
    Doctor(doctor::DoctorArgs),
    /// Measure speed and memory
    Bench(bench::BenchArgs),
    /// Pre-train, reconstruct and probe on images that come with the program, in a few minutes
    Demo(demo::DemoArgs),
}

/// What several processes can do together.
type Together<'a> = dyn Fn(&Global, &Device, Team) -> anyhow::Result<u8> + 'a;

fn main() -> ExitCode {
    let arguments = match recipes::expand(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(error) => {
            errln!("{}", exit::message(&error));
            return ExitCode::from(exit::code(&error));
        }
    };
    let cli = Cli::parse_from(arguments);
    let global = cli.global;
    let done = device::set_up_threads(&global).and_then(|()| {
        // As one of the pool's own threads this one takes part in every parallel loop, instead of sleeping
        // through it and being woken, some hundred times a training step.
        rayon::scope(|_| {
            // What needs no device opens none: a driver that does not start is then no obstacle.
            let device = || device::open(&global);
            let together = |command: &Together| {
                let device = device()?;
                processes::together(&global, |global, team| command(global, &device, team))
            };
            match cli.command {
                Command::Pretrain(args) => {
                    together(&|global, device, team| pretrain::run(&args, global, device, team))
                }
                Command::Reconstruct(args) => reconstruct::run(&args, &global, &device()?),
                Command::Quality(args) => {
                    together(&|global, device, team| quality::run(&args, global, device, &team))
                }
                Command::Features(args) => {
                    together(&|global, device, team| features::run(&args, global, device, &team))
                }
                Command::Knn(args) => together(&|global, device, team| {
                    classify::run_knn(&args, global, device, &team)
                }),
                Command::Linprobe(args) => together(&|global, device, team| {
                    classify::run_linprobe(&args, global, device, &team)
                }),
                Command::Finetune(args) => {
                    together(&|global, device, team| finetune::run(&args, global, device, team))
                }
                Command::Evaluate(args) => together(&|global, device, team| {
                    finetune::run_evaluate(&args, global, device, &team)
                }),
                Command::Data(args) => data::run(&args, &global),
                Command::Report(args) => report::run(&args, &global),
                Command::Recipes(args) => recipes::run(&args, &global),
                Command::Inspect(args) => inspect::run(&args, &global),
                Command::Convert(args) => convert::run(&args, &global),
                Command::ExportOnnx(args) => export_onnx::run(&args, &global),
                Command::Doctor(args) => doctor::run(&args, &global),
                Command::Bench(args) => bench::run(&args, &global, &device()?),
                Command::Demo(args) => demo::run(&args, &global, &device()?),
            }
        })
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            errln!("{}", exit::message(&error));
            ExitCode::from(exit::code(&error))
        }
    }
}
