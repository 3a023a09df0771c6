//! What can go wrong in an operation.

/// Why an operation refused its arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// A tensor has another shape than the operation needs.
    #[error("{op}: `{tensor}` has shape {actual:?}, expected {expected:?}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The argument's name.
        tensor: &'static str,
        /// Its shape.
        actual: Vec<usize>,
        /// The shape that fits the other arguments.
        expected: Vec<usize>,
    },
    /// A tensor has another number of sides than the operation needs.
    #[error("{op}: `{tensor}` has shape {actual:?}, expected {expected} sides")]
    Rank {
        /// The operation.
        op: &'static str,
        /// The argument's name.
        tensor: &'static str,
        /// Its shape.
        actual: Vec<usize>,
        /// The number of sides expected.
        expected: usize,
    },
    /// There are not as many values as the shape asks for.
    #[error("tensor: {actual} values do not fill the shape {shape:?}, expected {expected}")]
    Length {
        /// The shape asked for.
        shape: Vec<usize>,
        /// Values given.
        actual: usize,
        /// Values needed.
        expected: usize,
    },
    /// A side is not a multiple of what it is split into.
    #[error("{op}: {what} {found} is not divisible by {divisor}")]
    NotDivisible {
        /// The operation.
        op: &'static str,
        /// What is split.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The number of parts.
        divisor: usize,
    },
    /// An index points behind the rows it chooses from.
    #[error("{op}: `{tensor}` holds index {found}, expected less than {limit}")]
    Index {
        /// The operation.
        op: &'static str,
        /// The argument's name.
        tensor: &'static str,
        /// The largest index.
        found: u64,
        /// Number of rows.
        limit: usize,
    },
    /// A shape has more elements than memory can address, or than a GPU's kernels count.
    #[error("tensor: the shape {shape:?} has too many elements")]
    TooLarge {
        /// The shape.
        shape: Vec<usize>,
    },
    /// Tensors of one operation are on different devices.
    #[error("{op}: tensors on `{first}` and on `{second}`, expected one device")]
    Devices {
        /// The operation.
        op: &'static str,
        /// The device of its first tensor.
        first: String,
        /// Another one.
        second: String,
    },
    /// No device has this name.
    #[error(
        "device `{name}` is unknown, expected auto, cpu, gpu, wgpu, vulkan, cuda, hip, metal or lavapipe, those of GPUs also with a number as in cuda:1"
    )]
    DeviceUnknown {
        /// The name asked for.
        name: String,
    },
    /// This build or this machine does not have the device.
    #[error("device `{name}` is not available: {why}\nhelp: {remedy}")]
    DeviceMissing {
        /// The name asked for.
        name: String,
        /// The reason.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// A launch or a transfer failed: a compiler or driver refused it, or memory ran out.
    #[error(
        "device `{device}` failed: {message}\nhelp: if its memory is full, use a smaller batch"
    )]
    DeviceFailed {
        /// The device.
        device: String,
        /// What it says.
        message: String,
    },
    /// One value was asked of a tensor that holds another number of them.
    #[error("item: the shape {shape:?} has {actual} values, expected 1")]
    NotOne {
        /// Its shape.
        shape: Vec<usize>,
        /// Its values.
        actual: usize,
    },
}
