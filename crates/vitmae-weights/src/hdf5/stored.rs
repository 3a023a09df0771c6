//! Whether a data set's values are in the file: one that is not stored reads as its fill value, of any size it claims.

use hdf5_reader::Dataset;
use hdf5_reader::messages::HdfMessage;
use hdf5_reader::messages::layout::DataLayout;

use super::{Hdf5Fault, refused};
use crate::error::{WeightsError, shown};
use crate::safetensors_header::TensorInfo;

/// Bytes that a data set in chunks may claim in any file: chunks may be compressed, in a real model by little.
pub(super) const SMALL: u64 = 1 << 20;

/// The bytes of a file that tensors have been found in.
pub(super) struct Stored<'a> {
    file: &'a hdf5_reader::Hdf5File,
    ranges: Vec<(u64, u64, String)>,
}

impl<'a> Stored<'a> {
    pub(super) fn new(file: &'a hdf5_reader::Hdf5File) -> Self {
        Self { file, ranges: Vec::new() }
    }

    /// Checks that the file holds what `tensor` needs.
    pub(super) fn check(
        &mut self,
        dataset: &Dataset,
        tensor: &TensorInfo,
    ) -> Result<(), WeightsError> {
        let header = self.file.get_or_parse_header(dataset.address()).map_err(refused)?;
        let layout = header.messages.iter().find_map(|message| match message {
            HdfMessage::DataLayout(message) => Some(&message.layout),
            _ => None,
        });
        let length = self.file.storage().len();
        let fault = |found| {
            let (name, expected) = (shown(&tensor.name), tensor.bytes);
            Err(Hdf5Fault::NotStored { name, found, expected }.into())
        };
        match layout {
            _ if tensor.bytes == 0 => Ok(()),
            Some(DataLayout::Compact { data }) if data.len() as u64 >= tensor.bytes => Ok(()),
            Some(DataLayout::Compact { data }) => fault(data.len() as u64),
            Some(&DataLayout::Contiguous { address, .. }) => {
                let available = length.saturating_sub(address);
                if available < tensor.bytes {
                    return fault(available);
                }
                self.ranges.push((address, address + tensor.bytes, tensor.name.clone()));
                Ok(())
            }
            Some(DataLayout::Chunked { .. }) if tensor.bytes > length.max(SMALL) => fault(length),
            Some(DataLayout::Chunked { .. }) => Ok(()),
            None => fault(0),
        }
    }

    /// Checks that no two tensors lie in the same bytes.
    pub(super) fn check_overlaps(mut self) -> Result<(), WeightsError> {
        self.ranges.sort();
        for pair in self.ranges.windows(2) {
            let ((_, end, first), (start, _, second)) = (&pair[0], &pair[1]);
            if start < end {
                let (first, second) = (shown(first), shown(second));
                return Err(Hdf5Fault::Overlap { first, second, start: *start, end: *end }.into());
            }
        }
        Ok(())
    }
}

/// Checks that every chunk of a data set in chunks is stored; decodes them one by one.
pub(super) fn check_chunks(dataset: &Dataset, name: &str) -> Result<(), WeightsError> {
    let Some(chunk) = dataset.chunks() else { return Ok(()) };
    let sides = dataset.shape().iter().zip(chunk);
    let expected = sides
        .fold(1u64, |n, (&side, chunk)| n.saturating_mul(side.div_ceil(u64::from(chunk.max(1)))));
    let mut found = 0;
    for chunk in dataset.iter_chunks().map_err(refused)? {
        chunk.map_err(refused)?;
        found += 1;
    }
    if found < expected {
        return Err(Hdf5Fault::ChunksMissing { name: shown(name), found, expected }.into());
    }
    Ok(())
}
