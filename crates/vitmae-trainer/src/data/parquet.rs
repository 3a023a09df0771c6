//! Parquet files with an image column, as Hugging Face's `datasets` writes them.
//!
//! The column is called `image` or `img`: a structure with the encoded `bytes`, or the bytes themselves. A column `label`
//! (`fine_label`) gives classes: whole numbers, with the names that the file's `huggingface` metadata has for them, or texts.
//!
//! A row cannot be read alone: its row group is, and the last few stay in memory. In a random order of a large set most images so
//! cost a row group; [`pack`](super::pack) makes a file that has no such cost.
//!
//! Source: <https://huggingface.co/docs/datasets/about_dataset_features>, `Image` and `ClassLabel`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::parquet::column::reader::ColumnReader;
use ::parquet::data_type::ByteArray;
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;
use sha2::{Digest, Sha256};
use vitmae_image::{Image, ImageError, Limits, decode_named};

use super::Dataset;
use crate::TrainerError;

/// Columns that hold images and labels, in the order in which they are looked for.
const IMAGES: [&str; 4] = ["image.bytes", "img.bytes", "image", "img"];
const LABELS: [&str; 2] = ["label", "fine_label"];
/// Bytes of encoded images that stay in memory.
const CACHED: usize = 512 << 20;

/// The images of some files, in order.
pub struct Parquet {
    files: Vec<PathBuf>,
    readers: Vec<SerializedFileReader<File>>,
    /// In order; `first` is the number of the group's first image.
    groups: Vec<Group>,
    images: usize,
    labels: Option<Vec<String>>,
    fingerprint: String,
    cache: Mutex<Vec<(usize, Arc<Vec<ByteArray>>)>>,
}

#[derive(Clone, Copy)]
struct Group {
    file: usize,
    group: usize,
    first: usize,
    column: usize,
}

impl Parquet {
    /// Opens files and reads their labels.
    ///
    /// # Errors
    /// [`TrainerError::Io`], [`TrainerError::Container`] for one that is no Parquet or has no image column,
    /// [`TrainerError::NoImages`].
    pub fn open(files: &[PathBuf]) -> Result<Parquet, TrainerError> {
        let mut set = Parquet {
            files: files.to_vec(),
            readers: Vec::new(),
            groups: Vec::new(),
            images: 0,
            labels: Some(Vec::new()),
            fingerprint: String::new(),
            cache: Mutex::default(),
        };
        let mut hash = Sha256::new();
        for path in files {
            set.add(path, &mut hash)?;
        }
        if set.images == 0 {
            let folder = files.first().cloned().unwrap_or_default();
            return Err(TrainerError::NoImages { folder, ignored: 0 });
        }
        set.fingerprint = format!("parquet {}", crate::checkpoint::hex(&hash.finalize()));
        Ok(set)
    }

    fn add(&mut self, path: &Path, hash: &mut Sha256) -> Result<(), TrainerError> {
        let broken = |found: String| TrainerError::Container {
            path: path.to_path_buf(),
            kind: "Parquet file",
            found,
            help: "a column `image` or `img` with encoded images is expected",
        };
        let open = File::open(path).map_err(|source| TrainerError::Io {
            action: "read",
            path: path.to_path_buf(),
            source,
        })?;
        let reader = SerializedFileReader::new(open).map_err(|error| broken(error.to_string()))?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let columns: Vec<String> =
            schema.columns().iter().map(|column| column.path().string()).collect();
        let find = |names: &[&str]| {
            names.iter().find_map(|name| columns.iter().position(|column| column == name))
        };
        let column = find(&IMAGES)
            .ok_or_else(|| broken(format!("its columns are {}", columns.join(", "))))?;
        let label = find(&LABELS);
        let names = label.and_then(|label| {
            let texts = reader.metadata().file_metadata().key_value_metadata()?;
            let text = texts.iter().find(|text| text.key == "huggingface")?.value.as_ref()?;
            let features: Value = serde_json::from_str(text).ok()?;
            let names = features["info"]["features"][&columns[label]]["names"].as_array()?;
            Some(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
        });
        let names: Vec<String> = names.unwrap_or_default();
        for group in 0..reader.num_row_groups() {
            let rows = reader.metadata().row_group(group).num_rows().max(0) as usize;
            let first = self.images;
            self.groups.push(Group { file: self.readers.len(), group, first, column });
            self.images += rows;
            hash.update((rows as u64).to_le_bytes());
            let size = reader.metadata().row_group(group).column(column).uncompressed_size();
            hash.update(size.to_le_bytes());
            match label {
                Some(label) => {
                    let found = labels(&reader, group, label, rows, &names)
                        .map_err(|error| broken(error.to_string()))?;
                    self.labels.get_or_insert_default().extend(found);
                }
                None => self.labels = None,
            }
        }
        // Files of which some have labels have none together.
        if self.labels.as_ref().is_some_and(|labels| labels.len() != self.images) {
            self.labels = None;
        }
        self.readers.push(reader);
        Ok(())
    }

    /// The place of an image: its row group and its row there.
    fn place(&self, index: usize) -> (usize, usize) {
        let group = self.groups.partition_point(|group| group.first <= index) - 1;
        (group, index - self.groups[group].first)
    }

    /// The encoded images of a row group.
    fn group(&self, number: usize) -> Result<Arc<Vec<ByteArray>>, ParquetError> {
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut cache = lock();
            if let Some(at) = cache.iter().position(|(known, _)| *known == number) {
                let found = cache.remove(at);
                cache.push(found);
                return Ok(Arc::clone(&cache[cache.len() - 1].1));
            }
        }
        // Not under the lock, so that threads read several groups at once.
        let Group { file, group, column, .. } = self.groups[number];
        let rows = self.readers[file].metadata().row_group(group).num_rows().max(0) as usize;
        let images = Arc::new(texts(&self.readers[file], group, column, rows)?);
        let mut cache = lock();
        cache.push((number, Arc::clone(&images)));
        let bytes = |group: &Vec<ByteArray>| group.iter().map(ByteArray::len).sum::<usize>();
        while cache.len() > 1 && cache.iter().map(|(_, group)| bytes(group)).sum::<usize>() > CACHED
        {
            cache.remove(0);
        }
        Ok(images)
    }
}

/// A column of texts or bytes of a row group; where there is none, an empty one.
fn texts(
    reader: &SerializedFileReader<File>,
    group: usize,
    column: usize,
    rows: usize,
) -> Result<Vec<ByteArray>, ParquetError> {
    let ColumnReader::ByteArrayColumnReader(mut reader) =
        reader.get_row_group(group)?.get_column_reader(column)?
    else {
        return Err(ParquetError::General("the column holds no bytes".to_owned()));
    };
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    while levels.len() < rows {
        let before = values.len();
        let (read, _, _) =
            reader.read_records(rows - levels.len(), Some(&mut levels), None, &mut values)?;
        if read == 0 {
            return Err(ParquetError::EOF("the column ends early".to_owned()));
        }
        // A column without empty places has no levels.
        if levels.is_empty() {
            levels.resize(values.len() - before, i16::MAX);
        }
    }
    let full = levels.iter().copied().max().unwrap_or(0);
    spread(&levels, full, values)
}

/// Values with empty ones where the level is not full.
fn spread<T: Default>(levels: &[i16], full: i16, values: Vec<T>) -> Result<Vec<T>, ParquetError> {
    if levels.len() == values.len() {
        return Ok(values);
    }
    let mut values = values.into_iter();
    Ok(levels
        .iter()
        .map(|&level| match level == full {
            true => values.next().unwrap_or_default(),
            false => T::default(),
        })
        .collect())
}

/// The classes of a row group.
fn labels(
    reader: &SerializedFileReader<File>,
    group: usize,
    column: usize,
    rows: usize,
    names: &[String],
) -> Result<Vec<String>, ParquetError> {
    let name = |label: i64| {
        let name = usize::try_from(label).ok().and_then(|label| names.get(label));
        name.cloned().unwrap_or_else(|| label.to_string())
    };
    let all = |read: usize, found: Vec<i64>| match read == rows && found.len() == rows {
        true => Ok(found.into_iter().map(name).collect()),
        false => Err(ParquetError::General("some images have no label".to_owned())),
    };
    let mut levels = Vec::new();
    match reader.get_row_group(group)?.get_column_reader(column)? {
        ColumnReader::Int64ColumnReader(mut reader) => {
            let mut found = Vec::new();
            let read = reader.read_records(rows, Some(&mut levels), None, &mut found)?.0;
            all(read, found)
        }
        ColumnReader::Int32ColumnReader(mut reader) => {
            let mut found = Vec::new();
            let read = reader.read_records(rows, Some(&mut levels), None, &mut found)?.0;
            all(read, found.into_iter().map(i64::from).collect())
        }
        ColumnReader::ByteArrayColumnReader(_) => {
            let found = texts(reader, group, column, rows)?;
            Ok(found.iter().map(|text| String::from_utf8_lossy(text.data()).into_owned()).collect())
        }
        _ => Err(ParquetError::General("labels are neither whole numbers nor texts".to_owned())),
    }
}

impl Dataset for Parquet {
    fn len(&self) -> usize {
        self.images
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        let (group, row) = self.place(index);
        let images = self.group(group).map_err(|error| ImageError::Damaged {
            file: self.name(index),
            format: "Parquet",
            source: Box::new(error),
        })?;
        let bytes = images.get(row).map_or(&[][..], |bytes| bytes.data());
        decode_named(&self.name(index), bytes, &Limits::default())
    }

    fn name(&self, index: usize) -> String {
        let (group, row) = self.place(index);
        let file = self.groups[group].file;
        let first = self.groups.iter().find(|group| group.file == file);
        let row = self.groups[group].first + row - first.map_or(0, |group| group.first);
        format!("{}:row {row}", self.files[file].display())
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn class(&self, index: usize) -> Option<String> {
        self.labels.as_ref()?.get(index).cloned()
    }
}
