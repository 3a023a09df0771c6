//! The JSON of a header, taken as it stands and judged elsewhere.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::{MAX_RANK, MAX_TENSORS};

/// The header as it stands, duplicates included: a map type would silently keep the last one.
/// What exceeds a cap is counted and dropped, so that a long header costs no more than its bytes.
#[derive(Default)]
pub(super) struct RawHeader {
    pub(super) tensors: Vec<(String, RawTensor)>,
    pub(super) tensor_count: usize,
    pub(super) metadata: RawMetadata,
}

/// The three keys of a tensor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTensor {
    pub(super) dtype: String,
    pub(super) shape: RawShape,
    pub(super) data_offsets: (u64, u64),
}

/// The text pairs of `__metadata__`, duplicates included.
#[derive(Default)]
pub(super) struct RawMetadata {
    pub(super) pairs: Vec<(String, String)>,
    pub(super) count: usize,
}

/// The first [`MAX_RANK`] sides and how many there are.
#[derive(Default)]
pub(super) struct RawShape {
    pub(super) sides: Vec<u64>,
    pub(super) rank: usize,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<RawHeader, M::Error> {
                let mut header = RawHeader::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "__metadata__" {
                        // A second `__metadata__` adds its pairs; equal keys are refused later.
                        let more: RawMetadata = map.next_value()?;
                        header.metadata.pairs.extend(more.pairs);
                        header.metadata.count += more.count;
                        continue;
                    }
                    let tensor = map.next_value()?;
                    header.tensor_count += 1;
                    if header.tensor_count <= MAX_TENSORS {
                        header.tensors.push((key, tensor));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de> Deserialize<'de> for RawMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = RawMetadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<RawMetadata, M::Error> {
                let mut metadata = RawMetadata::default();
                while let Some(pair) = map.next_entry()? {
                    metadata.count += 1;
                    if metadata.count <= MAX_TENSORS {
                        metadata.pairs.push(pair);
                    }
                }
                Ok(metadata)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl<'de> Deserialize<'de> for RawShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sides;
        impl<'de> Visitor<'de> for Sides {
            type Value = RawShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of sides")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<RawShape, S::Error> {
                let mut shape = RawShape::default();
                while let Some(side) = list.next_element()? {
                    shape.rank += 1;
                    if shape.rank <= MAX_RANK {
                        shape.sides.push(side);
                    }
                }
                Ok(shape)
            }
        }
        deserializer.deserialize_seq(Sides)
    }
}
