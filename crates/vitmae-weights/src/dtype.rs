//! The element types a safetensors file may hold.

use std::fmt;

/// An element type of the safetensors format; the order is the one in which writers lay tensors
/// out, last first.
///
/// Source: `Dtype` of safetensors 0.8.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(non_camel_case_types, missing_docs)]
pub enum Dtype {
    Bool,
    F4,
    F6_E2M3,
    F6_E3M2,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
}

/// Every type with its name in the file and its size in bits.
const TABLE: [(Dtype, &str, u64); 22] = [
    (Dtype::Bool, "BOOL", 8),
    (Dtype::F4, "F4", 4),
    (Dtype::F6_E2M3, "F6_E2M3", 6),
    (Dtype::F6_E3M2, "F6_E3M2", 6),
    (Dtype::U8, "U8", 8),
    (Dtype::I8, "I8", 8),
    (Dtype::F8_E5M2, "F8_E5M2", 8),
    (Dtype::F8_E4M3, "F8_E4M3", 8),
    (Dtype::F8_E8M0, "F8_E8M0", 8),
    (Dtype::F8_E4M3FNUZ, "F8_E4M3FNUZ", 8),
    (Dtype::F8_E5M2FNUZ, "F8_E5M2FNUZ", 8),
    (Dtype::I16, "I16", 16),
    (Dtype::U16, "U16", 16),
    (Dtype::F16, "F16", 16),
    (Dtype::BF16, "BF16", 16),
    (Dtype::I32, "I32", 32),
    (Dtype::U32, "U32", 32),
    (Dtype::F32, "F32", 32),
    (Dtype::C64, "C64", 64),
    (Dtype::F64, "F64", 64),
    (Dtype::I64, "I64", 64),
    (Dtype::U64, "U64", 64),
];

impl Dtype {
    /// The type a file calls `name`, if the format has it.
    pub fn from_name(name: &str) -> Option<Dtype> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The name in the file, such as `F32`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Bits of one element.
    pub fn bits(self) -> u64 {
        self.row().2
    }

    /// Whether this crate converts the type to and from f32.
    pub fn is_read(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
    }

    /// Appends little-endian `bytes` of this type to `values`; nothing where
    /// [`Dtype::is_read`] is false. A remainder shorter than an element is dropped.
    pub(crate) fn append_as_f32(self, bytes: &[u8], values: &mut Vec<f32>) {
        let (pairs, _) = bytes.as_chunks::<2>();
        let (quads, _) = bytes.as_chunks::<4>();
        let (octets, _) = bytes.as_chunks::<8>();
        match self {
            Dtype::F16 => {
                values.extend(pairs.iter().map(|&b| half::f16::from_le_bytes(b).to_f32()))
            }
            Dtype::BF16 => {
                values.extend(pairs.iter().map(|&b| half::bf16::from_le_bytes(b).to_f32()));
            }
            Dtype::F32 => values.extend(quads.iter().map(|&b| f32::from_le_bytes(b))),
            Dtype::F64 => values.extend(octets.iter().map(|&b| f64::from_le_bytes(b) as f32)),
            _ => {}
        }
    }

    /// Appends `values` as little-endian bytes of this type; nothing where [`Dtype::is_read`] is
    /// false.
    pub(crate) fn append_as_bytes(self, values: &[f32], bytes: &mut Vec<u8>) {
        for &value in values {
            match self {
                Dtype::F16 => bytes.extend(half::f16::from_f32(value).to_le_bytes()),
                Dtype::BF16 => bytes.extend(half::bf16::from_f32(value).to_le_bytes()),
                Dtype::F32 => bytes.extend(value.to_le_bytes()),
                Dtype::F64 => bytes.extend(f64::from(value).to_le_bytes()),
                _ => {}
            }
        }
    }

    fn row(self) -> (Dtype, &'static str, u64) {
        TABLE[self as usize]
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_agrees_with_the_safetensors_crate() {
        for (index, (dtype, name, bits)) in TABLE.into_iter().enumerate() {
            assert_eq!(dtype as usize, index);
            assert_eq!(Dtype::from_name(name), Some(dtype));
            let theirs: safetensors::Dtype = serde_json::from_str(&format!("{name:?}")).unwrap();
            assert_eq!(theirs.bitsize() as u64, bits);
            assert_eq!(theirs as usize, index, "writers order tensors by this");
        }
        assert_eq!(Dtype::from_name("F128"), None);
        assert_eq!(Dtype::from_name("f32"), None);
    }

    #[test]
    fn values_pass_through_every_float_type() {
        let values = [0.0f32, -0.0, 1.0, -2.5, 0.15625, f32::INFINITY, f32::NEG_INFINITY];
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64] {
            let (mut bytes, mut back) = (Vec::new(), Vec::new());
            dtype.append_as_bytes(&values, &mut bytes);
            assert_eq!(bytes.len() as u64 * 8, values.len() as u64 * dtype.bits());
            dtype.append_as_f32(&bytes, &mut back);
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&back), bits(&values), "{dtype}");
        }
    }
}
