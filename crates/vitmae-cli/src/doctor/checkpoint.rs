//! `vitmae doctor CHECKPOINT`: what is wrong with a checkpoint, in words, and a mended copy.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use vitmae_model::VitMaeConfig;
use vitmae_tensor::{Device, Tensor};
use vitmae_weights::diagnosis::predictions::{self, Fit};
use vitmae_weights::{Diagnosis, Finding, LoadOptions, Repair, diagnose, from_pretrained, repair};

use super::DoctorArgs;
use crate::demo::assets;
use crate::{Global, inspect, model_folder};

/// Runs the command: code 0 if nothing is wrong, 1 if something is, in the mended copy if one was asked for.
pub fn run(path: &Path, args: &DoctorArgs, global: &Global) -> Result<u8> {
    let path = model_folder::resolve(path)?;
    let load = LoadOptions {
        heads: args.heads,
        decoder_heads: args.decoder_heads,
        ..LoadOptions::default()
    };
    let mut diagnosis = diagnose(&path, &load)?;
    let fit = match &diagnosis.config {
        Some(config) if !args.no_predict && can_predict(&diagnosis, config) => {
            Some(predict(&path, config, &load)?)
        }
        _ => None,
    };
    if let (Some(fit), Some(config)) = (fit, &diagnosis.config) {
        diagnosis.findings.extend(fit.contradicts(config.norm_pix_loss));
    }
    let mendable = diagnosis.findings.iter().any(Finding::can_be_mended);
    let done = match &args.repair {
        Some(out) if mendable => Some((out, repair(&path, &diagnosis, out)?)),
        _ => None,
    };
    let left = done.as_ref().map_or(&diagnosis.findings, |(_, repair)| &repair.left);
    let code = u8::from(!left.is_empty());
    if global.json {
        outln!("{:#}", report(&diagnosis, fit, done.as_ref().map(|(out, done)| (&***out, done))));
        return Ok(code);
    }
    inspect::print(&diagnosis.inspection, false);
    outln!("predicts    {}", predicts(fit));
    for finding in &diagnosis.findings {
        outln!("\nfinding     {finding}\n            {}", finding.meaning());
    }
    match (diagnosis.findings.len(), done) {
        (0, _) => outln!("\nhealthy     nothing wrong was found"),
        (_, Some((out, done))) => {
            let (mended, left) = (done.mended.len(), done.left.len());
            outln!("\nmended      {mended} of {} findings, in {}", mended + left, out.display());
        }
        (count, None) if mendable => {
            outln!("\nwrong       {count}; `--repair OUT` writes a mended copy into a new folder");
        }
        (count, None) => outln!("\nwrong       {count}; none of it can be mended"),
    }
    Ok(code)
}

/// Whether the model is whole enough to be run, and takes photographs.
fn can_predict(diagnosis: &Diagnosis, config: &VitMaeConfig) -> bool {
    let runs = |finding: &Finding| {
        matches!(
            finding,
            Finding::LayerNormEps { .. }
                | Finding::Transformers5 { .. }
                | Finding::Repeated { .. }
                | Finding::ZeroTensor { .. }
                | Finding::ZeroTable { .. }
                | Finding::SwappedTable { .. }
        )
    };
    let found = &diagnosis.inspection;
    let whole = found.has_decoder() && found.parameters.classifier == 0;
    whole && config.num_channels == 3 && diagnosis.findings.iter().all(runs)
}

/// Lets the model predict photographs that come with the program.
fn predict(path: &Path, config: &VitMaeConfig, load: &LoadOptions) -> Result<Fit> {
    let device = Device::cpu();
    let (model, _) = from_pretrained(path, &device, load)?;
    let processor = model_folder::processor(path, config)?;
    let (mut pixels, mut photos) = (Vec::new(), 0);
    for photo in assets::held_out_photos()? {
        pixels.extend(processor.preprocess(&photo)?);
        photos += 1;
    }
    let (height, width) = config.image_size;
    let pixels = Tensor::from_vec(&device, &[photos, config.num_channels, height, width], pixels)?;
    Ok(predictions::fit(&model, &pixels)?)
}

fn predicts(fit: Option<Fit>) -> String {
    let Some(fit) = fit else { return "not tried".to_owned() };
    let what = match fit.normalised() {
        Some(true) => "normalised patches",
        Some(false) => "pixels",
        None => {
            "neither pixels nor normalised patches better than a constant: it is hardly trained"
        }
    };
    let Fit { as_pixels, as_normalised, brightness } = fit;
    format!(
        "{what} (error on photographs {as_pixels:.2} of the variance as pixels, {as_normalised:.2} as normalised \
         patches; {brightness:.2} of the photographs' share of brightness)"
    )
}

fn report(diagnosis: &Diagnosis, fit: Option<Fit>, done: Option<(&Path, &Repair)>) -> Value {
    let kinds = |findings: &[Finding]| findings.iter().map(Finding::kind).collect::<Vec<_>>();
    json!({
        "checkpoint": diagnosis.inspection.to_json(),
        "healthy": diagnosis.findings.is_empty(),
        "findings": diagnosis.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
        "predictions": fit.map(|fit| json!({
            "normalised": fit.normalised(),
            "error_as_pixels": fit.as_pixels,
            "error_as_normalised": fit.as_normalised,
            "brightness": fit.brightness,
        })),
        "repair": done.map(|(out, done)| json!({
            "output": out.display().to_string(),
            "mended": kinds(&done.mended),
            "left": kinds(&done.left),
        })),
    })
}
