//! Labels of an image folder: the first folder on the way to an image is its class.

use std::path::Path;

use crate::TrainerError;
use crate::data::ImageFolder;

/// The classes of a set of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// Their names in order; a label is a place in this list.
    pub names: Vec<String>,
    /// The label of each image, in the data set's order.
    pub labels: Vec<usize>,
}

impl Classes {
    /// The classes of `images`, which lie below `root`, ordered by name.
    ///
    /// # Errors
    /// [`TrainerError::NoClass`] for an image that lies in no class folder, [`TrainerError::OneClass`] if there
    /// is but one.
    pub fn of(images: &ImageFolder, root: &Path) -> Result<Self, TrainerError> {
        let found = names(images, root)?;
        let mut names = found.clone();
        names.sort();
        names.dedup();
        if names.len() < 2 {
            return Err(TrainerError::OneClass {
                folder: root.to_path_buf(),
                classes: names.len(),
            });
        }
        Self::among(found, names, root)
    }

    /// The labels of other `images` by the same names; a class may be absent there, an unknown one is an error.
    ///
    /// # Errors
    /// [`TrainerError::NoClass`], [`TrainerError::UnknownClass`].
    pub fn same_for(&self, images: &ImageFolder, root: &Path) -> Result<Self, TrainerError> {
        Self::among(names(images, root)?, self.names.clone(), root)
    }

    fn among(found: Vec<String>, names: Vec<String>, root: &Path) -> Result<Self, TrainerError> {
        let label = |name: &String| {
            names.binary_search(name).map_err(|_| TrainerError::UnknownClass {
                folder: root.join(name),
                known: names.len(),
            })
        };
        let labels = found.iter().map(label).collect::<Result<_, _>>()?;
        Ok(Self { names, labels })
    }
}

/// The class folder of each image.
fn names(images: &ImageFolder, root: &Path) -> Result<Vec<String>, TrainerError> {
    let name = |file: &std::path::PathBuf| {
        let folder = file.parent().and_then(|parent| parent.components().next());
        let folder = folder.map(|folder| folder.as_os_str().to_string_lossy().into_owned());
        folder.ok_or_else(|| TrainerError::NoClass { path: root.join(file) })
    };
    images.files().iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        folder
    }

    fn classes(folder: &tempfile::TempDir) -> Result<Classes, TrainerError> {
        Classes::of(&ImageFolder::open(folder.path()).unwrap(), folder.path())
    }

    #[test]
    fn the_first_folder_is_the_class_and_names_give_the_order() {
        let train = folder(&["b/1.png", "a/deep/2.png", "a/1.png", "c/1.png"]);
        let found = classes(&train).unwrap();
        assert_eq!(found.names, ["a", "b", "c"]);
        assert_eq!(found.labels, [0, 0, 1, 2]);
        let test = folder(&["c/9.png"]);
        let images = ImageFolder::open(test.path()).unwrap();
        assert_eq!(found.same_for(&images, test.path()).unwrap().labels, [2]);
        let other = folder(&["d/9.png"]);
        let images = ImageFolder::open(other.path()).unwrap();
        let error = found.same_for(&images, other.path()).unwrap_err().to_string();
        assert!(error.contains("is none of the 3 classes"), "{error}");
    }

    #[test]
    fn images_without_a_class_are_named() {
        let error = classes(&folder(&["1.png", "a/1.png"])).unwrap_err().to_string();
        assert!(error.contains("1.png` lies in no class folder"), "{error}");
        let error = classes(&folder(&["a/1.png"])).unwrap_err().to_string();
        assert!(error.contains("has 1 class folder"), "{error}");
    }
}
