//! Rows of one column, read by position.

use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::sync::Arc;

use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, DataType};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use bytes::Bytes;

use crate::data::positioned::Store;

/// A class for each row, if it has one.
pub(super) type Labels = Vec<Option<String>>;

/// A file that threads read at once. The crate's own reader of a `File` cannot be that: it moves the file's one position.
pub(super) struct Positioned(pub(super) Arc<Store>);

/// A file from a position on.
pub(super) struct Tail {
    store: Arc<Store>,
    offset: u64,
}

impl Read for Tail {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.store.read_some(self.offset, bytes)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl Length for Positioned {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Positioned {
    type T = BufReader<Tail>;

    fn get_read(&self, offset: u64) -> Result<Self::T, ParquetError> {
        Ok(BufReader::new(Tail { store: Arc::clone(&self.0), offset }))
    }

    fn get_bytes(&self, offset: u64, length: usize) -> Result<Bytes, ParquetError> {
        Ok(self.0.read(offset, length)?.into())
    }
}

/// Some rows of a column of bytes; none where there is no value.
pub(super) fn bytes(
    reader: &SerializedFileReader<Positioned>,
    group: usize,
    column: usize,
    rows: Range<usize>,
) -> Result<Vec<Option<ByteArray>>, ParquetError> {
    let full = full(reader, column);
    match reader.get_row_group(group)?.get_column_reader(column)? {
        ColumnReader::ByteArrayColumnReader(reader) => values(reader, full, rows),
        _ => Err(ParquetError::General("the column holds no bytes".to_owned())),
    }
}

/// The classes of a row group, by `names` if there are any. A column of another kind gives none.
pub(super) fn labels(
    reader: &SerializedFileReader<Positioned>,
    group: usize,
    column: usize,
    rows: usize,
    names: Option<&[String]>,
) -> Result<Labels, ParquetError> {
    let full = full(reader, column);
    let name = |label: i64| match (names, usize::try_from(label)) {
        (Some(_), Err(_)) => None,
        (Some(names), Ok(place)) if place < names.len() => Some(names[place].clone()),
        _ => Some(label.to_string()),
    };
    Ok(match reader.get_row_group(group)?.get_column_reader(column)? {
        ColumnReader::Int64ColumnReader(reader) => {
            let labels = values(reader, full, 0..rows)?;
            labels.into_iter().map(|label| name(label?)).collect()
        }
        ColumnReader::Int32ColumnReader(reader) => {
            let labels = values(reader, full, 0..rows)?;
            labels.into_iter().map(|label| name(label?.into())).collect()
        }
        ColumnReader::ByteArrayColumnReader(reader) => {
            let texts = values(reader, full, 0..rows)?;
            let text = |text: ByteArray| String::from_utf8_lossy(text.data()).into_owned();
            texts.into_iter().map(|label| label.map(text)).collect()
        }
        _ => Labels::new(),
    })
}

/// The level at which a value of the column is there.
fn full(reader: &SerializedFileReader<Positioned>, column: usize) -> i16 {
    reader.metadata().file_metadata().schema_descr().column(column).max_def_level()
}

/// Some rows of a column without lists.
fn values<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    full: i16,
    rows: Range<usize>,
) -> Result<Vec<Option<T::T>>, ParquetError> {
    let early = || ParquetError::EOF("the column ends early".to_owned());
    if reader.skip_records(rows.start)? != rows.start {
        return Err(early());
    }
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (read, ..) = reader.read_records(rows.len(), Some(&mut levels), None, &mut values)?;
    if read != rows.len() {
        return Err(early());
    }
    if full == 0 {
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    Ok(levels.iter().map(|&level| if level == full { values.next() } else { None }).collect())
}
