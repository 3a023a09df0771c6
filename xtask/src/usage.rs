//! Wrong arguments, which exit with 2 where every other failure exits with 1.

use std::fmt;

/// What is wrong with the arguments.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Refuses arguments where a verb takes none.
pub(crate) fn no_arguments(verb: &str, arguments: &[String]) -> anyhow::Result<()> {
    match arguments.first() {
        None => Ok(()),
        Some(first) => {
            let help = format!("help: see `cargo xtask {verb} --help`");
            Err(Usage(format!("`cargo xtask {verb}` takes no argument `{first}`\n{help}")).into())
        }
    }
}
