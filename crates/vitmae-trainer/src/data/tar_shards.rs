//! WebDataset shards: tar files read by position, never unpacked.
//!
//! Members of one sample have one name up to its first dot and follow each other: `0001.jpg` and `0001.cls`. An image counts by
//! its ending, as in a folder; `.cls` says its class; everything else is passed over. Without `.cls` the first folder in the
//! member's name is the class, as in the archives of ImageNet.
//!
//! Source: the format of the `webdataset` library, <https://github.com/webdataset/webdataset>.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};
use vitmae_image::{Image, ImageError, Limits, decode_named};

use super::positioned::Store;
use super::{Dataset, EXTENSIONS};
use crate::TrainerError;

/// Bytes of a block; headers and members begin at multiples of it.
const BLOCK: u64 = 512;
/// Bytes of the longest class name.
const MAX_CLASS: u64 = 256;

/// The images of some tar files, in the order in which they lie there.
#[derive(Debug)]
pub struct TarShards {
    shards: Vec<Store>,
    members: Vec<Member>,
    classes: Vec<String>,
}

#[derive(Debug)]
struct Member {
    shard: usize,
    name: String,
    offset: u64,
    size: u64,
    /// A place in the list of classes.
    class: Option<usize>,
}

impl TarShards {
    /// Reads the names and places of the members of `paths`; their contents are read when they are asked for.
    ///
    /// # Errors
    /// [`TrainerError::Io`], [`TrainerError::Container`] for a file that is no tar or ends early, [`TrainerError::NoImages`].
    pub fn open(paths: &[PathBuf]) -> Result<TarShards, TrainerError> {
        let mut set = TarShards { shards: Vec::new(), members: Vec::new(), classes: Vec::new() };
        let mut places = HashMap::new();
        for path in paths {
            set.add(path, &mut places)?;
        }
        if set.members.is_empty() {
            let folder = paths.first().cloned().unwrap_or_default();
            return Err(TrainerError::NoImages { folder, ignored: 0 });
        }
        Ok(set)
    }

    fn add(
        &mut self,
        path: &Path,
        places: &mut HashMap<String, usize>,
    ) -> Result<(), TrainerError> {
        let broken = |found: String| TrainerError::Container {
            path: path.to_path_buf(),
            kind: "tar file",
            found,
            help: "it may be cut off or compressed; a compressed tar cannot be read by position: unpack it to a plain one",
        };
        let store = Store::open(path)?;
        let shard = self.shards.len();
        let first = self.members.len();
        let mut classes: HashMap<String, String> = HashMap::new();
        let file = File::open(path).map_err(|source| TrainerError::Io {
            action: "read",
            path: path.to_path_buf(),
            source,
        })?;
        let mut archive = Archive::new(file);
        let entries = archive.entries_with_seek().map_err(|error| broken(error.to_string()))?;
        let mut end = 0;
        for entry in entries {
            let entry = entry.map_err(|error| broken(error.to_string()))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let (offset, size) = (entry.raw_file_position(), entry.size());
            end = offset.saturating_add(size);
            if end > store.len() {
                return Err(broken(format!("`{name}` reaches behind its end")));
            }
            // Links could name anything on this machine.
            if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous) {
                continue;
            }
            let (key, ending) = split(&name);
            if ending == "cls" && size <= MAX_CLASS {
                let text = store.read_now(offset, size as usize)?;
                let class = String::from_utf8_lossy(&text).trim().to_owned();
                classes.insert(key.to_owned(), class);
            } else if EXTENSIONS.contains(&ending.as_str()) {
                self.members.push(Member { shard, name, offset, size, class: None });
            }
        }
        // Without the empty block that ends every archive, members may be missing.
        if end.next_multiple_of(BLOCK) + BLOCK > store.len() {
            return Err(broken("its end is missing".to_owned()));
        }
        for member in &mut self.members[first..] {
            let told = classes.get(split(&member.name).0).cloned();
            let folder = || {
                let name = member.name.strip_prefix("./").unwrap_or(&member.name);
                Some(name.split_once('/')?.0.to_owned())
            };
            let Some(class) = told.or_else(folder) else { continue };
            let next = places.len();
            let place = *places.entry(class.clone()).or_insert(next);
            if place == next {
                self.classes.push(class);
            }
            member.class = Some(place);
        }
        self.shards.push(store);
        Ok(())
    }
}

/// What a sample's members have in common, and the ending in small letters.
fn split(name: &str) -> (&str, String) {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].find('.') {
        Some(dot) => (&name[..file + dot], name[file + dot + 1..].to_lowercase()),
        None => (name, String::new()),
    }
}

impl Dataset for TarShards {
    fn len(&self) -> usize {
        self.members.len()
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        let Member { shard, offset, size, .. } = self.members[index];
        let (name, limits) = (self.name(index), Limits::default());
        // One byte more than may be is enough to be refused.
        let size = size.min(limits.file_bytes.saturating_add(1));
        let bytes = self.shards[shard].read_image(offset, size as usize)?;
        decode_named(&name, &bytes, &limits)
    }

    fn name(&self, index: usize) -> String {
        let Member { shard, name, .. } = &self.members[index];
        format!("{}:{name}", self.shards[*shard].path().display())
    }

    fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for member in &self.members {
            hash.update((member.name.len() as u64).to_le_bytes());
            hash.update(&member.name);
            hash.update(member.size.to_le_bytes());
        }
        format!("tar {}", crate::checkpoint::hex(&hash.finalize()))
    }

    fn class(&self, index: usize) -> Option<String> {
        Some(self.classes[self.members[index].class?].clone())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use vitmae_image::encode_png;

    use super::*;

    /// A tar of these members.
    fn shard(path: &Path, members: &[(&str, Vec<u8>)]) {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
        }
        fs::write(path, tar.into_inner().unwrap()).unwrap();
    }

    fn grey(level: u8) -> Vec<u8> {
        encode_png(&Image::new(3, 2, 3, vec![level; 18]).unwrap()).unwrap()
    }

    #[test]
    fn samples_keep_their_order_and_classes_stand_beside_or_before_them() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a.tar"), folder.path().join("b.tar"));
        let long = format!("{}/x.PNG", "n".repeat(140));
        shard(
            &a,
            &[
                ("0001.cls", b"cat\n".to_vec()),
                ("0001.png", grey(1)),
                ("0001.json", b"{}".to_vec()),
                ("0002.png", grey(2)),
                ("0002.seg.png", b"no image".to_vec()),
                ("0002.cls", b"dog".to_vec()),
            ],
        );
        shard(&b, &[(&long, grey(3)), ("./cat/9.png", grey(4)), ("loose.png", grey(5))]);
        let set = TarShards::open(&[a.clone(), b]).unwrap();
        let levels: Vec<u8> = (0..set.len()).map(|i| set.load(i).unwrap().data[0]).collect();
        assert_eq!(levels, [1, 2, 3, 4, 5]);
        let classes: Vec<_> = (0..5).map(|i| set.class(i)).collect();
        let long = "n".repeat(140);
        let expected = [Some("cat"), Some("dog"), Some(long.as_str()), Some("cat"), None];
        assert_eq!(classes, expected.map(|class| class.map(str::to_owned)));
        assert_eq!(set.name(1), format!("{}:0002.png", a.display()));
        assert_ne!(set.fingerprint(), TarShards::open(&[a]).unwrap().fingerprint());
    }

    #[test]
    fn broken_archives_are_told_and_broken_images_are_one_bad_sample() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let images = [("1.png", grey(1)), ("2.png", vec![7; 3000]), ("3.png", grey(3))];
        shard(&path, &images);
        let set = TarShards::open(std::slice::from_ref(&path)).unwrap();
        assert!(set.load(0).is_ok() && set.load(2).is_ok());
        let error = set.load(1).unwrap_err().to_string();
        assert!(error.contains("a.tar:2.png` starts with [07"), "{error}");
        let whole = fs::read(&path).unwrap();
        for (cut, told) in [(1600, "reaches behind its end"), (700, "its end is missing")] {
            fs::write(&path, &whole[..cut]).unwrap();
            let error = TarShards::open(std::slice::from_ref(&path)).unwrap_err().to_string();
            assert!(error.contains(told), "{cut}: {error}");
        }
        fs::write(&path, b"\x1f\x8b\x08 compressed").unwrap();
        assert!(TarShards::open(std::slice::from_ref(&path)).is_err());
        shard(&path, &[("a.txt", vec![])]);
        let error = TarShards::open(&[path]).unwrap_err();
        assert!(matches!(error, TrainerError::NoImages { .. }));
    }

    #[test]
    #[cfg(unix)]
    fn links_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "secret.png", "/etc/passwd").unwrap();
        fs::write(&path, tar.into_inner().unwrap()).unwrap();
        assert!(TarShards::open(&[path]).is_err());
    }
}
