//! NumPy's `.npy` files, format 1.0, little-endian f32 in C order.
//!
//! Source: the format's description in `numpy.lib.format`.

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
}
