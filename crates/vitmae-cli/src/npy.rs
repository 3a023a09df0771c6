//! NumPy's `.npy` files: f32 in C order are written in format 1.0, flags and numbers are read in any version.
//!
//! Source: the format's description in `numpy.lib.format`.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use crate::exit::BadInput;

/// More than any mask needs, and far from what would fill the memory.
const MAX_BYTES: u64 = 1 << 30;

/// An array that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its sides.
    pub shape: Vec<usize>,
    /// Its values, the last side fastest.
    pub values: Values,
}

/// Values by what they can mean.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Of `bool` or `uint8`, which is 0 or 1.
    Flags(Vec<bool>),
    /// Of `float32` or `float64`.
    Numbers(Vec<f64>),
}

/// Reads a file; an error says what is wrong with it.
pub fn read(path: &Path) -> Result<Array> {
    let what = || format!("`{}` cannot be used", path.display());
    let size = std::fs::metadata(path).with_context(what)?.len();
    if size > MAX_BYTES {
        let message = format!("it has {size} bytes, expected at most {MAX_BYTES}");
        return Err(BadInput(message)).with_context(what);
    }
    let bytes = std::fs::read(path).with_context(what)?;
    parse(&bytes).map_err(|error| BadInput(error.to_string())).with_context(what)
}

fn parse(bytes: &[u8]) -> Result<Array> {
    let short = || anyhow!("it ends inside its header");
    let Some(rest) = bytes.strip_prefix(b"\x93NUMPY") else {
        bail!("it is no `.npy` file\nhelp: `numpy.save` writes one")
    };
    // Two bytes of version; the length of the header has two bytes in version 1, else four.
    let version = *rest.first().ok_or_else(short)?;
    let width = if version == 1 { 2 } else { 4 };
    let length = rest.get(2..2 + width).ok_or_else(short)?;
    let length = length.iter().rev().fold(0usize, |sum, &byte| sum << 8 | usize::from(byte));
    let end = length.checked_add(2 + width).ok_or_else(short)?;
    let header = rest.get(2 + width..end).ok_or_else(short)?;
    let (header, data) = (str::from_utf8(header).context("its header is no text")?, &rest[end..]);
    let dtype = field(header, "descr")?.trim_matches(['\'', '"']);
    if field(header, "fortran_order")? != "False" {
        bail!("its values are in Fortran order\nhelp: save `numpy.ascontiguousarray` of them");
    }
    let sides = field(header, "shape")?.trim_matches(['(', ')']).split(',').map(str::trim);
    let sides = sides.filter(|side| !side.is_empty()).map(str::parse::<usize>);
    let shape = sides.collect::<Result<Vec<_>, _>>().context("its shape cannot be read")?;
    let count = shape.iter().try_fold(1usize, |all, &side| all.checked_mul(side));
    let size = match dtype {
        "|b1" | "|u1" => 1,
        "<f4" => 4,
        "<f8" => 8,
        _ => bail!("its type is `{dtype}`, expected bool, uint8, float32 or float64"),
    };
    if count.and_then(|count| count.checked_mul(size)) != Some(data.len()) {
        bail!(
            "it holds {} bytes of values, its shape {shape:?} of `{dtype}` has others",
            data.len()
        );
    }
    let values = match dtype {
        "<f4" => Values::Numbers(numbers(data, |bytes| f64::from(f32::from_le_bytes(bytes)))),
        "<f8" => Values::Numbers(numbers(data, f64::from_le_bytes)),
        _ => {
            if let Some(other) = data.iter().find(|&&byte| byte > 1) {
                bail!("it holds {other}, expected only 0 and 1 in an array of bytes");
            }
            Values::Flags(data.iter().map(|&byte| byte == 1).collect())
        }
    };
    Ok(Array { shape, values })
}

fn numbers<const N: usize>(data: &[u8], of: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    data.as_chunks().0.iter().map(|&bytes| of(bytes)).collect()
}

/// The text of a key's value in the header, which is a Python dictionary of three keys on one line.
fn field<'a>(header: &'a str, key: &str) -> Result<&'a str> {
    let missing = || anyhow!("its header has no `{key}`");
    let (_, rest) = header.split_once(&format!("'{key}':")).ok_or_else(missing)?;
    let rest = rest.trim_start();
    let end = match rest.starts_with('(') {
        true => rest.find(')').map(|end| end + 1),
        false => rest.find([',', '}']),
    };
    Ok(rest[..end.ok_or_else(missing)?].trim())
}

/// The bytes of an array; `values` fill `shape`.
pub fn bytes(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let shape = format!("({}{comma})", sides.join(", "));
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version and length take 10 bytes; the data begin at a multiple of 64.
    let padding = 64 - (10 + header.len() + 1) % 64;
    header.push_str(&" ".repeat(padding % 64));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_numpys_and_the_data_are_aligned() {
        for shape in [vec![3], vec![1, 3], vec![1, 1, 3]] {
            let bytes = bytes(&shape, &[1.0, -2.5, 3.0]);
            assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
            let length = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
            assert_eq!((10 + length) % 64, 0);
            assert_eq!(bytes.len(), 10 + length + 12);
            assert_eq!(bytes[10 + length - 1], b'\n');
            assert_eq!(&bytes[10 + length + 4..][..4], (-2.5f32).to_le_bytes());
        }
        let header = String::from_utf8(bytes(&[3], &[0.0; 3])[10..70].to_vec()).unwrap();
        assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }"));
    }

    /// A file of version 1 as NumPy writes it.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let length = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00".as_slice(), &length, header.as_bytes(), data].concat()
    }

    fn header(descr: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")
    }

    #[test]
    fn what_was_written_is_read() {
        let values = [1.0, -2.5, 3.0, 0.0, 7.0, 9.0];
        let read = parse(&bytes(&[2, 3], &values)).unwrap();
        let values = Values::Numbers(values.map(f64::from).to_vec());
        assert_eq!(read, Array { shape: vec![2, 3], values });
        let flags = parse(&file(&header("|b1", "(2,)"), &[1, 0])).unwrap();
        assert_eq!(flags, Array { shape: vec![2], values: Values::Flags(vec![true, false]) });
        assert_eq!(parse(&file(&header("|u1", "(2,)"), &[1, 0])).unwrap(), flags);
        let doubles = parse(&file(&header("<f8", "()"), &0.5f64.to_le_bytes())).unwrap();
        assert_eq!(doubles, Array { shape: vec![], values: Values::Numbers(vec![0.5]) });
        let mut second = file(&header("|u1", "(1,)"), &[1]);
        second[6] = 2;
        second.splice(10..10, [0, 0]);
        assert_eq!(parse(&second).unwrap().shape, [1]);
    }

    #[test]
    fn what_is_no_array_of_ours_is_an_error() {
        let message = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
        assert!(message(b"PK").starts_with("it is no `.npy` file"));
        assert!(message(&file(&header("<i8", "(1,)"), &[0; 8])).starts_with("its type is `<i8`"));
        assert!(message(&file(&header("|u1", "(1,)"), &[7])).starts_with("it holds 7, expected"));
        for (shape, data) in [("(3,)", 2), ("(1,)", 2), ("(9999999999, 9999999999)", 2)] {
            let message = message(&file(&header("|u1", shape), &vec![0; data]));
            assert!(message.starts_with("it holds 2 bytes of values"), "{message}");
        }
        let fortran = header("|u1", "(1,)").replace("False", "True");
        assert!(message(&file(&fortran, &[0])).starts_with("its values are in Fortran order"));
        assert_eq!(message(&file("{}", &[])), "its header has no `descr`");
        // Cut anywhere, it is an error and no panic.
        let whole = bytes(&[2], &[1.0, 2.0]);
        (0..whole.len()).for_each(|end| assert!(parse(&whole[..end]).is_err(), "{end}"));
    }
}
