//! The demo's page: one HTML file with everything inside, readable without a network.

use std::fmt::Write;

use vitmae_trainer::RunConfig;

use super::{Findings, assets, recipe};
use crate::html;

/// The page.
pub fn page(
    config: &RunConfig,
    findings: &Findings,
    reconstructions: &[u8],
    loss_svg: &str,
) -> String {
    let mse = &findings.held_out.mse;
    let best = mse.mean_colour.max(mse.interpolation).max(mse.model);
    let bar = |name: &str, value: f64, class: &str| {
        let width = 100.0 * value / best;
        format!(
            "<tr><th scope=\"row\">{name}</th><td class=\"number\">{value:.5}</td>\
             <td class=\"bar\"><span class=\"{class}\" style=\"width:{width:.1}%\"></span></td></tr>\n"
        )
    };
    let errors = bar("this model", mse.model, "model")
        + &bar("interpolation from the visible pixels", mse.interpolation, "other")
        + &bar("mean colour of the image", mse.mean_colour, "other");
    let ratio = mse.mean_colour / mse.model;
    let verdict = if mse.model < mse.interpolation {
        format!("{:.2} times lower than smooth interpolation", mse.interpolation / mse.model)
    } else {
        format!("{:.2} times that of smooth interpolation", mse.model / mse.interpolation)
    };
    let model = &config.model;
    let svg = html::inline_svg(loss_svg);
    let body = format!(
        "<h1>A masked autoencoder, trained here</h1>\n\
         <p class=\"lead\">A small ViTMAE saw {images} images for {seconds:.0} seconds on this \
         machine, three quarters of each hidden. Below is what it makes of photographs it never \
         saw, and what its encoder learned. Every number was computed in this run.</p>\n\
         <ul class=\"facts\">\n\
         <li><b>{ratio:.1}×</b> lower error than the mean colour</li>\n\
         <li><b>{accuracy:.1} %</b> of test digits read by a linear probe</li>\n\
         <li><b>{parameters:.2} M</b> parameters, {steps} updates</li>\n</ul>\n\
         <h2>Reconstructions of held-out photographs</h2>\n\
         <img class=\"sheet\" alt=\"Rows of four panels: original, visible patches, \
         reconstruction, reconstruction with visible patches\" \
         src=\"{picture}\">\n\
         <p class=\"caption\">Original · the {visible} of {patches} patches the model sees · its \
         reconstruction · the same with the visible patches put back. No training crop comes from \
         these photographs.</p>\n\
         <h2>Error on removed patches</h2>\n<table>\n{errors}</table>\n\
         <p class=\"caption\">Mean squared difference of colour values in 0…1 over the removed \
         patches of {views} views of {photos} held-out photographs under {masks} fixed masks each; \
         the same pixels for all three. The model's is {ratio:.2} times lower than the mean \
         colour's and {verdict}. Interpolation solves Laplace's equation with the visible pixels \
         as boundary.</p>\n\
         <h2>Loss</h2>\n<figure>{svg}</figure>\n\
         <h2>Linear probe on handwritten digits</h2>\n<table>\n{probe}</table>\n\
         <p class=\"caption\">Accuracy on {test} test digits of a multinomial logistic regression \
         on frozen features: the mean patch token of the pre-trained encoder, of the same encoder \
         with its first, random weights, and the digits' 64 grey values. Same samples, same \
         classifier, same choice of its strength on a part of the training digits. Pre-training \
         saw the {train_digits} training digits without labels and no test digit.</p>\n\
         <h2>How</h2>\n<table class=\"plain\">\n{recipe}</table>\n\
         <h2>Pictures</h2>\n\
         <p>Photographs: CC0 or public domain. NASA (astronaut, Hubble deep field), SpaceX (rocket), \
         Clemens Engelhardt (dandelion), Mikael Häggström (retina), Stefan van der Walt (cat, \
         clock), Rachel Michetti (coffee), Lav Varshney (camera), Paul Müller et al. (cell), \
         linolafett (grass), CC0Textures (brick, gravel). Digits: E. Alpaydin and C. Kaynak, \
         <i>Optical Recognition of Handwritten Digits</i>, UCI Machine Learning Repository, 1998, \
         CC BY 4.0, repacked and enlarged.</p>\n",
        images = findings.images,
        seconds = findings.seconds,
        accuracy = 100.0 * findings.probes.rows.last().map_or(0.0, |row| row.model),
        parameters = findings.parameters as f64 / 1e6,
        steps = findings.steps,
        picture = html::png_source(reconstructions),
        visible = (model.num_patches() as f64 * (1.0 - model.mask_ratio)) as usize,
        patches = model.num_patches(),
        views = findings.held_out.views,
        photos = findings.held_out.photos,
        masks = findings.held_out.masks,
        probe = probe_rows(findings),
        test = findings.probes.test,
        train_digits = assets::TRAIN_DIGITS,
        recipe = recipe_rows(config),
    );
    html::page("vitmae demo", &body)
}

fn probe_rows(findings: &Findings) -> String {
    let mut rows = "<tr><th>labelled digits</th><th>this model</th><th>random encoder</th>\
                    <th>raw pixels</th></tr>\n"
        .to_owned();
    for row in &findings.probes.rows {
        let percent = |share: f64| format!("<td class=\"number\">{:.1} %</td>", 100.0 * share);
        let cells = [row.model, row.random, row.pixels].map(percent).concat();
        // Writing to a String cannot fail.
        let _ = writeln!(rows, "<tr><th scope=\"row\">{}</th>{cells}</tr>", row.train);
    }
    rows
}

fn recipe_rows(config: &RunConfig) -> String {
    let model = &config.model;
    let (height, width) = model.image_size;
    let (ph, pw) = model.patch_size;
    let rows = [
        (
            "encoder",
            format!(
                "{} blocks, width {}, {} heads",
                model.num_hidden_layers, model.hidden_size, model.num_attention_heads
            ),
        ),
        (
            "decoder",
            format!(
                "{} blocks, width {}, {} heads",
                model.decoder_num_hidden_layers,
                model.decoder_hidden_size,
                model.decoder_num_attention_heads
            ),
        ),
        (
            "images",
            format!("{height}×{width} pixels, patches of {ph}×{pw}, three quarters removed"),
        ),
        (
            "training data",
            format!(
                "random crops of {} photographs, mirrored at random; one image in {} is one of {} \
                 unlabelled digits",
                assets::train_photo_count(),
                recipe::DIGIT_EVERY,
                assets::TRAIN_DIGITS
            ),
        ),
        (
            "optimizer",
            format!(
                "AdamW, betas {:?}, weight decay {}, batch {}, peak learning rate {}, warm-up and \
                 half-cosine, seed {}",
                config.adamw.betas,
                config.adamw.weight_decay,
                config.batch_size,
                config.peak_lr(),
                config.seed
            ),
        ),
    ];
    rows.map(|(name, text)| html::row(name, &text)).concat()
}
