//! `MANIFEST.json`: written last, it proves that a checkpoint is complete and undamaged.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Flaw;
use crate::TrainerError;

/// The manifest's file name.
pub const MANIFEST_FILE: &str = "MANIFEST.json";
/// Version of the checkpoint's layout; readers refuse others.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of the longest manifest accepted.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// What a complete checkpoint holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// Updates made.
    pub step: u64,
    /// The run that wrote it; rotation touches no other run's.
    pub run: String,
    /// SHA-256 of what must agree to resume.
    pub config_hash: String,
    /// Every other file of the folder.
    pub files: Vec<FileEntry>,
}

/// A file as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Name inside the folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// Flushes every file of `folder` to the disk, then writes the manifest about them.
    ///
    /// # Errors
    /// [`TrainerError::Io`].
    pub fn seal(
        folder: &Path,
        step: u64,
        run: &str,
        config_hash: &str,
    ) -> Result<Manifest, TrainerError> {
        let mut names = names_in(folder)?;
        for inner in names.extract_if(.., |name| folder.join(name).is_dir()).collect::<Vec<_>>() {
            let path = folder.join(&inner);
            names.extend(names_in(&path)?.into_iter().map(|name| format!("{inner}/{name}")));
            super::store::sync(&path)?;
        }
        names.sort_unstable();
        let mut files = Vec::new();
        for name in names {
            let path = folder.join(&name);
            let (bytes, sha256) = digest(&path).map_err(failed("read", &path))?;
            let flushed = File::open(&path).and_then(|file| file.sync_all());
            flushed.map_err(failed("flush", &path))?;
            files.push(FileEntry { name, bytes, sha256 });
        }
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            step,
            run: run.to_owned(),
            config_hash: config_hash.to_owned(),
            files,
        };
        let path = folder.join(MANIFEST_FILE);
        let mut text = serde_json::to_string_pretty(&manifest)
            .map_err(|error| failed("write", &path)(error.into()))?;
        text.push('\n');
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(failed("write", &path))?;
        Ok(manifest)
    }

    /// Reads the manifest of `folder` and compares every file with it.
    ///
    /// # Errors
    /// The first [`Flaw`] found.
    pub fn verify(folder: &Path) -> Result<Manifest, Flaw> {
        let manifest = Manifest::read(folder)?;
        for entry in &manifest.files {
            let name = entry.name.clone();
            if !is_inside(&name) {
                return Err(Flaw::Name { name });
            }
            let path = folder.join(&name);
            let bytes = match fs::metadata(&path) {
                Ok(about) => about.len(),
                Err(_) => return Err(Flaw::Missing { name }),
            };
            if bytes != entry.bytes {
                return Err(Flaw::Length { name, found: bytes, expected: entry.bytes });
            }
            let found = digest(&path).map_err(|source| Flaw::Unreadable { name, source })?.1;
            if found != entry.sha256 {
                let name = entry.name.clone();
                return Err(Flaw::Digest { name, found, expected: entry.sha256.clone() });
            }
        }
        Ok(manifest)
    }

    /// Reads the manifest of `folder` without looking at the other files.
    ///
    /// # Errors
    /// [`Flaw::NoManifest`], [`Flaw::Unreadable`], [`Flaw::BadManifest`] or [`Flaw::Version`].
    pub fn read(folder: &Path) -> Result<Manifest, Flaw> {
        let unreadable = |source| Flaw::Unreadable { name: MANIFEST_FILE.into(), source };
        let file = match File::open(folder.join(MANIFEST_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Flaw::NoManifest);
            }
            Err(error) => return Err(unreadable(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_MANIFEST_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|source| Flaw::BadManifest { source })?;
        if manifest.format_version != FORMAT_VERSION {
            let (found, expected) = (manifest.format_version, FORMAT_VERSION);
            return Err(Flaw::Version { found, expected });
        }
        Ok(manifest)
    }
}

/// The names of what lies in a folder.
fn names_in(folder: &Path) -> Result<Vec<String>, TrainerError> {
    let entries = fs::read_dir(folder).map_err(failed("list", folder))?;
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.map_err(failed("list", folder))?;
        Ok(entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect()
}

/// Whether a name is that of a file in the checkpoint or in a folder of it.
fn is_inside(name: &str) -> bool {
    let mut parts = name.split('/');
    let plain = |part: &str| ![".", "..", ""].contains(&part) && !part.contains(['\\', ':']);
    parts.next().is_some_and(plain) && parts.next().is_none_or(plain) && parts.next().is_none()
}

/// Length and SHA-256 of a file.
fn digest(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 18];
    let mut length = 0;
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok((length, hex(&hash.finalize()))),
            count => {
                length += count as u64;
                hash.update(&chunk[..count]);
            }
        }
    }
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a text, in hexadecimal.
pub(crate) fn text_hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> TrainerError {
    let path = path.to_path_buf();
    move |source| TrainerError::Io { action, path: path.clone(), source }
}
