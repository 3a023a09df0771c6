//! Runs a parity case: the product on one side, the case's expected tensors on the other.
//!
//! The comparison walks the **expected** tensors, so none can be overlooked: one that the product
//! does not give is a failure.

mod classification;
mod hash;
mod model;
mod processor;
mod training;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use vitmae_model::{ForwardOptions, Interpolation, Masking, Numerics};
use vitmae_tensor::ops::Distance;
use vitmae_tensor::{Device, Tensor};
use vitmae_testing::cases::{self, Case, Kind, Values};
use vitmae_testing::close::{Report, Tolerance, compare, compare_integers};

/// What the product gave, by the name of the expected tensor.
#[derive(Default)]
pub struct Outputs(BTreeMap<String, Output>);

/// A result and its shape.
struct Output {
    shape: Vec<usize>,
    values: Values,
}

impl Outputs {
    fn put(&mut self, name: impl Into<String>, tensor: &Tensor) -> Result<()> {
        self.put_f32(name, tensor.shape(), tensor.to_vec()?);
        Ok(())
    }

    fn put_f32(&mut self, name: impl Into<String>, shape: &[usize], values: Vec<f32>) {
        let output = Output { shape: shape.to_vec(), values: Values::F32(values) };
        self.0.insert(name.into(), output);
    }

    fn put_all(&mut self, name: &str, tensors: Option<Vec<Tensor>>) -> Result<()> {
        for (index, tensor) in tensors.into_iter().flatten().enumerate() {
            self.put(format!("{name}.{index}"), &tensor)?;
        }
        Ok(())
    }

    fn put_masking(&mut self, masking: &Masking) {
        let shape = [masking.batch, masking.num_patches];
        self.put_f32("mask", &shape, masking.mask.clone());
        let restore = masking.ids_restore.iter().map(|&id| id.into()).collect();
        let output = Output { shape: shape.to_vec(), values: Values::Integers(restore) };
        self.0.insert("ids_restore".to_owned(), output);
    }
}

/// Runs a case and compares every expected tensor.
///
/// # Errors
/// If the case cannot be run at all: a missing input, weights that do not load, a kind or layout that
/// this version does not know.
pub fn run(case: &Case, device: &Device) -> Result<Vec<Report>> {
    let outputs = match &case.kind {
        Kind::Pretraining => model::pretraining(case, device)?,
        Kind::Gradients => model::gradients(case, device)?,
        Kind::Encoder => model::encoder(case, device)?,
        Kind::Training { optimizer, schedule } => training::run(case, device, optimizer, schedule)?,
        Kind::Classification { head } => classification::run(case, device, *head)?,
        Kind::Processor { image } => processor::run(case, image)?,
        Kind::Masking { mask_ratio } => masking(case, *mask_ratio)?,
        Kind::PretrainingHash { batch } => hash::run(case, device, *batch)?,
    };
    let reports: Vec<_> = case
        .expected()
        .map(|(name, expected)| compare_output(name, expected, &outputs, case.tolerance))
        .collect::<Result<_>>()?;
    if reports.is_empty() {
        bail!("it expects nothing");
    }
    Ok(reports)
}

fn compare_output(
    name: &str,
    expected: &cases::Tensor,
    outputs: &Outputs,
    tolerance: Tolerance,
) -> Result<Report> {
    let Some(actual) = outputs.0.get(name) else {
        bail!("`{name}` is expected, but not among what the product gives");
    };
    if actual.shape != expected.shape {
        bail!("`{name}` has shape {:?}, expected {:?}", actual.shape, expected.shape);
    }
    // A mask is as exact as an integer.
    let tolerance = if name == "mask" { Tolerance::EXACT } else { tolerance };
    Ok(match (&actual.values, &expected.values) {
        (Values::F32(actual), Values::F32(expected)) => compare(name, actual, expected, tolerance),
        (Values::F32(actual), Values::F64(expected)) => compare(name, actual, expected, tolerance),
        (Values::Integers(actual), Values::Integers(expected)) => {
            compare_integers(name, actual, expected)
        }
        _ => bail!("`{name}` is stored as another type than the product gives"),
    })
}

/// The shape of a case's loss: TensorFlow's classes return a vector of one value, PyTorch's and ours are
/// scalars.
fn loss_shape(case: &Case) -> &'static [usize] {
    let expected = case.tensors.get("expected.loss").map(|loss| loss.shape.as_slice());
    if case.numerics == cases::Numerics::Tf && expected.is_ok_and(|shape| shape == [1]) {
        &[1]
    } else {
        &[]
    }
}

/// Masking alone.
fn masking(case: &Case, mask_ratio: f64) -> Result<Outputs> {
    let (shape, noise) = case.tensors.f64s("input.noise")?;
    let &[batch, patches] = shape else { bail!("`input.noise` has shape {shape:?}") };
    let masking = Masking::from_noise(&noise, batch, patches, mask_ratio)?;
    let mut outputs = Outputs::default();
    outputs.put_masking(&masking);
    Ok(outputs)
}

/// The pixels of a case.
fn pixels(case: &Case, device: &Device) -> Result<Tensor> {
    let (shape, pixels) = case.tensors.f32s("input.pixel_values")?;
    Ok(Tensor::from_vec(device, shape, pixels)?)
}

/// The masking that a case's noise makes at `ratio`.
fn masking_of(case: &Case, ratio: f64) -> Result<Masking> {
    let (shape, noise) = case.tensors.f64s("input.noise")?;
    let &[batch, patches] = shape else { bail!("`input.noise` has shape {shape:?}") };
    Ok(Masking::from_noise(&noise, batch, patches, ratio)?)
}

/// The options that a case asks for; everything that can be returned is.
fn options(case: &Case) -> ForwardOptions {
    ForwardOptions {
        interpolate_pos_encoding: case.interpolation.is_some(),
        interpolation: case.interpolation.map(|way| match way {
            cases::Interpolation::Hf1d => Interpolation::Hf1d,
            cases::Interpolation::Grid2d => Interpolation::Grid2d,
        }),
        output_hidden_states: true,
        output_attentions: true,
        numerics: Some(match case.numerics {
            cases::Numerics::Torch => Numerics::Torch,
            cases::Numerics::Tf => Numerics::Tf,
        }),
        distance: Distance::Squared,
    }
}

/// Puts parameters or gradients under Hugging Face's names, query, key and value apart.
fn put_by_stored_names<'a>(
    outputs: &mut Outputs,
    prefix: &str,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    for (name, tensor) in tensors {
        let stored = vitmae_weights::Layout::HuggingFace.stored(name);
        let stored = stored.with_context(|| format!("`{name}` has no name in Hugging Face's"))?;
        let mut shape = tensor.shape().to_vec();
        if let Some(rows) = shape.first_mut() {
            *rows /= stored.len();
        }
        let values = tensor.to_vec()?;
        for (part, stored) in values.chunks(values.len() / stored.len()).zip(&stored) {
            outputs.put_f32(format!("{prefix}.{stored}"), &shape, part.to_vec());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs() -> Outputs {
        let mut outputs = Outputs::default();
        outputs.put_f32("loss", &[], vec![1.0]);
        outputs.put_f32("mask", &[1, 2], vec![0.0, 1.0]);
        outputs
    }

    fn report(name: &str, shape: &[usize], values: Vec<f32>) -> Result<Report> {
        let expected = cases::Tensor { shape: shape.to_vec(), values: Values::F32(values) };
        compare_output(name, &expected, &outputs(), Tolerance::new(1e-2, 0.0))
    }

    #[test]
    fn equal_values_pass_and_others_do_not() {
        assert!(report("loss", &[], vec![1.001]).unwrap().passed());
        assert!(!report("loss", &[], vec![1.1]).unwrap().passed());
        assert!(!report("loss", &[], vec![f32::NAN]).unwrap().passed());
        // A mask may not even be nearly right.
        assert!(report("mask", &[1, 2], vec![0.0, 1.0]).unwrap().passed());
        assert!(!report("mask", &[1, 2], vec![0.001, 1.0]).unwrap().passed());
    }

    #[test]
    fn what_is_missing_or_of_another_shape_or_type_is_an_error() {
        assert!(report("logits", &[], vec![1.0]).is_err());
        assert!(report("mask", &[2, 1], vec![0.0, 1.0]).is_err());
        let integers = cases::Tensor { shape: vec![], values: Values::Integers(vec![1]) };
        assert!(compare_output("loss", &integers, &outputs(), Tolerance::EXACT).is_err());
    }
}
