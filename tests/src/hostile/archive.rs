//! Archives as `torch.save` makes them, with right checksums around whatever they hold.

/// An archive of stored entries. Its list names the first one `more` times again.
pub fn archive(entries: &[(&str, &[u8])], more: u32) -> Vec<u8> {
    let (mut out, mut list) = (Vec::new(), Vec::new());
    for (number, (name, bytes)) in entries.iter().enumerate() {
        let listed = [
            &b"PK\x01\x02\x14\0"[..],
            &common(name, bytes),
            &[0; 10],
            &(out.len() as u32).to_le_bytes(),
        ]
        .concat();
        out.extend([b"PK\x03\x04", &common(name, bytes)[..], name.as_bytes(), bytes].concat());
        list.extend([&listed[..], name.as_bytes()].concat());
        for copy in 0..if number == 0 { more } else { 0 } {
            // Under a name of the same length, so that the fixed part stays right.
            let other = format!("{copy:0width$}", width = name.len());
            list.extend([&listed[..], &other.as_bytes()[..name.len()]].concat());
        }
    }
    let count = entries.len() as u64 + u64::from(more);
    let numbers = [count, count, list.len() as u64, out.len() as u64];
    let end = (out.len() + list.len()) as u64;
    out.extend(list);
    // The record with wide numbers, its locator, and the old record that points to them.
    out.extend(b"PK\x06\x06");
    out.extend(44u64.to_le_bytes());
    out.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
    out.extend(b"PK\x06\x07\0\0\0\0");
    out.extend(end.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
    out
}

/// What an entry's own header and the list have in common: version, method, date, checksum and lengths.
fn common(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    common.extend(crc32(bytes).to_le_bytes());
    common.extend((bytes.len() as u32).to_le_bytes().repeat(2));
    common.extend((name.len() as u16).to_le_bytes());
    common.extend([0, 0]);
    common
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)));
    }
    !crc
}
