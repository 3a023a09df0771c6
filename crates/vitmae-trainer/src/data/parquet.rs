//! Parquet files with an image column, as Hugging Face's `datasets` writes them.
//!
//! The column is called `image` or `img`, or is the only one that holds bytes: a structure with the encoded `bytes`, or the bytes
//! themselves. A column `label` (`fine_label`) gives classes: whole numbers, with the names that the file's `huggingface` metadata
//! has for them, or texts. An image whose label is absent, or negative where numbers have names, has no class.
//!
//! A row cannot be read alone: pages before it are passed over by their headers, and a block of some 2 MB around it is decoded and
//! kept for a while. In a random order of a large set every image costs a block; [`pack`](super::pack) makes a file that has no
//! such cost.
//!
//! Source: <https://huggingface.co/docs/datasets/about_dataset_features>, `Image` and `ClassLabel`.

mod column;

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ::parquet::basic::{ConvertedType, Type as Physical};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::schema::types::ColumnDescriptor;
use serde_json::Value;
use sha2::{Digest, Sha256};
use vitmae_image::{Image, ImageError, Limits, decode_named};

use super::Dataset;
use super::positioned::Store;
use crate::TrainerError;
use column::{Labels, Positioned, bytes, labels};

/// Columns that hold images and labels, in the order in which they are looked for.
const IMAGES: [&str; 4] = ["image.bytes", "img.bytes", "image", "img"];
const LABELS: [&str; 2] = ["label", "fine_label"];
/// Bytes of encoded images that a block should have.
const BLOCK: u64 = 2 << 20;
/// Bytes of encoded images that stay in memory.
const CACHED: usize = 512 << 20;

/// The images of some files, in order.
pub struct Parquet {
    files: Vec<PathBuf>,
    readers: Vec<SerializedFileReader<Positioned>>,
    /// In order.
    groups: Vec<Group>,
    images: usize,
    classes: Vec<String>,
    fingerprint: String,
    /// The blocks that were used last, the latest at the end.
    cache: Mutex<VecDeque<(usize, Arc<Block>)>>,
}

struct Group {
    file: usize,
    /// Its place in the file.
    group: usize,
    /// The number of its first image in the set.
    first: usize,
    rows: usize,
    column: usize,
    /// Rows of a block.
    block: usize,
    /// Places in the list of classes; empty if there are no labels.
    labels: Vec<Option<u32>>,
}

/// Encoded images, one behind the other.
struct Block {
    /// The number of the first in the set.
    first: usize,
    bytes: Vec<u8>,
    ends: Vec<usize>,
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
            classes: Vec::new(),
            fingerprint: String::new(),
            cache: Mutex::default(),
        };
        let (mut hash, mut places) = (Sha256::new(), HashMap::new());
        for path in files {
            let store = Store::open(path)?;
            caught(|| set.add(store, &mut hash, &mut places)).map_err(|error| {
                TrainerError::Container {
                    path: path.clone(),
                    kind: "Parquet file",
                    found: error.to_string(),
                    help: "a column `image` or `img` with encoded images is expected",
                }
            })?;
        }
        if set.images == 0 {
            let folder = files.first().cloned().unwrap_or_default();
            return Err(TrainerError::NoImages { folder, ignored: 0 });
        }
        set.fingerprint = format!("parquet {}", crate::checkpoint::hex(&hash.finalize()));
        Ok(set)
    }

    fn add(
        &mut self,
        store: Store,
        hash: &mut Sha256,
        places: &mut HashMap<String, u32>,
    ) -> Result<(), ParquetError> {
        let size = store.len();
        let reader = SerializedFileReader::new(Positioned(Arc::new(store)))?;
        let about = reader.metadata().file_metadata();
        let columns = about.schema_descr().columns();
        let column = image_column(columns)?;
        let path = |column: usize| columns[column].path().string();
        let label =
            LABELS.iter().find_map(|name| (0..columns.len()).find(|&column| path(column) == *name));
        let names = label.and_then(|label| {
            let texts = about.key_value_metadata()?;
            let text = texts.iter().find(|text| text.key == "huggingface")?.value.as_ref()?;
            let features: Value = serde_json::from_str(text).ok()?;
            let names = features["info"]["features"][path(label)]["names"].as_array()?;
            Some(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
        });
        let names: Option<Vec<String>> = names;
        for group in 0..reader.num_row_groups() {
            let about = reader.metadata().row_group(group);
            let rows = about.num_rows().max(0) as u64;
            let bytes = about.column(column).uncompressed_size().max(1) as u64;
            // No set has images of less than a byte, and what follows takes memory for each.
            if rows > size {
                let found =
                    format!("row group {group} claims {rows} rows in a file of {size} bytes");
                return Err(ParquetError::General(found));
            }
            hash.update(rows.to_le_bytes());
            hash.update(bytes.to_le_bytes());
            let rows = rows as usize;
            let labels = match label {
                Some(label) => labels(&reader, group, label, rows, names.as_deref())?,
                None => Labels::new(),
            };
            let labels = labels.into_iter().map(|name| {
                let next = places.len() as u32;
                let name = name?;
                Some(*places.entry(name).or_insert_with_key(|name| {
                    self.classes.push(name.clone());
                    next
                }))
            });
            self.groups.push(Group {
                file: self.readers.len(),
                group,
                first: self.images,
                rows,
                column,
                block: (BLOCK * rows as u64 / bytes).clamp(1, rows.max(1) as u64) as usize,
                labels: labels.collect(),
            });
            self.images += rows;
        }
        self.readers.push(reader);
        Ok(())
    }

    /// The row group of an image, and its row there.
    fn place(&self, index: usize) -> (&Group, usize) {
        let group = self.groups.partition_point(|group| group.first <= index) - 1;
        (&self.groups[group], index - self.groups[group].first)
    }

    /// The block around an image.
    fn block(&self, index: usize) -> Result<Arc<Block>, ParquetError> {
        let (group, row) = self.place(index);
        let row = row - row % group.block;
        let first = group.first + row;
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut cache = lock();
            if let Some(found) = cache.iter().rposition(|(known, _)| *known == first)
                && let Some(entry) = cache.remove(found)
            {
                let block = Arc::clone(&entry.1);
                cache.push_back(entry);
                return Ok(block);
            }
        }
        // Not under the lock, so that threads read several blocks at once.
        let rows = row..(row + group.block).min(group.rows);
        let reader = &self.readers[group.file];
        let images = caught(|| bytes(reader, group.group, group.column, rows))?;
        let mut block = Block { first, bytes: Vec::new(), ends: Vec::new() };
        for image in images {
            // Copied, since each holds on to the whole page that it came in.
            block.bytes.extend_from_slice(image.as_ref().map_or(&[], |image| image.data()));
            block.ends.push(block.bytes.len());
        }
        let block = Arc::new(block);
        let mut cache = lock();
        cache.push_back((first, Arc::clone(&block)));
        let mut held: usize = cache.iter().map(|(_, block)| block.bytes.len()).sum();
        while held > CACHED && cache.len() > 1 {
            held -= cache.pop_front().map_or(0, |(_, block)| block.bytes.len());
        }
        Ok(block)
    }
}

/// The column of encoded images: one of the usual names, else the only one that holds bytes that are no text.
fn image_column(columns: &[Arc<ColumnDescriptor>]) -> Result<usize, ParquetError> {
    let fits = |column: &&usize| {
        let column = &columns[**column];
        column.physical_type() == Physical::BYTE_ARRAY
            && column.converted_type() != ConvertedType::UTF8
            && column.max_rep_level() == 0
    };
    let all: Vec<usize> = (0..columns.len()).collect();
    let fitting: Vec<usize> = all.iter().filter(fits).copied().collect();
    let named = IMAGES.iter().find_map(|name| {
        fitting.iter().copied().find(|&column| columns[column].path().string() == *name)
    });
    match (named, fitting.as_slice()) {
        (Some(column), _) | (None, &[column]) => Ok(column),
        _ => {
            let names: Vec<String> = columns.iter().map(|column| column.path().string()).collect();
            let found = format!("of its columns {} none is of images", names.join(", "));
            Err(ParquetError::General(found))
        }
    }
}

/// An error in place of a panic: not all that the reader finds wrong with a damaged file comes back as an error.
fn caught<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    // Unwind safe: what a panic leaves half done is dropped with the error, and locks are not held meanwhile.
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(ParquetError::General("its reader panicked".to_owned())))
}

impl Dataset for Parquet {
    fn len(&self) -> usize {
        self.images
    }

    fn load(&self, index: usize) -> Result<Image, ImageError> {
        let block = self.block(index).map_err(|error| ImageError::Damaged {
            file: self.name(index),
            format: "Parquet",
            source: Box::new(error),
        })?;
        let place = index - block.first;
        let start = place.checked_sub(1).map_or(0, |before| block.ends[before]);
        let bytes = &block.bytes[start..block.ends[place]];
        decode_named(&self.name(index), bytes, &Limits::default())
    }

    fn name(&self, index: usize) -> String {
        let file = self.place(index).0.file;
        let first = self.groups.partition_point(|group| group.file < file);
        format!("{}:row {}", self.files[file].display(), index - self.groups[first].first)
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn class(&self, index: usize) -> Option<String> {
        let (group, row) = self.place(index);
        let class = (*group.labels.get(row)?)?;
        self.classes.get(class as usize).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use ::parquet::file::metadata::KeyValue;
    use ::parquet::file::properties::WriterProperties;
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;
    use vitmae_image::encode_png;

    use super::*;

    /// Noise, which does not get smaller in a PNG.
    fn noise(seed: usize, side: usize) -> Image {
        let random = vitmae_cpu::random::Stream::new(seed as u64, "noise", 0, 0);
        let data = (0..side * side * 3).map(|at| random.bits(at as u64) as u8).collect();
        Image::new(side, side, 3, data).unwrap()
    }

    /// An image and a label, either of which may be absent.
    type Row = (Option<Vec<u8>>, Option<i64>);

    /// A file of row groups.
    fn written(folder: &tempfile::TempDir, image: &str, groups: &[Vec<Row>]) -> PathBuf {
        let path = folder.path().join("set.parquet");
        let schema = format!("message m {{ optional binary {image}; optional int64 label; }}");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let names = r#"{"info": {"features": {"label": {"names": ["cat", "dog"]}}}}"#;
        let names = KeyValue::new("huggingface".to_owned(), names.to_owned());
        let properties = WriterProperties::builder()
            .set_key_value_metadata(Some(vec![names]))
            .set_write_batch_size(1)
            .set_dictionary_enabled(false)
            .set_data_page_size_limit(20_000);
        let file = fs::File::create(&path).unwrap();
        let properties = Arc::new(properties.build());
        let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
        let levels = |there: &dyn Fn(usize) -> bool, count| -> Vec<i16> {
            (0..count).map(|row| i16::from(there(row))).collect()
        };
        for rows in groups {
            let mut group = writer.next_row_group().unwrap();
            let images: Vec<ByteArray> =
                rows.iter().filter_map(|row| row.0.clone().map(ByteArray::from)).collect();
            let there = levels(&|row| rows[row].0.is_some(), rows.len());
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&images, Some(&there), None).unwrap();
            column.close().unwrap();
            let labels: Vec<i64> = rows.iter().filter_map(|row| row.1).collect();
            let there = levels(&|row| rows[row].1.is_some(), rows.len());
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&labels, Some(&there), None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
        path
    }

    #[test]
    fn threads_do_not_disturb_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let images: Vec<Image> = (0..40).map(|seed| noise(seed, 128)).collect();
        let row = |image| (Some(encode_png(image).unwrap()), Some(0));
        let groups: Vec<_> = images.chunks(4).map(|some| some.iter().map(row).collect()).collect();
        let path = written(&folder, "image", &groups);
        for _ in 0..20 {
            let set = Parquet::open(std::slice::from_ref(&path)).unwrap();
            let together = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let (set, images, together) = (&set, &images, &together);
                    scope.spawn(move || {
                        together.wait();
                        for index in (0..40).map(|step| (step * 7 + thread * 10) % 40) {
                            assert!(set.load(index).unwrap() == images[index], "image {index}");
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn blocks_begin_anywhere_in_a_row_group() {
        let folder = tempfile::tempdir().unwrap();
        let images: Vec<Image> = (0..20).map(|seed| noise(seed, 420)).collect();
        let row = |image| (Some(encode_png(image).unwrap()), None);
        let path = written(&folder, "image", &[images.iter().map(row).collect()]);
        let set = Parquet::open(&[path]).unwrap();
        assert!((2..10).contains(&set.groups[0].block), "{}", set.groups[0].block);
        for index in [19, 0, 7, 8, 19, 12, 1] {
            assert!(set.load(index).unwrap() == images[index], "image {index}");
        }
    }

    #[test]
    fn what_is_absent_is_one_bad_image_or_no_class() {
        let folder = tempfile::tempdir().unwrap();
        let png = |seed| Some(encode_png(&noise(seed, 3)).unwrap());
        let rows = [(png(0), Some(1)), (None, Some(0)), (png(2), None), (png(3), Some(-1))];
        // A column of another name is taken if it is the only one of bytes.
        let path = written(&folder, "picture", &[rows.to_vec(), vec![(png(4), Some(7))]]);
        let set = Parquet::open(std::slice::from_ref(&path)).unwrap();
        let good: Vec<usize> = (0..5).filter(|&index| set.load(index).is_ok()).collect();
        assert_eq!(good, [0, 2, 3, 4]);
        assert_eq!(set.load(4).unwrap(), noise(4, 3));
        let classes: Vec<_> = (0..5).map(|index| set.class(index)).collect();
        let expected = [Some("dog"), Some("cat"), None, None, Some("7")];
        assert_eq!(classes, expected.map(|class| class.map(str::to_owned)));
        assert!(set.name(4).ends_with("set.parquet:row 4"));
        let two = "picture; optional binary thumbnail";
        let schema = format!("message m {{ optional binary {two}; }}");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let file = fs::File::create(&path).unwrap();
        SerializedFileWriter::new(file, schema, Arc::default()).unwrap().close().unwrap();
        let error = Parquet::open(&[path]).err().unwrap().to_string();
        assert!(error.contains("of its columns picture, thumbnail none is of images"), "{error}");
    }

    #[test]
    fn no_damage_makes_it_panic() {
        let folder = tempfile::tempdir().unwrap();
        let png = |seed| Some(encode_png(&noise(seed, 3)).unwrap());
        let rows: Vec<_> = (0..3).map(|seed| (png(seed), Some(1))).collect();
        let path = written(&folder, "image", &[rows.clone(), rows]);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= if at % 2 == 0 { 1 } else { 0x80 };
            fs::write(&path, bad).unwrap();
            let Ok(set) = Parquet::open(std::slice::from_ref(&path)) else { continue };
            for index in 0..set.len().min(20) {
                let _ = (set.load(index), set.name(index), set.class(index));
            }
        }
    }
}
