//! AdamW with decoupled weight decay and bias correction.
//!
//!   p ← p·(1 − lr·wd)
//!   m ← β₁·m + (1 − β₁)·g          v ← β₂·v + (1 − β₂)·g²
//!   p ← p − lr · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + eps)
//!
//! Source: `torch.optim.AdamW`; arXiv:1711.05101.

/// The constants of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added outside the root.
    pub eps: f64,
    /// Decay of the parameter, times `lr`.
    pub weight_decay: f64,
    /// t, 1 for the first update.
    pub step: u32,
}

/// A parameter with its moments, all of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The parameter.
    pub value: Vec<f64>,
    /// First moment m.
    pub m: Vec<f64>,
    /// Second moment v.
    pub v: Vec<f64>,
}

/// The state after one update with `grad`.
pub fn step(state: &State, grad: &[f64], settings: Settings) -> State {
    let Settings { lr, beta1, beta2, eps, weight_decay, step } = settings;
    assert_eq!(grad.len(), state.value.len(), "grad");
    let correction1 = 1.0 - beta1.powi(step as i32);
    let correction2 = 1.0 - beta2.powi(step as i32);
    let mut next = state.clone();
    for (i, g) in grad.iter().enumerate() {
        next.m[i] = beta1 * state.m[i] + (1.0 - beta1) * g;
        next.v[i] = beta2 * state.v[i] + (1.0 - beta2) * g * g;
        let update = (next.m[i] / correction1) / ((next.v[i] / correction2).sqrt() + eps);
        next.value[i] = state.value[i] * (1.0 - lr * weight_decay) - lr * update;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::{Tolerance, assert_close};

    const SETTINGS: Settings =
        Settings { lr: 0.1, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0, step: 1 };

    fn start(value: f64) -> State {
        State { value: vec![value], m: vec![0.0], v: vec![0.0] }
    }

    #[test]
    fn the_first_step_moves_by_the_learning_rate_against_the_sign() {
        // With bias correction m/(1−β₁) = g and v/(1−β₂) = g², so the update is sign(g).
        for grad in [3.0, -0.02] {
            let next = step(&start(1.0), &[grad], SETTINGS);
            let expected = 1.0 - 0.1 * f64::signum(grad);
            assert_close("value", &next.value, &[expected], Tolerance::new(1e-6, 0.0));
        }
    }

    #[test]
    fn decay_is_decoupled_from_the_moments() {
        let settings = Settings { weight_decay: 0.5, ..SETTINGS };
        let next = step(&start(2.0), &[0.0], settings);
        assert_close("value", &next.value, &[2.0 * 0.95], Tolerance::new(1e-15, 0.0));
        assert_eq!((next.m[0], next.v[0]), (0.0, 0.0));
    }

    #[test]
    fn two_steps_by_hand() {
        let first = step(&start(1.0), &[0.5], SETTINGS);
        let second = step(&first, &[-1.0], Settings { step: 2, ..SETTINGS });
        let m = 0.9 * 0.05 - 0.1;
        let v = 0.95 * 0.0125 + 0.05;
        let update = (m / (1.0 - 0.81)) / ((v / (1.0 - 0.9025f64)).sqrt() + 1e-8);
        assert_close("m", &second.m, &[m], Tolerance::new(1e-15, 0.0));
        assert_close("v", &second.v, &[v], Tolerance::new(1e-15, 0.0));
        let expected = first.value[0] - 0.1 * update;
        assert_close("value", &second.value, &[expected], Tolerance::new(1e-14, 0.0));
    }
}
