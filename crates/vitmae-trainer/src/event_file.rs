//! TensorBoard's event files: records of scalars.
//!
//! A record is a length (8 bytes, little end first), the masked CRC-32C of these 8 bytes, the data, and their masked CRC-32C. The
//! data are the protocol buffer `tensorflow.Event`: wall time 1 (f64), step 2 (varint), either file version 3 (text) or a
//! summary 5 with values 1 of a tag 1 (text) and a number 2 (f32).
//!
//! Sources: `record_writer.cc`, `event.proto` and `summary.proto` of tensorflow. TensorBoard itself reads the files of whole runs in
//! `tests/generate/check_event_files.py`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::TrainerError;

/// An event file that is being written.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new file in `folder`, which is made if needed; TensorBoard joins the files of a folder.
    pub(crate) fn create(folder: &Path) -> Result<Self, TrainerError> {
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        let (seconds, process) = (now(), std::process::id());
        // TensorBoard reads files in the order of their names.
        let path = folder.join(format!("events.out.tfevents.{:010}.{process}", seconds as u64));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(failed("open", &path))?;
        let mut events = Self { path, file };
        events.write(&event(seconds, 0, 3, b"brain.Event:2"))?;
        Ok(events)
    }

    /// Adds a value of each curve at `step`.
    pub(crate) fn scalars(
        &mut self,
        step: i64,
        values: &[(&str, f64)],
    ) -> Result<(), TrainerError> {
        let mut summary = Vec::new();
        for (tag, number) in values {
            let mut value = Vec::new();
            bytes(&mut value, 1, tag.as_bytes());
            value.push(2 << 3 | 5);
            value.extend((*number as f32).to_le_bytes());
            bytes(&mut summary, 1, &value);
        }
        self.write(&event(now(), step, 5, &summary))
    }

    fn write(&mut self, data: &[u8]) -> Result<(), TrainerError> {
        let length = (data.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(data);
        record.extend(masked_crc(data).to_le_bytes());
        // One write a record, so that a killed run cuts at most its last.
        self.file.write_all(&record).map_err(failed("write", &self.path))
    }
}

/// An event with one field beside time and step.
fn event(seconds: f64, step: i64, field: u8, content: &[u8]) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(seconds.to_le_bytes());
    event.push(2 << 3);
    varint(&mut event, step as u64);
    bytes(&mut event, field, content);
    event
}

/// A field of bytes.
fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, content.len() as u64);
    out.extend(content);
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The checksum as records carry it.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64())
}

fn failed(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> TrainerError {
    let path = path.to_path_buf();
    move |source| TrainerError::Io { action, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_bytes_of_tensorflow() {
        // `Event(wall_time=1.5, step=300, summary=…)` of tensorboard 2.19, serialised.
        let mut value = Vec::new();
        bytes(&mut value, 1, b"loss");
        value.push(2 << 3 | 5);
        value.extend(0.25f32.to_le_bytes());
        let mut summary = Vec::new();
        bytes(&mut summary, 1, &value);
        let found = event(1.5, 300, 5, &summary);
        let hex: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "09000000000000f83f10ac022a0d0a0b0a046c6f7373150000803e");
    }

    #[test]
    fn a_file_is_whole_records_with_their_checksums() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(&folder.path().join("logs")).unwrap();
        events.scalars(7, &[("train_loss", 0.5), ("lr", 1e-3)]).unwrap();
        events.scalars(1 << 40, &[("val_loss", f64::NAN)]).unwrap();
        let all = fs::read(&events.path).unwrap();
        let (mut rest, mut records) = (&all[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            assert_eq!(word(8), masked_crc(&rest[..8]));
            assert_eq!(word(12 + length), masked_crc(&rest[12..12 + length]));
            records.push(rest[12..12 + length].to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 3);
        let holds =
            |record: &[u8], text: &str| record.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(holds(&records[0], "brain.Event:2") && holds(&records[1], "train_loss"));
    }
}
