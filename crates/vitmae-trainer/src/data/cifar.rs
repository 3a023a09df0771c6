//! The binary version of CIFAR-10 and CIFAR-100: 32×32 pixels, red, green and blue plane by plane behind one or two labels.
//!
//! Source: <https://www.cs.toronto.edu/~kriz/cifar.html>.

use std::path::{Path, PathBuf};

use vitmae_image::{Image, ImageError};

use super::Dataset;
use super::positioned::Store;
use crate::TrainerError;

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// The images of some files, in order.
#[derive(Debug)]
pub struct Cifar {
    files: Vec<Store>,
    /// The number of the first image of each file, and behind them of all.
    firsts: Vec<usize>,
    /// Labels before the pixels: 1 in CIFAR-10; in CIFAR-100 2, of which the second is the finer.
    labels: usize,
    names: Option<Vec<String>>,
}

impl Cifar {
    /// Opens `data_batch_1.bin` and the like (CIFAR-10), or `train.bin` and `test.bin` (CIFAR-100). Classes get the names of
    /// `batches.meta.txt` or `fine_label_names.txt` beside the first file, else numbers.
    ///
    /// # Errors
    /// [`TrainerError::Io`], [`TrainerError::Container`] for a length that holds no whole number of images.
    pub fn open(paths: &[PathBuf]) -> Result<Cifar, TrainerError> {
        let first = paths.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
        let is_fine = ["train.bin", "test.bin"].iter().any(|name| first.ends_with(name));
        let labels = if is_fine { 2 } else { 1 };
        let record = (labels + 3 * PLANE) as u64;
        let (mut files, mut firsts) = (Vec::new(), vec![0]);
        for path in paths {
            let store = Store::open(path)?;
            if store.len() == 0 || !store.len().is_multiple_of(record) {
                return Err(TrainerError::Container {
                    path: path.clone(),
                    kind: if is_fine { "CIFAR-100" } else { "CIFAR-10" },
                    found: format!("{} bytes are no multiple of {record}", store.len()),
                    help: "fetch it again; the binary version is meant, not the one for Python",
                });
            }
            firsts.push(firsts[firsts.len() - 1] + (store.len() / record) as usize);
            files.push(store);
        }
        let names = if is_fine { "fine_label_names.txt" } else { "batches.meta.txt" };
        let names = std::fs::read_to_string(first.with_file_name(names)).ok().map(|text| {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            lines.map(str::to_owned).collect()
        });
        Ok(Cifar { files, firsts, labels, names })
    }

    /// The file of an image and where it begins there.
    fn place(&self, index: usize) -> (&Store, u64) {
        let file = self.firsts.partition_point(|&first| first <= index) - 1;
        let inside = (index - self.firsts[file]) * (self.labels + 3 * PLANE);
        (&self.files[file], inside as u64)
    }
}

impl Dataset for Cifar {
    fn len(&self) -> usize {
        self.firsts[self.files.len()]
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        let (file, offset) = self.place(index);
        let planes = file.read_image(offset + self.labels as u64, 3 * PLANE)?;
        let pixels = (0..PLANE).flat_map(|at| [0, 1, 2].map(|plane| planes[plane * PLANE + at]));
        Image::new(SIDE, SIDE, 3, pixels.collect())
    }

    fn name(&self, index: usize) -> String {
        let (file, offset) = self.place(index);
        format!("{}:{}", file.path().display(), offset as usize / (self.labels + 3 * PLANE))
    }

    fn fingerprint(&self) -> String {
        let names = self.files.iter().map(|file| {
            let name = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("{name} {}", file.len())
        });
        format!("CIFAR {}", names.collect::<Vec<_>>().join(", "))
    }

    fn class(&self, index: usize) -> Option<String> {
        let (file, offset) = self.place(index);
        let label = *file.read(offset, self.labels).ok()?.last()?;
        let name = self.names.as_ref().and_then(|names| names.get(usize::from(label)));
        Some(name.cloned().unwrap_or_else(|| label.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record(labels: &[u8], level: u8) -> Vec<u8> {
        let mut bytes = labels.to_vec();
        for plane in 0..3 {
            bytes.extend((0..PLANE).map(|at| level + plane + (at == 1) as u8 * 100));
        }
        bytes
    }

    #[test]
    fn planes_become_pixels_and_labels_names() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["data_batch_1.bin", "data_batch_2.bin"].map(|name| folder.path().join(name));
        fs::write(&paths[0], [record(&[1], 10), record(&[0], 20)].concat()).unwrap();
        fs::write(&paths[1], record(&[7], 30)).unwrap();
        fs::write(folder.path().join("batches.meta.txt"), "airplane\nautomobile\n\n").unwrap();
        let set = Cifar::open(&paths).unwrap();
        assert_eq!(set.len(), 3);
        assert_eq!(set.load(1).unwrap().data[..6], [20, 21, 22, 120, 121, 122]);
        assert_eq!(set.load(2).unwrap().data[0], 30);
        let classes: Vec<_> = (0..3).map(|index| set.class(index).unwrap()).collect();
        assert_eq!(classes, ["automobile", "airplane", "7"]);
        assert_eq!(set.name(2), format!("{}:0", paths[1].display()));
    }

    #[test]
    fn the_finer_of_two_labels_counts_and_odd_lengths_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.bin");
        fs::write(&path, [record(&[4, 99], 1), record(&[4, 98], 2)].concat()).unwrap();
        let set = Cifar::open(std::slice::from_ref(&path)).unwrap();
        assert_eq!((set.len(), set.class(1).unwrap()), (2, "98".to_owned()));
        assert_eq!(set.load(0).unwrap().data[0], 1);
        fs::write(&path, vec![0; 3073 * 2]).unwrap();
        let error = Cifar::open(&[path]).unwrap_err().to_string();
        assert!(error.contains("6146 bytes are no multiple of 3074"), "{error}");
    }
}
