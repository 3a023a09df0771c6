//! Losses and gradient norms that stand out from those of the updates before.

/// Updates that say what is usual.
const WINDOW: usize = 64;
/// Updates before which nothing is unusual.
const LEAST: usize = 32;
/// Factors of the median above which a value is a spike: a loss moves little from one update to the next, a norm much.
const LIMITS: [f64; 2] = [1.3, 4.0];
const NAMES: [&str; 2] = ["loss", "gradient norm"];

/// A value far above those before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spike {
    /// Which value: `loss` or `gradient norm`.
    pub what: &'static str,
    /// The value.
    pub value: f64,
    /// The median of up to 64 updates before it.
    pub usual: f64,
}

/// The last losses and norms. They are not saved: a resumed run looks at 32 updates before it warns.
#[derive(Debug, Default)]
pub(crate) struct Spikes {
    windows: [Vec<f64>; 2],
    /// Whether the value before was a spike: a plateau is told once.
    high: [bool; 2],
}

impl Spikes {
    /// What stands out in an update; remembers it.
    pub(crate) fn look(&mut self, loss: f64, gradient_norm: f64) -> Vec<Spike> {
        let mut spikes = Vec::new();
        for (index, value) in [loss, gradient_norm].into_iter().enumerate() {
            let window = &mut self.windows[index];
            let usual = median(window);
            let is_high = window.len() >= LEAST && value > LIMITS[index] * usual;
            if is_high && !self.high[index] {
                spikes.push(Spike { what: NAMES[index], value, usual });
            }
            self.high[index] = is_high;
            if window.len() == WINDOW {
                window.remove(0);
            }
            window.push(value);
        }
        spikes
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_told_once_and_a_new_level_becomes_usual() {
        let mut spikes = Spikes::default();
        for update in 0..100 {
            let wobble = 1.0 + 0.1 * f64::from(update % 3);
            assert_eq!(spikes.look(0.5 * wobble, 2.0 * wobble), []);
        }
        let jump = Spike { what: "loss", value: 1.0, usual: 0.55 };
        assert_eq!(spikes.look(1.0, 2.0), [jump]);
        assert_eq!(spikes.look(1.0, 2.0), []);
        let norm = Spike { what: "gradient norm", value: 9.0, usual: 2.2 };
        assert_eq!(spikes.look(0.5, 9.0), [norm]);
        for _ in 0..WINDOW {
            spikes.look(1.0, 9.0);
        }
        assert_eq!(spikes.look(0.5, 2.0), []);
        assert_eq!(spikes.look(1.1, 11.0), []);
    }

    #[test]
    fn the_first_updates_are_never_spikes() {
        let mut spikes = Spikes::default();
        for update in 0..LEAST as u32 {
            assert_eq!(spikes.look(f64::from(2u32.pow(update.min(20))), 1.0), []);
        }
    }
}
