//! From an error to its exit code and its message.

use std::ffi::OsString;
use std::io;

use vitmae_image::ImageError;
use vitmae_onnx::OnnxError;
use vitmae_tensor::TensorError;
use vitmae_trainer::{Failure, TrainerError};
use vitmae_weights::WeightsError;

/// The run failed.
const RUN: u8 = 1;
/// The command line is wrong; clap uses it too.
const USAGE: u8 = 2;
/// Images, weights or configurations are wrong.
pub const INPUT: u8 = 3;
/// The loss is not a number.
const NON_FINITE: u8 = 4;
/// There is no such device.
const DEVICE: u8 = 5;
/// The system failed, or the disk is full.
pub const IO: u8 = 6;

/// Something wrong with what the user gave, found by this crate.
#[derive(Debug)]
pub struct BadInput(pub String);

impl std::fmt::Display for BadInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

/// Options that contradict each other, found after parsing.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The documented exit code of an error: the first cause in its chain that has one.
pub fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(RUN)
}

fn code_of(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(error) = cause.downcast_ref::<TrainerError>() {
        return match error {
            // A training folder that is not there is the caller's mistake, not the system's.
            TrainerError::Io { action: "list", source, .. } => Some(reading(source)),
            TrainerError::Weights(error) => code_of(error),
            _ => match error.failure() {
                Failure::Run => None,
                Failure::Usage => Some(USAGE),
                Failure::Input => Some(INPUT),
                Failure::NonFinite => Some(NON_FINITE),
                Failure::Io => Some(IO),
            },
        };
    }
    if let Some(error) = cause.downcast_ref::<OnnxError>() {
        return match error {
            OnnxError::Write(error) => code_of(error),
            OnnxError::Refused { .. } | OnnxError::Differs { .. } => Some(RUN),
            _ => Some(INPUT),
        };
    }
    if let Some(error) = cause.downcast_ref::<WeightsError>() {
        return Some(match error {
            WeightsError::Io { action: "open" | "read", source, .. } => reading(source),
            error if error.is_io() => IO,
            _ => INPUT,
        });
    }
    if let Some(error) = cause.downcast_ref::<ImageError>() {
        return Some(match error {
            ImageError::Read { source, .. } => reading(source),
            _ => INPUT,
        });
    }
    if let Some(TensorError::DeviceMissing { .. }) = cause.downcast_ref::<TensorError>() {
        return Some(DEVICE);
    }
    if cause.is::<Usage>() {
        return Some(USAGE);
    }
    if cause.is::<BadInput>() {
        return Some(INPUT);
    }
    cause.is::<io::Error>().then_some(IO)
}

/// The code of a failure to read what the user named: a wrong name is bad input.
fn reading(error: &io::Error) -> u8 {
    use io::ErrorKind as K;
    match error.kind() {
        K::NotFound | K::IsADirectory | K::NotADirectory | K::InvalidInput => INPUT,
        _ => IO,
    }
}

/// One message of an error and its causes, remedies last.
///
/// A cause that repeats the message before it is left out.
pub fn message(error: &anyhow::Error) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut help = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        let (what, remedy) = text.split_once("\nhelp: ").unwrap_or((&text, ""));
        if lines.last().is_none_or(|last| last != what) {
            lines.push(what.to_owned());
        }
        if !remedy.is_empty() {
            help.push(remedy.to_owned());
        }
    }
    let mut message = format!("error: {}", lines.join(": "));
    for remedy in help {
        message.push_str("\nhelp: ");
        message.push_str(&remedy);
    }
    message
}

/// `--batch_size=4` as `--batch-size=4`: the original's spelling of flags. Values are untouched.
pub fn hyphenate(argument: OsString) -> OsString {
    let Some(text) = argument.to_str().filter(|text| text.starts_with("--")) else {
        return argument;
    };
    match text.split_once('=') {
        Some((name, value)) => format!("{}={value}", name.replace('_', "-")).into(),
        None => text.replace('_', "-").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_original_spelling_of_flags_is_understood() {
        let hyphenated = |text: &str| hyphenate(text.into()).into_string().unwrap();
        assert_eq!(hyphenated("--batch_size"), "--batch-size");
        assert_eq!(hyphenated("--data_path=/my_images/a_b"), "--data-path=/my_images/a_b");
        assert_eq!(hyphenated("my_images"), "my_images");
        assert_eq!(hyphenated("-a_b"), "-a_b");
    }

    #[test]
    fn a_message_is_one_line_and_its_remedies() {
        let error = anyhow::Error::new(BadInput("`x` is wrong\nhelp: repair it".into()));
        let error = Err::<(), _>(error).context("cannot read the mask").unwrap_err();
        assert_eq!(message(&error), "error: cannot read the mask: `x` is wrong\nhelp: repair it");
        assert_eq!(code(&error), INPUT);
    }

    #[test]
    fn a_cause_deep_inside_decides_the_code() {
        let io = io::Error::new(io::ErrorKind::StorageFull, "no space");
        let error = anyhow::Error::new(io).context("cannot write `x`");
        assert_eq!(code(&error), IO);
        assert_eq!(code(&anyhow::anyhow!("anything")), RUN);
        assert_eq!(code(&anyhow::Error::new(Usage("a and b".into()))), USAGE);
    }
}
