//! Open MPI: what the feature `mpi` is built and tested with.

use std::path::Path;
use std::process::Command;

use crate::debian;

/// Debian's packages with headers, with the launcher, and with the parser that makes bindings of the headers.
const PACKAGES: &str = "libopenmpi-dev openmpi-bin libclang-dev";

/// Installs the packages if they are missing and this is Debian or Ubuntu as root.
pub(crate) fn ensure() -> anyhow::Result<()> {
    debian::ensure("Open MPI with libclang", "the tests of several processes", PACKAGES, || {
        let runs = |program: &str| {
            Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
        };
        runs("mpirun") && runs("mpicc") && has_libclang()
    })
}

/// Whether one of LLVM's folders, or the folder that is set, holds the library.
fn has_libclang() -> bool {
    let holds = |folder: &Path| {
        std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
            entry.file_name().to_str().is_some_and(|name| name.starts_with("libclang.so"))
        })
    };
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let versions = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let own = versions
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("llvm-")));
    own.map(|entry| entry.path().join("lib")).any(|folder| holds(&folder))
}
