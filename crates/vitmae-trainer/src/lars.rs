//! LARS: momentum whose steps follow the size of each weight.
//!
//!   g ← g + decay · w,    g ← trust · ‖w‖ / ‖g‖ · g        for matrices, where neither norm is 0
//!   μ ← momentum · μ + g          w ← w − lr · μ
//!
//! Vectors, such as biases, take the second line alone. Norms are summed in f64.
//!
//! Source: arXiv:1708.03888, as the linear probe of arXiv:2111.06377 uses it.

/// Settings of the optimizer; the learning rate comes with each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lars {
    /// Share of the last step that is kept.
    pub momentum: f64,
    /// Length of a step of learning rate 1 and no momentum, in lengths of the weight.
    pub trust: f64,
    /// Weight decay of matrices.
    pub weight_decay: f64,
}

impl Default for Lars {
    /// Momentum 0.9, trust 0.001, no decay: the recipe of the linear probe.
    fn default() -> Self {
        Self { momentum: 0.9, trust: 0.001, weight_decay: 0.0 }
    }
}

impl Lars {
    /// Updates a matrix and its velocity; all three of one length.
    pub fn step_matrix(&self, w: &mut [f32], gradient: &[f32], velocity: &mut [f32], lr: f64) {
        let decayed = |w: &f32, g: &f32| f64::from(*g) + self.weight_decay * f64::from(*w);
        let length = |squares: f64| squares.sqrt();
        let weight = length(w.iter().map(|&w| f64::from(w).powi(2)).sum());
        let slope = length(w.iter().zip(gradient).map(|(w, g)| decayed(w, g).powi(2)).sum());
        let ratio = if weight > 0.0 && slope > 0.0 { self.trust * weight / slope } else { 1.0 };
        for ((w, g), velocity) in w.iter_mut().zip(gradient).zip(velocity) {
            *velocity = (self.momentum * f64::from(*velocity) + ratio * decayed(w, g)) as f32;
            *w = (f64::from(*w) - lr * f64::from(*velocity)) as f32;
        }
    }

    /// Updates a vector and its velocity; all three of one length.
    pub fn step_vector(&self, w: &mut [f32], gradient: &[f32], velocity: &mut [f32], lr: f64) {
        for ((w, g), velocity) in w.iter_mut().zip(gradient).zip(velocity) {
            *velocity = (self.momentum * f64::from(*velocity) + f64::from(*g)) as f32;
            *w = (f64::from(*w) - lr * f64::from(*velocity)) as f32;
        }
    }
}
