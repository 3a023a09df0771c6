//! What lies at a path: a folder of images, or files of one of the known kinds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Cifar, Dataset, Idx, ImageFolder, Packed, TarShards};
use crate::TrainerError;

/// Images to train on, and to evaluate on if there are some.
#[derive(Clone)]
pub struct Parts {
    /// To train on.
    pub train: Arc<dyn Dataset>,
    /// To evaluate on.
    pub evaluation: Option<Arc<dyn Dataset>>,
}

/// A kind of file that holds many images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tar,
    Parquet,
    Cifar,
    Idx,
    Packed,
}

/// Opens what lies at `path`: a file of a known kind, a folder of such files, or a folder of images.
///
/// | files | kind |
/// |---|---|
/// | `*.tar` | WebDataset shards, [`TarShards`] |
/// | `*.parquet` | Hugging Face data sets (feature `parquet`) |
/// | `data_batch_*.bin`, `test_batch.bin`, `train.bin`, `test.bin` | [`Cifar`] |
/// | `*-images-idx3-ubyte`, also `.gz` | [`Idx`] |
/// | `*.vmpack` | [`Packed`] |
/// | anything else | [`ImageFolder`] |
///
/// # Errors
/// Those of the kind's `open`; [`TrainerError::Container`] for a compressed tar and for a folder with two kinds.
pub fn open(path: &Path) -> Result<Arc<dyn Dataset>, TrainerError> {
    let (folder, files) = files_at(path)?;
    open_files(&folder, files.iter().collect())
}

/// Opens what lies at `root` and tells parts apart: by the folders `train` and `val` (or `validation`, `test`) inside, else by
/// these words (and CIFAR's `data_batch`, MNIST's `t10k`) in the names of files. The first of them that is there is to evaluate on.
/// Where nothing is called `train`, all that has none of these words is to train on.
///
/// # Errors
/// As [`open`].
pub fn open_parts(root: &Path) -> Result<Parts, TrainerError> {
    let inside = |name: &str| Some(root.join(name)).filter(|path| path.is_dir());
    if let Some(train) = inside("train") {
        let evaluation = EVALUATION.iter().find_map(|name| inside(name));
        let evaluation = evaluation.map(|path| open(&path)).transpose()?;
        return Ok(Parts { train: open(&train)?, evaluation });
    }
    let (folder, files) = files_at(root)?;
    let of_part = |words: &[&str]| -> Vec<&PathBuf> {
        files.iter().filter(|path| has_word(path, words)).collect()
    };
    let held_out = of_part(&EVALUATION);
    if held_out.is_empty() || held_out.len() == files.len() {
        return Ok(Parts { train: open(root)?, evaluation: None });
    }
    let train = match of_part(&TRAIN) {
        train if train.is_empty() => files.iter().filter(|path| !held_out.contains(path)).collect(),
        train => train,
    };
    // As of folders, the first of the words: many sets have a `test` without labels beside `validation`.
    let parts = EVALUATION.iter().map(|word| of_part(&[word]));
    let evaluation = parts.into_iter().find(|part| !part.is_empty()).unwrap_or_default();
    let evaluation = Some(open_files(&folder, evaluation)?);
    Ok(Parts { train: open_files(&folder, train)?, evaluation })
}

/// Words that say what a file or a folder is for.
const EVALUATION: [&str; 4] = ["val", "validation", "test", "t10k"];
const TRAIN: [&str; 2] = ["train", "data_batch"];

fn has_word(path: &Path, words: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut parts = name.split(|letter: char| !letter.is_ascii_alphanumeric());
    name.starts_with("data_batch") && words.contains(&"data_batch")
        || parts.any(|part| words.contains(&part))
}

/// The folder at or around `path`, and the files of known kinds there: all of one kind, in the order of their names. None
/// for a folder of images.
fn files_at(path: &Path) -> Result<(PathBuf, Vec<PathBuf>), TrainerError> {
    if path.is_file() {
        kind_of(path)?.ok_or_else(|| TrainerError::Container {
            path: path.to_path_buf(),
            kind: "set of images",
            found: "its name is of no known kind".to_owned(),
            help: "known are .tar, .parquet, .vmpack, CIFAR's .bin, *-images-idx3-ubyte, and folders of images",
        })?;
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        return Ok((folder, vec![path.to_path_buf()]));
    }
    let failed = |source| TrainerError::Io { action: "list", path: path.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let hidden = file.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if !hidden && file.is_file() && kind_of(&file)?.is_some() {
            files.push(file);
        }
    }
    files.sort();
    // As the hub lays its data sets out.
    if files.is_empty() && path.join("data").is_dir() {
        let inside = files_at(&path.join("data"))?;
        if !inside.1.is_empty() {
            return Ok(inside);
        }
    }
    Ok((path.to_path_buf(), files))
}

fn open_files(folder: &Path, files: Vec<&PathBuf>) -> Result<Arc<dyn Dataset>, TrainerError> {
    let Some(first) = files.first() else { return Ok(Arc::new(ImageFolder::open(folder)?)) };
    let kind = kind_of(first)?;
    for other in &files {
        if kind_of(other)? != kind || (files.len() > 1 && kind == Some(Kind::Idx)) {
            return Err(TrainerError::Container {
                path: folder.to_path_buf(),
                kind: "set of images",
                found: format!("`{}` and `{}` are not one set", first.display(), other.display()),
                help: "name one of them, or put each set into a folder of its own",
            });
        }
    }
    let files: Vec<PathBuf> = files.into_iter().cloned().collect();
    Ok(match kind {
        Some(Kind::Tar) => Arc::new(TarShards::open(&files)?),
        Some(Kind::Cifar) => Arc::new(Cifar::open(&files)?),
        Some(Kind::Idx) => Arc::new(Idx::open(&files[0])?),
        Some(Kind::Packed) if files.len() == 1 => Arc::new(Packed::open(&files[0])?),
        Some(Kind::Packed) => {
            return Err(TrainerError::Container {
                path: folder.to_path_buf(),
                kind: "set of images",
                found: format!("it has {} packed sets", files.len()),
                help: "name one of them; `train` and `val` in their names tell parts apart",
            });
        }
        Some(Kind::Parquet) => parquet(&files)?,
        None => Arc::new(ImageFolder::open(folder)?),
    })
}

#[cfg(feature = "parquet")]
fn parquet(files: &[PathBuf]) -> Result<Arc<dyn Dataset>, TrainerError> {
    Ok(Arc::new(super::Parquet::open(files)?))
}

#[cfg(not(feature = "parquet"))]
fn parquet(files: &[PathBuf]) -> Result<Arc<dyn Dataset>, TrainerError> {
    Err(TrainerError::Container {
        path: files[0].clone(),
        kind: "set of images",
        found: "this program was built without Parquet".to_owned(),
        help: "build it with `--features parquet`",
    })
}

/// What a file is by its name; none for a file of no known kind.
fn kind_of(path: &Path) -> Result<Option<Kind>, TrainerError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let ends = |ending: &str| name.ends_with(ending);
    if [".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"].iter().any(|ending| ends(ending)) {
        return Err(TrainerError::Container {
            path: path.to_path_buf(),
            kind: "set of images",
            found: "it is compressed, and cannot be read by position".to_owned(),
            help: "unpack it to a plain .tar; images are compressed already",
        });
    }
    let cifar = ["test_batch.bin", "train.bin", "test.bin"].contains(&name.as_str())
        || (name.starts_with("data_batch_") && ends(".bin"));
    Ok(match () {
        () if ends(".tar") => Some(Kind::Tar),
        () if ends(".parquet") => Some(Kind::Parquet),
        () if ends(".vmpack") => Some(Kind::Packed),
        () if ends("idx3-ubyte") || ends("idx3-ubyte.gz") => Some(Kind::Idx),
        () if cifar => Some(Kind::Cifar),
        () => None,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use vitmae_image::{Image, encode_png};

    use super::*;

    fn cifar(path: &Path, images: usize, level: u8) {
        fs::write(path, vec![level; images * 3073]).unwrap();
    }

    #[test]
    fn parts_are_told_apart_by_names() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (name, images) in [("data_batch_1", 2), ("data_batch_2", 3), ("test_batch", 4)] {
            cifar(&root.join(format!("{name}.bin")), images, 1);
        }
        fs::write(root.join("readme.html"), "").unwrap();
        let parts = open_parts(root).unwrap();
        assert_eq!((parts.train.len(), parts.evaluation.unwrap().len()), (5, 4));
        assert_eq!(open(root).unwrap().len(), 9);
        assert_eq!(open(&root.join("data_batch_2.bin")).unwrap().len(), 3);
        let alone = open_parts(&root.join("test_batch.bin")).unwrap();
        assert_eq!((alone.train.len(), alone.evaluation.is_none()), (4, true));
        for (name, is_train) in
            [("a-train-0001.tar", true), ("train.vmpack", true), ("trains.tar", false)]
        {
            assert_eq!(has_word(Path::new(name), &TRAIN), is_train, "{name}");
        }
    }

    #[test]
    fn of_two_parts_to_evaluate_on_the_first_word_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let png = encode_png(&Image::new(1, 1, 3, vec![1; 3]).unwrap()).unwrap();
        for (name, images) in [("a-0.tar", 1), ("a-1.tar", 1), ("test.tar", 3), ("val.tar", 4)] {
            let mut tar = tar::Builder::new(fs::File::create(folder.path().join(name)).unwrap());
            for image in 0..images {
                let mut header = tar::Header::new_gnu();
                header.set_size(png.len() as u64);
                tar.append_data(&mut header, format!("{image}.png"), png.as_slice()).unwrap();
            }
            tar.finish().unwrap();
        }
        let parts = open_parts(folder.path()).unwrap();
        assert_eq!((parts.train.len(), parts.evaluation.unwrap().len()), (2, 4));
    }

    #[test]
    fn folders_inside_may_be_of_any_kind() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("train")).unwrap();
        fs::create_dir_all(root.join("val/cat")).unwrap();
        cifar(&root.join("train/data_batch_1.bin"), 2, 3);
        let png = encode_png(&Image::new(1, 1, 3, vec![1; 3]).unwrap()).unwrap();
        fs::write(root.join("val/cat/1.png"), png).unwrap();
        let parts = open_parts(root).unwrap();
        assert_eq!((parts.train.len(), parts.evaluation.unwrap().len()), (2, 1));
    }

    #[test]
    fn what_cannot_be_one_set_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let error = |path: &Path, told: &str| {
            let error = open(path).err().unwrap().to_string();
            assert!(error.contains(told), "{error}");
        };
        fs::write(root.join("a.tar.gz"), "").unwrap();
        error(root, "a.tar.gz` cannot be used as set of images: it is compressed");
        fs::remove_file(root.join("a.tar.gz")).unwrap();
        cifar(&root.join("train.bin"), 2, 0);
        fs::write(root.join("b.tar"), "").unwrap();
        error(root, "are not one set");
        fs::write(root.join("notes.txt"), "").unwrap();
        error(&root.join("notes.txt"), "its name is of no known kind");
        if cfg!(not(feature = "parquet")) {
            fs::write(root.join("a.parquet"), "").unwrap();
            error(&root.join("a.parquet"), "build it with `--features parquet`");
        }
    }
}
