//! The header of a safetensors file, checked in full before anything is allocated for its tensors.
//!
//!   file   = length (u64, little-endian) · header (JSON) · data
//!   header = { "__metadata__": {key: text…}, name: {"dtype", "shape", "data_offsets": [begin, end]}… }
//!
//! Stricter than the format where that costs no real file: the header is at most 16 MiB with
//! 65,536 tensors of 8 axes, a name or metadata key occurs once, and no other key is allowed
//! beside the three of a tensor.
//!
//! Source: the format's description in the README of safetensors 0.8.0.

mod json;

use std::collections::{BTreeMap, HashSet};

use self::json::{RawHeader, RawTensor};
use crate::dtype::Dtype;
use crate::error::{WeightsError, shown};

/// Bytes of the longest header accepted.
pub const MAX_HEADER_BYTES: u64 = 16 << 20;
/// The largest number of tensors accepted, and of metadata keys.
pub const MAX_TENSORS: usize = 65_536;
/// The largest number of axes accepted.
pub const MAX_RANK: usize = 8;

const CONVERT: &str = "convert it to safetensors";

/// First bytes of the other files weights are kept in.
const OTHER_FORMATS: [(&[u8], &str, &str); 4] = [
    (b"PK\x03\x04", "a PyTorch archive (`.pth`, `.pt`, `.bin`)", CONVERT),
    (b"\x80\x02\x8a\x0a", "a PyTorch pickle of before version 1.6", CONVERT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (`.h5`)", CONVERT),
    (
        b"version ",
        "a pointer of Git LFS to a file that was not fetched",
        "fetch the file itself with `git lfs pull`",
    ),
];

/// One tensor of a file: what it is called and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its sides; none for a single number.
    pub shape: Vec<usize>,
    /// Its first byte, counted from the end of the header.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// Elements in the tensor. The header's checks have shown that the product fits.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether a side is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A header that passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The tensors in the order of their bytes.
    pub tensors: Vec<TensorInfo>,
    /// The text pairs of `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

impl Header {
    /// Reads the length that starts a file of `file_bytes`: how many bytes the header has.
    ///
    /// # Errors
    /// [`WeightsError::HeaderTooLarge`], [`WeightsError::HeaderBeyondFile`], and
    /// [`WeightsError::OtherFormat`] for the first bytes of other weight files.
    pub fn length(first: [u8; 8], file_bytes: u64) -> Result<u64, WeightsError> {
        // As a length each of these exceeds the cap, so no valid file is misjudged.
        let other = OTHER_FORMATS.iter().find(|(magic, _, _)| first.starts_with(magic));
        if let Some((_, format, help)) = other {
            return Err(WeightsError::OtherFormat { format, help });
        }
        let found = u64::from_le_bytes(first);
        let available = file_bytes.saturating_sub(8);
        if found > available {
            return Err(WeightsError::HeaderBeyondFile { found, available });
        }
        if found > MAX_HEADER_BYTES {
            return Err(WeightsError::HeaderTooLarge { found, limit: MAX_HEADER_BYTES });
        }
        Ok(found)
    }

    /// Parses and checks the header's `text`, after which `data_bytes` bytes follow in the file.
    ///
    /// # Errors
    /// The safetensors variants of [`WeightsError`]; every byte of the data must belong to exactly
    /// one tensor, and every tensor must be as long as its type and shape say.
    pub fn parse(text: &[u8], data_bytes: u64) -> Result<Header, WeightsError> {
        match text.first() {
            Some(b'{') => {}
            Some(&found) => return Err(WeightsError::HeaderStart { found }),
            None => return Err(WeightsError::TooShort { found: 8 }),
        }
        let raw: RawHeader =
            serde_json::from_slice(text).map_err(|source| WeightsError::HeaderJson { source })?;
        at_most("tensors", raw.tensor_count)?;
        at_most("metadata keys", raw.metadata.count)?;
        let metadata = unique_metadata(raw.metadata.pairs)?;
        let mut names = HashSet::with_capacity(raw.tensors.len());
        for (name, _) in &raw.tensors {
            if !names.insert(name.as_str()) {
                return Err(WeightsError::Duplicate { what: "tensor", name: shown(name) });
            }
        }
        let mut tensors =
            raw.tensors.into_iter().map(check_tensor).collect::<Result<Vec<_>, _>>()?;
        tensors.sort_by_key(|tensor| (tensor.offset, tensor.bytes));
        check_coverage(&tensors, data_bytes)?;
        Ok(Header { tensors, metadata })
    }
}

fn at_most(what: &'static str, found: usize) -> Result<(), WeightsError> {
    if found > MAX_TENSORS {
        return Err(WeightsError::TooMany { what, found, limit: MAX_TENSORS });
    }
    Ok(())
}

fn unique_metadata(pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, WeightsError> {
    let mut metadata = BTreeMap::new();
    for (key, text) in pairs {
        if metadata.contains_key(&key) {
            return Err(WeightsError::Duplicate { what: "metadata key", name: shown(&key) });
        }
        metadata.insert(key, text);
    }
    Ok(metadata)
}

/// Type known, rank below the cap, and shape · type = byte range, all in checked arithmetic.
fn check_tensor((name, raw): (String, RawTensor)) -> Result<TensorInfo, WeightsError> {
    let Some(dtype) = Dtype::from_name(&raw.dtype) else {
        let found = shown(&raw.dtype);
        return Err(WeightsError::UnknownDtype { name: shown(&name), found });
    };
    if raw.shape.rank > MAX_RANK {
        let (found, limit) = (raw.shape.rank, MAX_RANK);
        return Err(WeightsError::Rank { name: shown(&name), found, limit });
    }
    let (begin, end) = raw.data_offsets;
    let Some(found) = end.checked_sub(begin) else {
        return Err(WeightsError::Backwards { name: shown(&name), begin, end });
    };
    let too_large =
        || WeightsError::Overflow { name: shown(&name), shape: raw.shape.sides.clone() };
    let shape =
        raw.shape.sides.iter().map(|&side| usize::try_from(side).ok()).collect::<Option<_>>();
    let shape: Vec<usize> = shape.ok_or_else(too_large)?;
    let elements = shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side));
    let bits = elements.and_then(|n| (n as u64).checked_mul(dtype.bits())).ok_or_else(too_large)?;
    if !bits.is_multiple_of(8) {
        return Err(WeightsError::PartialByte { name: shown(&name), dtype, shape });
    }
    let expected = bits / 8;
    if found != expected {
        let name = shown(&name);
        return Err(WeightsError::ByteRange { name, dtype, shape, found, expected });
    }
    Ok(TensorInfo { name, dtype, shape, offset: begin, bytes: found })
}

/// The sorted tensors follow each other without overlap or gap, to the end of the data.
fn check_coverage(tensors: &[TensorInfo], data_bytes: u64) -> Result<(), WeightsError> {
    let mut covered = 0;
    for tensor in tensors {
        let (found, expected) = (tensor.offset, covered);
        if found != expected {
            let help = if found < expected {
                "it overlaps the tensor before it"
            } else {
                "the bytes before it belong to no tensor"
            };
            return Err(WeightsError::Offset { name: shown(&tensor.name), found, expected, help });
        }
        // Cannot overflow: `offset + bytes` is the end the header gave as a u64.
        covered += tensor.bytes;
    }
    if covered != data_bytes {
        let help = if covered > data_bytes {
            "the file is truncated; fetch or copy it again"
        } else {
            "bytes at the end belong to no tensor; the file is damaged or hides something"
        };
        return Err(WeightsError::Coverage { covered, found: data_bytes, help });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, data_bytes: u64) -> Result<Header, String> {
        Header::parse(text.as_bytes(), data_bytes).map_err(|error| error.to_string())
    }

    /// `{"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}`
    fn one(dtype: &str, shape: &str, offsets: &str) -> String {
        format!(r#"{{"x":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    }

    #[test]
    fn a_good_header_is_read_in_the_order_of_its_bytes() {
        let text = r#"{"__metadata__":{"format":"pt"},
            "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},
            "a":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]},
            "empty":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]},
            "one":{"dtype":"F64","shape":[],"data_offsets":[12,20]}}   "#;
        let header = parse(text, 20).unwrap();
        let names: Vec<_> = header.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "empty", "b", "one"]);
        assert_eq!(header.metadata["format"], "pt");
        assert_eq!(header.tensors[3].len(), 1);
        assert!(header.tensors[1].is_empty());
    }

    #[test]
    fn the_length_is_checked_before_the_header_is_read() {
        let length =
            |n: u64, file| Header::length(n.to_le_bytes(), file).map_err(|e| e.to_string());
        assert_eq!(length(10, 18), Ok(10));
        assert_eq!(
            length(11, 18).unwrap_err(),
            "safetensors: the header claims 11 bytes, but 10 follow\nhelp: the file is truncated \
             or is not a safetensors file"
        );
        assert_eq!(
            length(MAX_HEADER_BYTES + 1, u64::MAX).unwrap_err(),
            "safetensors: the header claims 16777217 bytes, expected at most 16777216"
        );
    }

    #[test]
    fn other_formats_are_named() {
        for (magic, format, help) in OTHER_FORMATS {
            let mut first = [0; 8];
            first[..magic.len()].copy_from_slice(magic);
            assert!(u64::from_le_bytes(first) > MAX_HEADER_BYTES);
            assert_eq!(
                Header::length(first, 1 << 40).unwrap_err().to_string(),
                format!("the file is {format}, not safetensors\nhelp: {help}")
            );
        }
    }

    #[test]
    fn each_fault_has_its_message() {
        let cases = [
            (one("F32", "[2]", "[0,8]"), 8, None),
            (
                " {}".to_string(),
                0,
                Some("safetensors: the header starts with byte 0x20, expected `{`"),
            ),
            ("{".to_string(), 0, Some("safetensors: the header is not a table of tensors")),
            (
                one("F33", "[2]", "[0,8]"),
                8,
                Some("safetensors: tensor `x` has the unknown dtype `F33`"),
            ),
            (
                one("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"),
                4,
                Some("safetensors: tensor `x` has 9 axes, expected at most 8"),
            ),
            (
                one("F32", "[4294967296,4294967296]", "[0,4]"),
                4,
                Some(
                    "safetensors: tensor `x` has a shape [4294967296, 4294967296] too large to \
                     count",
                ),
            ),
            (
                one("F64", "[4611686018427387904]", "[0,0]"),
                0,
                Some(
                    "safetensors: tensor `x` has a shape [4611686018427387904] too large to count",
                ),
            ),
            (
                one("F32", "[3]", "[0,8]"),
                8,
                Some("safetensors: tensor `x` occupies 8 bytes, but F32 [3] needs 12"),
            ),
            (
                one("F4", "[3]", "[0,2]"),
                2,
                Some("safetensors: tensor `x` of F4 [3] does not end at a whole byte"),
            ),
            (
                one("F32", "[1]", "[8,4]"),
                8,
                Some("safetensors: tensor `x` ends at byte 4, before its start at 8"),
            ),
            (
                one("F32", "[1]", "[4,8]"),
                8,
                Some(
                    "safetensors: tensor `x` starts at byte 4, expected 0\nhelp: the bytes before \
                     it belong to no tensor",
                ),
            ),
            (
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
                    "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#
                    .to_string(),
                12,
                Some(
                    "safetensors: tensor `b` starts at byte 4, expected 8\nhelp: it overlaps the \
                     tensor before it",
                ),
            ),
            (
                one("F32", "[2]", "[0,8]"),
                7,
                Some(
                    "safetensors: the tensors cover 8 bytes, but 7 bytes follow the header\nhelp: \
                     the file is truncated; fetch or copy it again",
                ),
            ),
            (
                one("F32", "[2]", "[0,8]"),
                9,
                Some(
                    "safetensors: the tensors cover 8 bytes, but 9 bytes follow the header\nhelp: \
                     bytes at the end belong to no tensor; the file is damaged or hides something",
                ),
            ),
            (
                r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                    "x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#
                    .to_string(),
                8,
                Some("tensor `x` occurs more than once"),
            ),
            (
                r#"{"__metadata__":{"a":"1","a":"2"}}"#.to_string(),
                0,
                Some("metadata key `a` occurs more than once"),
            ),
            (
                r#"{"__metadata__":{"a":"1"},"__metadata__":{"a":"2"}}"#.to_string(),
                0,
                Some("metadata key `a` occurs more than once"),
            ),
        ];
        for (text, data_bytes, expected) in cases {
            assert_eq!(parse(&text, data_bytes).err().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn other_json_is_refused_with_the_parsers_message_as_cause() {
        let cases = [
            ("{} x", "trailing characters"),
            (r#"{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, "invalid value"),
            (r#"{"x":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}"#, "invalid type"),
            (r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}"#, "trailing characters"),
            (r#"{"x":{"dtype":"F32","shape":[1]}}"#, "missing field `data_offsets`"),
            (
                r#"{"x":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
                "duplicate field `dtype`",
            ),
            (
                r#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"code":1}}"#,
                "unknown field `code`",
            ),
            (r#"{"__metadata__":{"a":1}}"#, "invalid type: integer `1`, expected a string"),
            (r#"{"x":[1]}"#, "invalid"),
        ];
        for (text, cause) in cases {
            let error = Header::parse(text.as_bytes(), 4).unwrap_err();
            let WeightsError::HeaderJson { source } = error else { panic!("{text}: {error}") };
            assert!(source.to_string().contains(cause), "{text}: {source}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_without_a_crash() {
        let text = format!("{{\"x\":{}", "[".repeat(1_000_000));
        assert!(Header::parse(text.as_bytes(), 0).is_err());
        let text = format!("{{\"x\":{}", "{\"x\":".repeat(1_000_000));
        assert!(Header::parse(text.as_bytes(), 0).is_err());
    }

    #[test]
    fn one_tensor_too_many_is_refused() {
        let table = |n: usize| {
            let rows: Vec<_> = (0..n)
                .map(|i| format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#))
                .collect();
            format!("{{{}}}", rows.join(","))
        };
        assert_eq!(parse(&table(MAX_TENSORS), 0).unwrap().tensors.len(), MAX_TENSORS);
        assert_eq!(
            parse(&table(MAX_TENSORS + 1), 0).unwrap_err(),
            "safetensors: the header lists 65537 tensors, expected at most 65536"
        );
        let pairs: Vec<_> = (0..=MAX_TENSORS).map(|i| format!("\"{i}\":\"\"")).collect();
        assert_eq!(
            parse(&format!("{{\"__metadata__\":{{{}}}}}", pairs.join(",")), 0).unwrap_err(),
            "safetensors: the header lists 65537 metadata keys, expected at most 65536"
        );
    }
}
