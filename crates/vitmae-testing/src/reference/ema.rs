//! The exponential moving average of a parameter.
//!
//!   a ← decay · a + (1 − decay) · w

/// The average after one update towards `value`, of the same length.
pub fn step(average: &[f64], value: &[f64], decay: f64) -> Vec<f64> {
    assert_eq!(average.len(), value.len(), "value");
    average.iter().zip(value).map(|(a, w)| decay * a + (1.0 - decay) * w).collect()
}

#[cfg(test)]
mod tests {
    use super::step;
    use crate::close::{Tolerance, assert_close};

    #[test]
    fn it_closes_the_same_share_of_the_distance_each_time() {
        let mut average = vec![1.0, -2.0];
        for update in 1..=4 {
            average = step(&average, &[3.0, 2.0], 0.75);
            let left = 0.75f64.powi(update);
            let expected = [3.0 - 2.0 * left, 2.0 - 4.0 * left];
            assert_close("average", &average, &expected, Tolerance::new(1e-15, 0.0));
        }
    }

    #[test]
    fn a_decay_of_zero_takes_the_value() {
        assert_eq!(step(&[5.0], &[7.0], 0.0), [7.0]);
    }
}
