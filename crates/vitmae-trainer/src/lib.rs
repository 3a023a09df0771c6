//! Training of masked autoencoders and of classifiers on them: data, optimizer, schedule, exact resume, evaluation.
//!
//! [`pretrain()`] runs a whole pre-training, [`finetune()`] a fine-tuning, each from a [`RunConfig`] and a [`data::Dataset`] and tells
//! what happens through [`Event`]s; it prints nothing. [`TrainState`] is the level below: pixels and
//! masks in, one update out. [`mod@linear_probe`] and [`knn`] judge features.
//!
//! **A run is a function of its settings and its images.** On the CPU, the weights after any step
//! are bit-identical at any number of threads and workers, and a run that was stopped at any step,
//! or killed at any moment, ends with the weights of the run that was not.
#![forbid(unsafe_code)]

pub mod adamw;
pub mod checkpoint;
mod classes;
mod confusion;
pub mod data;
mod ema;
mod error;
pub mod evaluation;
mod event;
mod event_file;
pub mod features;
mod finetune;
mod gradient_sums;
pub mod knn;
mod lars;
pub mod linear_probe;
mod metrics;
mod mix;
#[cfg(feature = "mpi")]
mod mpi;
mod online_probe;
mod pretrain;
pub mod reconstruction;
mod run;
pub mod schedule;
mod spikes;
mod stop;
mod team;
mod train_state;
mod trainable;

pub use adamw::{AdamW, AdamWOptions, Groups};
pub use classes::Classes;
pub use confusion::Confusion;
pub use ema::Ema;
pub use error::{Failure, TrainerError};
pub use event::{Event, Started, Step};
pub use finetune::{FinetuneConfig, classify, finetune};
pub use lars::Lars;
pub use linear_probe::linear_probe;
pub use metrics::MetricsLog;
pub use mix::Mix;
#[cfg(feature = "mpi")]
pub use mpi::MpiProcesses;
pub use pretrain::pretrain;
pub use run::{
    Datasets, Evaluation, IMAGENET_MEAN, IMAGENET_STD, NanPolicy, PROBE_FILE, ProbeConfig, Resume,
    RunConfig, Summary, train_probe,
};
pub use spikes::Spike;
pub use stop::StopFlag;
pub use team::{Collective, Team};
pub use train_state::{TrainState, Update};
pub use trainable::Trainable;
