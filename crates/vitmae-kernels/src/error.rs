//! What can go wrong on a device.

use crate::Dtype;

/// An error of a launch or of a transfer.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The device, its driver or a compiler refused a launch, or memory ran out. A failed launch shows here
    /// when the values that it should have written are read.
    #[error("device: {0}")]
    Device(String),
    /// The device cannot do it.
    #[error("{op}: {dtype} is not supported by this device")]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// The type that the device lacks.
        dtype: Dtype,
    },
    /// An algorithm that the caller asked for does not suit the device or the shape; nothing was launched.
    #[error("{op}: {reason}")]
    Refused {
        /// The operation.
        op: &'static str,
        /// Why.
        reason: String,
    },
}

impl From<cubecl::server::ServerError> for KernelError {
    fn from(error: cubecl::server::ServerError) -> Self {
        let text = format!("{error:?}");
        // The message, without where in CubeCL it was made.
        let text = text.split("\nBacktrace:").next().unwrap_or(&text);
        let place = ["No backtrace available", "Asked at:"];
        let lines = text.lines().filter(|line| !place.contains(&line.trim()));
        Self::Device(lines.collect::<Vec<_>>().join("\n"))
    }
}
