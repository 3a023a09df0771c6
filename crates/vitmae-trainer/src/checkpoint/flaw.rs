//! What can be wrong with a checkpoint folder.

/// Why a folder is not a checkpoint to resume from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// Writing it did not end.
    #[error("there is no `MANIFEST.json`: it was not written to the end")]
    NoManifest,
    /// The manifest cannot be understood.
    #[error("`MANIFEST.json` is not a manifest")]
    BadManifest {
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// Another version of the layout.
    #[error("`MANIFEST.json` has format version {found}, expected {expected}")]
    Version {
        /// The version found.
        found: u32,
        /// The version read here.
        expected: u32,
    },
    /// Folder name and manifest disagree.
    #[error("`MANIFEST.json` is of step {found}, the folder's name says {expected}")]
    Step {
        /// Step in the manifest.
        found: u64,
        /// Step in the name.
        expected: u64,
    },
    /// A name that leaves the folder.
    #[error("`MANIFEST.json` names the file `{name}`, which is no name inside the folder")]
    Name {
        /// The name.
        name: String,
    },
    /// A listed file is gone.
    #[error("`{name}` is missing")]
    Missing {
        /// The file.
        name: String,
    },
    /// A file is shorter or longer.
    #[error("`{name}` has {found} bytes, expected {expected}")]
    Length {
        /// The file.
        name: String,
        /// Bytes on the disk.
        found: u64,
        /// Bytes written.
        expected: u64,
    },
    /// A file has other contents.
    #[error("`{name}` is damaged: SHA-256 {found}, expected {expected}")]
    Digest {
        /// The file.
        name: String,
        /// Of the bytes on the disk.
        found: String,
        /// Of the bytes written.
        expected: String,
    },
    /// The system cannot read a file.
    #[error("`{name}` cannot be read")]
    Unreadable {
        /// The file.
        name: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
