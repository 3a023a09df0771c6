//! `Device`, `Tensor` and one function per operation for masked autoencoders.
//!
//! | what | where |
//! |---|---|
//! | the place where numbers live and are computed | [`Device`] |
//! | a dtype-f32, contiguous, row-major array with shared, pooled memory | [`Tensor`] |
//! | row numbers, such as the kept patches of each image | [`Indices`] |
//! | the operations, each checking its shapes | [`ops`] |
//!
//! Cloning a tensor shares its memory; an operation that writes in place copies shared memory first.
//! Memory comes from a pool and returns to it on drop, so a steady training step allocates nothing.
//!
//! On a GPU operations are queued and return at once; a failure shows where values are read or
//! waited for: [`Tensor::to_vec`], [`Tensor::item`], [`Tensor::wait`]. All tensors of an operation must be on one device.
//!
//! **Parameter gradients add, activation gradients are new.** An operation that computes the gradient
//! of a parameter takes a slot, `&mut Option<Tensor>`: an empty one is filled, a full one is added to.
//!
//! Letters: `B` batch, `C` channels, `H W` pixels, `P` patch side, `L` patches, `K` kept patches,
//! `N` tokens, `D` encoder width, `E` decoder width, `A` heads, `M` numbers of a patch.

mod device;
mod error;
#[cfg(feature = "gpu")]
mod gpu;
mod indices;
pub mod ops;
mod pool;
mod storage;
mod tensor;
#[cfg(test)]
mod tests;

pub use device::Device;
pub use error::TensorError;
#[cfg(feature = "gpu")]
pub use gpu::GpuInfo;
pub use indices::Indices;
pub use pool::{MemoryUse, memory_use};
pub use tensor::Tensor;
