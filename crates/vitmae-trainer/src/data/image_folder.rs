//! A folder of images as a data set: flat, in class folders or nested at any depth.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use vitmae_image::{Image, ImageError, Limits, decode};

use super::Dataset;
use crate::TrainerError;

/// File name endings that count as images, in any case; the content decides how they are read.
pub const EXTENSIONS: [&str; 4] = ["jpeg", "jpg", "png", "webp"];

/// What stands between names and sizes in a fingerprint. Before sizes counted, one ended here.
pub(crate) const SIZES: &str = ", sizes ";

/// Every image below a folder, ordered by its path, whatever order the file system lists.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    root: PathBuf,
    /// Paths relative to the folder, in the order of their indices, and bytes.
    files: Vec<(PathBuf, u64)>,
    ignored: usize,
}

impl ImageFolder {
    /// Lists the images below `root`. Links are followed, and a folder that was seen already is not
    /// entered again, so loops end. Names that begin with a dot are passed over.
    ///
    /// # Errors
    /// [`TrainerError::Io`] if a folder cannot be read, [`TrainerError::NoImages`] if there is no
    /// image in any.
    pub fn open(root: &Path) -> Result<ImageFolder, TrainerError> {
        let mut listing = ImageFolder { root: root.to_path_buf(), files: Vec::new(), ignored: 0 };
        listing.enter(Path::new(""), &mut HashSet::new())?;
        if listing.files.is_empty() {
            let (folder, ignored) = (root.to_path_buf(), listing.ignored);
            return Err(TrainerError::NoImages { folder, ignored });
        }
        listing.files.sort_unstable();
        Ok(listing)
    }

    /// Files that are there but have no ending of [`EXTENSIONS`].
    pub fn ignored(&self) -> usize {
        self.ignored
    }

    fn enter(&mut self, folder: &Path, seen: &mut HashSet<PathBuf>) -> Result<(), TrainerError> {
        let path = self.root.join(folder);
        let failed = |source| TrainerError::Io { action: "list", path: path.clone(), source };
        if !seen.insert(fs::canonicalize(&path).map_err(failed)?) {
            return Ok(());
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
        }
        // Sorted before entering, so that of two links to one folder always the same one wins.
        names.sort_unstable();
        for name in names {
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let relative = folder.join(&name);
            // A link to nothing is kept if its name is an image's: reading it will report it.
            let about = fs::metadata(self.root.join(&relative));
            if about.as_ref().is_ok_and(fs::Metadata::is_dir) {
                self.enter(&relative, seen)?;
            } else if is_image_name(&relative) {
                self.files.push((relative, about.map_or(0, |about| about.len())));
            } else {
                self.ignored += 1;
            }
        }
        Ok(())
    }
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        decode(&self.root.join(&self.files[index].0), &Limits::default())
    }

    fn name(&self, index: usize) -> String {
        self.root.join(&self.files[index].0).display().to_string()
    }

    /// The hash of the names, and the first half of that of the sizes: pictures that were exchanged under their names show, as far as
    /// this can be told without reading them.
    fn fingerprint(&self) -> String {
        let (mut names, mut sizes) = (Sha256::new(), Sha256::new());
        for (file, size) in &self.files {
            let name = file.as_os_str().as_encoded_bytes();
            names.update((name.len() as u64).to_le_bytes());
            names.update(name);
            sizes.update(size.to_le_bytes());
        }
        let [names, sizes] = [names, sizes].map(|hash| crate::checkpoint::hex(&hash.finalize()));
        format!("{names}{SIZES}{}", &sizes[..32])
    }

    /// The first folder on the way to the image.
    fn class(&self, index: usize) -> Option<String> {
        let folder = self.files[index].0.parent()?.components().next()?;
        Some(folder.as_os_str().to_string_lossy().into_owned())
    }
}

fn is_image_name(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| EXTENSIONS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &str = "38102cd20c1cb8e4ce20cf84df4d98109e68ff92e641b0065b92c6a4ea2f6112";

    fn folder_with(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        folder
    }

    fn listed(folder: &Path) -> Vec<String> {
        let images = ImageFolder::open(folder).unwrap();
        images.files.iter().map(|(file, _)| file.display().to_string()).collect()
    }

    #[test]
    fn flat_class_and_nested_folders_are_listed_in_order() {
        let files = ["z.png", "b/2.JPG", "a/deep/er/x.webp", "a/1.jpeg", ".hidden.png", "note.txt"];
        let folder = folder_with(&files);
        assert_eq!(listed(folder.path()), ["a/1.jpeg", "a/deep/er/x.webp", "b/2.JPG", "z.png"]);
        assert_eq!(ImageFolder::open(folder.path()).unwrap().ignored(), 1);
    }

    #[test]
    #[cfg(unix)]
    fn loops_of_links_end() {
        let folder = folder_with(&["a/1.png"]);
        std::os::unix::fs::symlink(folder.path(), folder.path().join("a/up")).unwrap();
        std::os::unix::fs::symlink("../a", folder.path().join("a/self")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("lost.png")).unwrap();
        assert_eq!(listed(folder.path()), ["a/1.png", "lost.png"]);
        let images = ImageFolder::open(folder.path()).unwrap();
        assert!(images.load(1).is_err());
    }

    #[test]
    fn a_folder_without_images_is_an_error_that_says_what_counts() {
        let folder = folder_with(&["a.txt", "b/c.gif"]);
        let message = ImageFolder::open(folder.path()).unwrap_err().to_string();
        let shown = folder.path().display();
        assert_eq!(
            message,
            format!(
                "`{shown}` holds no images, only 2 other files\nhelp: images are files whose name \
                 ends in .jpeg, .jpg, .png or .webp, at any depth"
            )
        );
        assert!(matches!(
            ImageFolder::open(&folder.path().join("no")),
            Err(TrainerError::Io { .. })
        ));
    }

    #[test]
    fn the_fingerprint_follows_the_names_and_sizes() {
        let of = |folder: &Path| ImageFolder::open(folder).unwrap().fingerprint();
        let print = |files: &[&str]| of(folder_with(files).path());
        assert_eq!(print(&["a.png", "b.png"]), print(&["b.png", "a.png"]));
        assert_ne!(print(&["a.png", "b.png"]), print(&["a.png", "c.png"]));
        assert_ne!(print(&["ab.png"]), print(&["a/b.png"]));
        let folder = folder_with(&["a.png", "b.png"]);
        let before = of(folder.path());
        // The SHA-256 of both names with their lengths: what was the whole fingerprint once.
        assert_eq!(before.split_once(SIZES).unwrap().0, NAMES);
        fs::write(folder.path().join("b.png"), "y").unwrap();
        assert_eq!(of(folder.path()), before);
        fs::write(folder.path().join("b.png"), "xx").unwrap();
        let after = of(folder.path());
        assert!(after != before && after.starts_with(NAMES), "{after}");
        // Exchanged under their names.
        fs::write(folder.path().join("a.png"), "xx").unwrap();
        fs::write(folder.path().join("b.png"), "x").unwrap();
        assert_ne!(of(folder.path()), after);
    }
}
