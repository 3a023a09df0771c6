//! Output buffers that notice what a kernel must not do: write outside, or leave a value unwritten.
//!
//! Around the output lie canaries, inside lies poison. Both are NaNs with their own bit patterns, so an
//! unwritten value is told from a computed NaN, and either fails the comparison anyway.

/// Values before and after the output.
const MARGIN: usize = 64;
const CANARY: u32 = 0x7fc0_ca11;
const POISON: u32 = 0x7fc0_dead;

/// An output between canaries.
#[derive(Debug, Clone)]
pub struct Guarded {
    buffer: Vec<f32>,
    poisoned: bool,
}

impl Guarded {
    /// An output of `len` values that the kernel must write in full.
    pub fn poisoned(len: usize) -> Self {
        let mut guarded = Self::filled(&vec![0.0; len]);
        guarded.poisoned = true;
        guarded.slice().fill(f32::from_bits(POISON));
        guarded
    }

    /// An output that the kernel adds to, or reads and writes.
    pub fn filled(values: &[f32]) -> Self {
        let margin = [f32::from_bits(CANARY); MARGIN];
        Self { buffer: [&margin[..], values, &margin[..]].concat(), poisoned: false }
    }

    /// The output, to hand to the kernel.
    pub fn slice(&mut self) -> &mut [f32] {
        let end = self.buffer.len() - MARGIN;
        &mut self.buffer[MARGIN..end]
    }

    /// The output after the kernel has run.
    ///
    /// # Panics
    /// If a canary changed, or if poison is left.
    #[track_caller]
    pub fn finish(mut self, name: &str) -> Vec<f32> {
        let end = self.buffer.len() - MARGIN;
        let (before, after) = (&self.buffer[..MARGIN], &self.buffer[end..]);
        let changed = |side: &[f32]| side.iter().filter(|v| v.to_bits() != CANARY).count();
        let (before, after) = (changed(before), changed(after));
        assert!(
            before + after == 0,
            "`{name}`: {before} values written before it, {after} behind it"
        );
        let poisoned = self.poisoned;
        let values = self.slice();
        let unwritten = |v: &&f32| v.to_bits() == POISON;
        if poisoned && let Some(index) = values.iter().position(|v| unwritten(&v)) {
            let count = values.iter().filter(unwritten).count();
            panic!("`{name}`: {count} of {} values not written, first at [{index}]", values.len());
        }
        values.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_write_comes_back() {
        let mut out = Guarded::poisoned(3);
        out.slice().copy_from_slice(&[1.0, 2.0, 3.0]);
        assert_eq!(out.finish("out"), [1.0, 2.0, 3.0]);
        let mut sum = Guarded::filled(&[1.0, 2.0]);
        sum.slice()[1] += 5.0;
        assert_eq!(sum.finish("sum"), [1.0, 7.0]);
        assert!(Guarded::poisoned(0).finish("nothing").is_empty());
    }

    #[test]
    #[should_panic(expected = "`out`: 1 of 3 values not written, first at [1]")]
    fn an_unwritten_value_fails() {
        let mut out = Guarded::poisoned(3);
        out.slice()[0] = 0.0;
        out.slice()[2] = f32::NAN; // a computed NaN is the comparator's business
        out.finish("out");
    }

    #[test]
    #[should_panic(expected = "`out`: 0 values written before it, 1 behind it")]
    fn a_write_behind_the_output_fails() {
        let mut out = Guarded::filled(&[1.0]);
        out.buffer[MARGIN + 1] = 0.0;
        out.finish("out");
    }

    #[test]
    #[should_panic(expected = "`out`: 2 values written before it, 0 behind it")]
    fn a_write_before_the_output_fails() {
        let mut out = Guarded::filled(&[1.0]);
        out.buffer[..2].fill(f32::NAN);
        out.finish("out");
    }
}
