//! Damaged copies of a file, the same ones in every run.

/// Numbers that are no secret and the same each time.
pub struct Random(u64);

impl Random {
    /// A sequence for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `below`, which is not 0.
    pub fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % below
    }
}

/// What numbers in files are replaced with: edges of what fits into their bytes.
const EDGES: [u8; 6] = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
/// What stands in texts.
const LETTERS: &[u8] = b"0123456789,:[]{}\"-e. ntf\\";

/// A copy of `whole`, which is not empty, with one to four changes: bytes replaced, inserted, removed, repeated,
/// or everything from a place on cut off.
pub fn mutated(whole: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..1 + random.below(4) {
        if bytes.is_empty() {
            break;
        }
        let place = random.below(bytes.len());
        match random.below(9) {
            0 => bytes[place] = random.below(256) as u8,
            1 => bytes[place] = bytes[place].wrapping_add(1 + random.below(3) as u8),
            2 => bytes[place] ^= 1 << random.below(8),
            3 => {
                let edge = EDGES[random.below(EDGES.len())];
                let end = (place + 1 + random.below(8)).min(bytes.len());
                bytes[place..end].fill(edge);
            }
            4 => bytes[place] = LETTERS[random.below(LETTERS.len())],
            5 => bytes.insert(place, LETTERS[random.below(LETTERS.len())]),
            6 => {
                let end = (place + 1 + random.below(8)).min(bytes.len());
                drop(bytes.drain(place..end));
            }
            7 => {
                let from = random.below(bytes.len());
                let piece: Vec<u8> =
                    bytes[from..].iter().copied().take(1 + random.below(40)).collect();
                bytes.splice(place..place, piece);
            }
            _ if random.below(4) == 0 => bytes.truncate(place),
            _ => {}
        }
    }
    bytes
}
