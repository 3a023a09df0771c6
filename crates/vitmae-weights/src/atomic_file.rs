//! Replacing a file so that a reader sees the old contents or the new ones, never a part.
//!
//! The new contents go to a temporary file in the same folder, are flushed to the disk, and take
//! the name by a rename, which is then flushed with its folder. After any failure the old file is
//! as it was and the temporary one is gone; only a killed process leaves one behind, named
//! `.NAME.tmp-PID-N`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::WeightsError;

/// Writes `path` anew with what `contents` puts out; the old file's permissions are kept.
///
/// # Errors
/// [`WeightsError::Io`] naming the step that failed, or the error of `contents`. The old file is
/// untouched in every case.
pub fn write_atomically<E: From<WeightsError>>(
    path: &Path,
    contents: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    write_atomically_seekable(path, |out| contents(out))
}

/// [`write_atomically`] for formats whose writer goes back.
pub(crate) fn write_atomically_seekable<E: From<WeightsError>>(
    path: &Path,
    contents: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    // A link keeps pointing at the file that is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let old = fs::metadata(&target).ok();
    if old.as_ref().is_some_and(|old| !old.is_file()) {
        return Err(WeightsError::NotAFile { path: path.to_path_buf() }.into());
    }
    let (temporary, file) = Temporary::create(&target)?;
    let failed = |action, source| WeightsError::Io { action, path: path.to_path_buf(), source };

    let mut writer = BufWriter::with_capacity(1 << 18, file);
    contents(&mut writer)?;
    let file = writer.into_inner().map_err(|error| failed("write", error.into_error()))?;
    if let Some(old) = old {
        file.set_permissions(old.permissions()).map_err(|e| failed("set the permissions of", e))?;
    }
    file.sync_all().map_err(|error| failed("flush", error))?;
    drop(file);
    fs::rename(&temporary.path, &target).map_err(|error| failed("replace", error))?;
    temporary.keep();
    Ok(sync_folder(&target)?)
}

/// A temporary file that is removed unless it was renamed.
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    fn create(target: &Path) -> Result<(Temporary, File), WeightsError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = target.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = target.with_file_name(format!(".{name}.tmp-{}-{count}", std::process::id()));
        // A killed process of the same number may have left one.
        let _ = fs::remove_file(&path);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => Ok((Temporary { path, renamed: false }, file)),
            Err(source) => {
                let (action, path) = ("create", target.to_path_buf());
                Err(WeightsError::Io { action, path, source })
            }
        }
    }

    fn keep(mut self) {
        self.renamed = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // The error that led here is the one worth reporting.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the rename itself survive a power failure; other systems than Unix offer no such call.
fn sync_folder(file: &Path) -> Result<(), WeightsError> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| {
            WeightsError::Io { action: "flush", path: folder.to_path_buf(), source }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(text: &'static str) -> impl FnOnce(&mut dyn Write) -> Result<(), WeightsError> {
        move |out| {
            out.write_all(text.as_bytes()).unwrap();
            Ok(())
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_made_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, put("one")).unwrap();
        write_atomically(&path, put("two")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn a_failure_half_way_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, put("old")).unwrap();
        let error = write_atomically(&path, |out| {
            out.write_all(&vec![7; 1 << 20]).unwrap();
            Err(WeightsError::TooShort { found: 0 })
        });
        assert!(matches!(error, Err(WeightsError::TooShort { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn a_panic_half_way_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write_atomically(&path, put("old")).unwrap();
        let panic = std::panic::catch_unwind(|| {
            write_atomically::<WeightsError>(&path, |_| panic!("on purpose"))
        });
        assert!(panic.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn impossible_targets_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_atomically(folder.path(), put("x")).unwrap_err().to_string();
        assert_eq!(error, format!("`{}` is not a regular file", folder.path().display()));
        let missing = folder.path().join("no/such/a.txt");
        let error = write_atomically(&missing, put("x")).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot create `{}`", missing.display()));
        assert!(error.is_io());
    }

    #[cfg(unix)]
    #[test]
    fn modes_and_links_are_kept() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a.txt"), folder.path().join("link"));
        // A new file gets the mode of any file made here, not that of a private temporary one.
        write_atomically(&path, put("one")).unwrap();
        fs::write(folder.path().join("plain"), "").unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), mode(&folder.path().join("plain")));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("a.txt", &link).unwrap();
        write_atomically(&link, put("two")).unwrap();
        assert_eq!(mode(&path), 0o640);
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
