//! Pre-training of masked autoencoders: data, optimizer, schedule, exact resume, evaluation.
#![forbid(unsafe_code)]
