//! Labels: a place in the list of a set's classes for each image.

use std::collections::HashMap;
use std::path::Path;

use crate::TrainerError;
use crate::data::Dataset;

/// The classes of a set of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// Their names in order; a label is a place in this list.
    pub names: Vec<String>,
    /// The label of each image, in the data set's order.
    pub labels: Vec<usize>,
}

impl Classes {
    /// The classes of `images`, ordered by name, or as numbers if all of them are; `root` is where they come from.
    ///
    /// # Errors
    /// [`TrainerError::NoClass`] for an image without a class, [`TrainerError::OneClass`] if there
    /// is but one.
    pub fn of(images: &dyn Dataset, root: &Path) -> Result<Self, TrainerError> {
        let found = names(images)?;
        let mut names = found.clone();
        names.sort();
        names.dedup();
        let numbers: Option<Vec<u64>> = names.iter().map(|name| name.parse().ok()).collect();
        if numbers.is_some() {
            names.sort_by_key(|name| name.parse::<u64>().unwrap_or(0));
        }
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
    pub fn same_for(&self, images: &dyn Dataset, root: &Path) -> Result<Self, TrainerError> {
        Self::among(names(images)?, self.names.clone(), root)
    }

    fn among(found: Vec<String>, names: Vec<String>, root: &Path) -> Result<Self, TrainerError> {
        let places: HashMap<&String, usize> =
            names.iter().enumerate().map(|(place, name)| (name, place)).collect();
        let label = |name: &String| {
            places.get(name).copied().ok_or_else(|| TrainerError::UnknownClass {
                folder: root.join(name),
                known: names.len(),
            })
        };
        let labels = found.iter().map(label).collect::<Result<_, _>>()?;
        Ok(Self { names, labels })
    }
}

/// The class of each image.
fn names(images: &dyn Dataset) -> Result<Vec<String>, TrainerError> {
    let name = |index: usize| {
        images.class(index).ok_or_else(|| TrainerError::NoClass { image: images.name(index) })
    };
    (0..images.len()).map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::ImageFolder;

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
    fn numbers_are_in_their_own_order() {
        assert_eq!(
            classes(&folder(&["10/1.png", "9/1.png", "2/1.png"])).unwrap().names,
            ["2", "9", "10"]
        );
        assert_eq!(
            classes(&folder(&["10/1.png", "9/1.png", "x/1.png"])).unwrap().names,
            ["10", "9", "x"]
        );
    }

    #[test]
    fn images_without_a_class_are_named() {
        let error = classes(&folder(&["1.png", "a/1.png"])).unwrap_err().to_string();
        assert!(error.contains("1.png` has no class"), "{error}");
        let error = classes(&folder(&["a/1.png"])).unwrap_err().to_string();
        assert!(error.contains("has 1 class folder"), "{error}");
    }
}
