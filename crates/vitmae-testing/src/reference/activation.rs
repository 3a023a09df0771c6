//! Every activation that a Hugging Face config may name, with its derivative.
//!
//! Source: `ACT2CLS` in `activations.py` of transformers 4.57.6, and for `selu` and `elu`, which that
//! table lacks, `torch.nn.functional`. Derivatives at a kink are PyTorch's.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

/// An element-wise activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names and formulas stand in `NAMES` and `forward`")]
pub enum Activation {
    Gelu,
    Gelu10,
    GeluFast,
    GeluTanh,
    Laplace,
    LeakyRelu,
    Linear,
    Mish,
    QuickGelu,
    Relu,
    Relu2,
    Relu6,
    Selu,
    Elu,
    Sigmoid,
    Silu,
    Tanh,
}

use Activation::*;

/// Every name with the activation it stands for.
pub const NAMES: [(&str, Activation); 22] = [
    ("gelu", Gelu),
    ("gelu_python", Gelu),
    ("gelu_10", Gelu10),
    ("gelu_fast", GeluFast),
    ("gelu_new", GeluTanh),
    ("gelu_python_tanh", GeluTanh),
    ("gelu_pytorch_tanh", GeluTanh),
    ("gelu_accurate", GeluTanh),
    ("laplace", Laplace),
    ("leaky_relu", LeakyRelu),
    ("linear", Linear),
    ("mish", Mish),
    ("quick_gelu", QuickGelu),
    ("relu", Relu),
    ("relu2", Relu2),
    ("relu6", Relu6),
    ("selu", Selu),
    ("elu", Elu),
    ("sigmoid", Sigmoid),
    ("silu", Silu),
    ("swish", Silu),
    ("tanh", Tanh),
];

/// `√(2/π)` as `gelu_fast` writes it.
const GELU_FAST_SCALE: f64 = 0.7978845608;
#[expect(clippy::approx_constant, reason = "the six digits of the source, not √½")]
const LAPLACE_MEAN: f64 = 0.707107;
const LAPLACE_SIGMA: f64 = 0.282095;
const SELU_ALPHA: f64 = 1.6732632423543772848170429916717;
const SELU_SCALE: f64 = 1.0507009873554804934193349852946;

impl Activation {
    /// The activation of a name, `None` for an unknown one.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|&(_, activation)| activation)
    }

    /// The activation at `x`.
    pub fn forward(self, x: f64) -> f64 {
        match self {
            Gelu => x * normal_cdf(x),
            Gelu10 => (x * normal_cdf(x)).clamp(-10.0, 10.0),
            GeluFast => tanh_gelu(x, GELU_FAST_SCALE),
            GeluTanh => tanh_gelu(x, (2.0 / PI).sqrt()),
            Laplace => normal_cdf((x - LAPLACE_MEAN) / LAPLACE_SIGMA),
            LeakyRelu if x > 0.0 => x,
            LeakyRelu => 0.01 * x,
            Linear => x,
            Mish => x * softplus(x).tanh(),
            QuickGelu => x * sigmoid(1.702 * x),
            Relu => x.max(0.0),
            Relu2 => x.max(0.0).powi(2),
            Relu6 => x.clamp(0.0, 6.0),
            Selu if x > 0.0 => SELU_SCALE * x,
            Selu => SELU_SCALE * SELU_ALPHA * x.exp_m1(),
            Elu if x > 0.0 => x,
            Elu => x.exp_m1(),
            Sigmoid => sigmoid(x),
            Silu => x * sigmoid(x),
            Tanh => x.tanh(),
        }
    }

    /// The derivative at `x`.
    pub fn derivative(self, x: f64) -> f64 {
        let step = |inside: bool| if inside { 1.0 } else { 0.0 };
        match self {
            Gelu => normal_cdf(x) + x * normal_density(x),
            Gelu10 => Gelu.derivative(x) * step((-10.0..=10.0).contains(&Gelu.forward(x))),
            GeluFast => tanh_gelu_derivative(x, GELU_FAST_SCALE),
            GeluTanh => tanh_gelu_derivative(x, (2.0 / PI).sqrt()),
            Laplace => normal_density((x - LAPLACE_MEAN) / LAPLACE_SIGMA) / LAPLACE_SIGMA,
            LeakyRelu if x > 0.0 => 1.0,
            LeakyRelu => 0.01,
            Linear => 1.0,
            Mish => {
                let t = softplus(x).tanh();
                t + x * sigmoid(x) * (1.0 - t * t)
            }
            QuickGelu => {
                let s = sigmoid(1.702 * x);
                s + 1.702 * x * s * (1.0 - s)
            }
            Relu => step(x > 0.0),
            Relu2 => 2.0 * x.max(0.0),
            Relu6 => step(x > 0.0 && x < 6.0),
            Selu if x > 0.0 => SELU_SCALE,
            Selu => SELU_SCALE * SELU_ALPHA * x.exp(),
            Elu if x > 0.0 => 1.0,
            Elu => x.exp(),
            Sigmoid => sigmoid(x) * (1.0 - sigmoid(x)),
            Silu => {
                let s = sigmoid(x);
                s + x * s * (1.0 - s)
            }
            Tanh => 1.0 - x.tanh().powi(2),
        }
    }
}

/// The activation of every element.
pub fn forward(x: &[f64], activation: Activation) -> Vec<f64> {
    x.iter().map(|&x| activation.forward(x)).collect()
}

/// `dx = dy ⊙ act′(x)`.
pub fn backward(dy: &[f64], x: &[f64], activation: Activation) -> Vec<f64> {
    assert_eq!(dy.len(), x.len(), "dy");
    dy.iter().zip(x).map(|(dy, &x)| dy * activation.derivative(x)).collect()
}

/// The error function, `erf(x) = 2/√π · ∫₀ˣ exp(−t²) dt`, to f64 accuracy.
pub fn erf(x: f64) -> f64 {
    if x.abs() < 2.0 { erf_series(x) } else { x.signum() * (1.0 - erfc_fraction(x.abs())) }
}

/// The complement `1 − erf(x)`, accurate for large `x` too, where `1 − erf` would cancel.
pub fn erfc(x: f64) -> f64 {
    if x.abs() < 2.0 {
        1.0 - erf_series(x)
    } else if x > 0.0 {
        erfc_fraction(x)
    } else {
        2.0 - erfc_fraction(-x)
    }
}

/// `erf(x) = 2/√π · exp(−x²) · Σ_n 2ⁿ·x^(2n+1) / (1·3·…·(2n+1))`; every term has the sign of `x`.
///
/// Source: Abramowitz and Stegun, 7.1.6.
fn erf_series(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..100 {
        term *= 2.0 * x * x / (2 * n + 1) as f64;
        sum += term;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// `erfc(x) = exp(−x²)/√π · 1/(x + ½/(x + 1/(x + 3⁄2/(x + 2/(x + …)))))` for `x ≥ 2`.
///
/// Source: Abramowitz and Stegun, 7.1.14.
fn erfc_fraction(x: f64) -> f64 {
    let fraction = (1..200).rev().fold(x, |tail, n| x + 0.5 * n as f64 / tail);
    0.5 * FRAC_2_SQRT_PI * (-x * x).exp() / fraction
}

fn normal_cdf(x: f64) -> f64 {
    0.5 * erfc(-x * FRAC_1_SQRT_2)
}

fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * PI).sqrt()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `½·x·(1 + tanh(scale·(x + 0.044715·x³)))`.
fn tanh_gelu(x: f64, scale: f64) -> f64 {
    0.5 * x * (1.0 + (scale * (x + 0.044715 * x * x * x)).tanh())
}

fn tanh_gelu_derivative(x: f64, scale: f64) -> f64 {
    let t = (scale * (x + 0.044715 * x * x * x)).tanh();
    let inner = scale * (1.0 + 3.0 * 0.044715 * x * x);
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::{Tolerance, assert_close};
    use crate::draws::Draws;
    use crate::gradient_check::{assert_gradient, dot};

    /// Values of C's `erf` and `erfc`, through Python's `math` module.
    #[test]
    fn erf_and_erfc_equal_the_c_library() {
        let tight = Tolerance::new(0.0, 4e-15);
        let x = [0.1, 0.5, 1.0, 1.5, 2.0, 3.0];
        let expected = [
            0.1124629160182849,
            0.5204998778130465,
            0.8427007929497149,
            0.9661051464753108,
            0.9953222650189527,
            0.9999779095030014,
        ];
        assert_close("erf", &x.map(erf), &expected, tight);
        assert_close("erf is odd", &x.map(|x| -erf(-x)), &expected, tight);
        let x = [0.5, 1.0, 2.0, 2.5, 3.0, 5.0, 10.0, 20.0, -1.0, -3.0];
        let expected = [
            0.4795001221869535,
            0.15729920705028513,
            0.004677734981047265,
            0.0004069520174449589,
            2.2090496998585438e-5,
            1.5374597944280351e-12,
            2.088487583762545e-45,
            5.3958656116079005e-176,
            1.842700792949715,
            1.9999779095030015,
        ];
        assert_close("erfc", &x.map(erfc), &expected, Tolerance::new(0.0, 2e-14));
        assert_eq!((erf(0.0), erfc(0.0)), (0.0, 1.0));
    }

    #[test]
    fn the_two_forms_of_erfc_meet() {
        // At the switch the series still carries f64's absolute accuracy.
        for x in [2.0, 2.1, 2.3] {
            let difference = 1.0 - erf_series(x) - erfc_fraction(x);
            assert!(difference.abs() < 1e-15, "{x}: {difference}");
        }
    }

    /// Expected at x = −2.5, −0.3, 0.8, 11, from the formulas in Python with C's `erf` and `tanh`.
    #[test]
    fn activations_equal_their_published_formulas() {
        let cases = [
            ("gelu", [-0.015524163314440348, -0.1146265733433142, 0.6305156811332827, 11.0]),
            ("gelu_10", [-0.015524163314440348, -0.1146265733433142, 0.6305156811332827, 10.0]),
            ("gelu_fast", [-0.015084266090273357, -0.114629076457363, 0.630431691435818, 11.0]),
            ("gelu_new", [-0.015084266089998577, -0.11462907645724074, 0.6304316914364482, 11.0]),
            ("laplace", [0.0, 0.00017842335597845205, 0.6290343444245944, 1.0]),
            ("leaky_relu", [-0.025, -0.003, 0.8, 11.0]),
            ("linear", [-2.5, -0.3, 0.8, 11.0]),
            (
                "mish",
                [-0.19681620390653337, -0.15113317713833455, 0.659699757427687, 10.999999993863375],
            ),
            (
                "quick_gelu",
                [-0.03498616504857008, -0.11251586461840829, 0.6368156932677986, 10.99999991861743],
            ),
            ("relu", [0.0, 0.0, 0.8, 11.0]),
            ("relu2", [0.0, 0.0, 0.64, 121.0]),
            ("relu6", [0.0, 0.0, 0.8, 6.0]),
            (
                "selu",
                [-1.6137857588732425, -0.4556673153791221, 0.8405607898843844, 11.557710860910285],
            ),
            ("elu", [-0.9179150013761013, -0.2591817793182821, 0.8, 11.0]),
            (
                "sigmoid",
                [0.07585818002124355, 0.425557483188341, 0.6899744811276125, 0.999983298578152],
            ),
            (
                "silu",
                [-0.18964545005310887, -0.1276672449565023, 0.55197958490209, 10.999816284359673],
            ),
            (
                "tanh",
                [-0.9866142981514303, -0.2913126124515909, 0.6640367702678491, 0.9999999994421064],
            ),
        ];
        for (name, expected) in cases {
            let activation = Activation::from_name(name).unwrap();
            let found = forward(&[-2.5, -0.3, 0.8, 11.0], activation);
            assert_close(name, &found, &expected, Tolerance::new(1e-15, 1e-13));
        }
        assert_eq!(Activation::from_name("prelu"), None);
    }

    #[test]
    fn backward_is_the_gradient_of_forward() {
        let mut draws = Draws::new(6);
        for (name, activation) in NAMES {
            // Kinks (0, 6, and where gelu_10 clips) are kept at a distance.
            let mut x: Vec<f64> = (0..40).map(|_| draws.between(-9.0, 14.0)).collect();
            x.extend((0..40).map(|_| draws.between(-2.0, 2.0)));
            x.retain(|x| [0.0, 6.0, 10.0].iter().all(|kink: &f64| (x - kink).abs() > 1e-3));
            let dy = draws.vec(x.len());
            let objective = |x: &[f64]| dot(&forward(x, activation), &dy);
            assert_gradient(name, objective, &x, &backward(&dy, &x, activation));
        }
    }

    #[test]
    fn derivatives_at_the_kinks_are_those_of_torch() {
        let cases = [
            (Relu, 0.0, 0.0),
            (LeakyRelu, 0.0, 0.01),
            (Relu2, 0.0, 0.0),
            (Relu6, 0.0, 0.0),
            (Relu6, 6.0, 0.0),
            (Elu, 0.0, 1.0),
        ];
        for (activation, x, expected) in cases {
            assert_eq!(activation.derivative(x), expected, "{activation:?} at {x}");
        }
    }
}
