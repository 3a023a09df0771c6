//! What commands write: lines to read, and files, whole or not at all.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};
use vitmae_weights::{WeightsError, write_atomically};

use crate::exit;

/// A line of results on stdout: [`print()`] of a format and its arguments.
macro_rules! outln {
    ($($part:tt)*) => { $crate::output::print(format_args!($($part)*)) };
}

/// A line of progress or a message on stderr: [`tell`] of a format and its arguments.
macro_rules! errln {
    ($($part:tt)*) => { $crate::output::tell(format_args!($($part)*)) };
}

/// Prints a line. Where nobody reads any more, as in `vitmae … | head -1`, the program ends without a message.
pub fn print(line: Arguments<'_>) {
    let Err(error) = writeln!(io::stdout().lock(), "{line}") else { return };
    if error.kind() != ErrorKind::BrokenPipe {
        tell(format_args!("error: the results cannot be written: {error}"));
        std::process::exit(i32::from(exit::IO));
    }
    // Rust's programs ignore the signal that ends others here, so that `write` returns an error.
    #[cfg(unix)]
    let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGPIPE);
    std::process::exit(128 + 13)
}

/// Writes a line to stderr. One that cannot be written is lost: a training does not end because nobody watches.
pub fn tell(line: Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Replaces `path` by `bytes`; an older file stays as it was if that fails.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(path, |out| {
        out.write_all(bytes).map_err(|source| WeightsError::Io {
            action: "write",
            path: path.to_path_buf(),
            source,
        })
    })
    .with_context(|| format!("`{}` was not written", path.display()))
}
