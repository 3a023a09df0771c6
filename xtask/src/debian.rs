//! Programs and libraries that a step needs, from Debian's packages.

use std::path::Path;

use anyhow::{Context, bail};

use crate::command::Line;

/// Installs `packages` unless `is_installed`, if this is Debian or Ubuntu as root. `what` they are, and `user`, who needs
/// them, are for messages.
pub(crate) fn ensure(
    what: &str,
    user: &str,
    packages: &str,
    is_installed: impl Fn() -> bool,
) -> anyhow::Result<()> {
    if is_installed() {
        return Ok(());
    }
    let help = format!("help: on Debian or Ubuntu, apt-get install {packages}");
    if !Path::new("/etc/debian_version").exists() {
        bail!("{user} need {what}, which is not installed\n{help}");
    }
    println!("installing {what} for {user}: {packages}");
    let install = format!(
        "install --yes --no-install-recommends -o Dpkg::Options::=--force-confold {packages}"
    );
    let quiet = |line: Line| line.environment("DEBIAN_FRONTEND", "noninteractive");
    quiet(Line::new("apt-get", "update --quiet"))
        .run()
        .and_then(|()| quiet(Line::new("apt-get", &install)).run())
        .with_context(|| format!("{what} could not be installed\n{help}"))?;
    if !is_installed() {
        bail!("{what} is still missing after `apt-get {install}`");
    }
    Ok(())
}
