//! Where tensors live and operations run.

use std::fmt;

/// A place with memory and arithmetic: today the CPU.
///
/// A value, not a type parameter: layers, model and trainer are written once for every device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Cpu,
}

impl Device {
    /// This machine's CPU, all threads of the current Rayon pool.
    pub fn cpu() -> Self {
        Self(Kind::Cpu)
    }

    /// The best device of this build and machine.
    pub fn auto() -> Self {
        Self::cpu()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Cpu => f.write_str("cpu"),
        }
    }
}
