//! The classifier.

use anyhow::Result;
use vitmae_model::{Head, Labels, TrainOptions};
use vitmae_tensor::Device;
use vitmae_testing::cases::{self, Case, Values};
use vitmae_weights::{LoadOptions, classifier_from_pretrained};

use super::{Outputs, loss_shape, model, options, pixels};

pub(super) fn run(case: &Case, device: &Device, head: cases::Head) -> Result<Outputs> {
    let head = match head {
        cases::Head::Cls => Head::Cls,
        cases::Head::MeanFcNorm => Head::MeanFcNorm,
    };
    let load = LoadOptions::default();
    let (mut network, _) = classifier_from_pretrained(&model::weights(case)?, head, device, &load)?;
    let given = &case.tensors.get("input.labels")?.values;
    let values; // f32, as the classifier takes them
    let labels = match given {
        Values::Integers(classes) => Labels::Classes(classes),
        _ => {
            values = case.tensors.f32s("input.labels")?.1;
            Labels::Values(&values)
        }
    };
    let pixels = pixels(case, device)?;
    let output = network.forward(&pixels, Some(labels), &options(case))?;
    let mut outputs = Outputs::default();
    outputs.put("logits", &output.logits)?;
    if let Some(loss) = output.loss {
        outputs.put_f32("loss", loss_shape(case), vec![loss]);
    }
    outputs.put_all("hidden_states", output.hidden_states)?;
    outputs.put_all("attentions", output.attentions)?;
    let train = TrainOptions { forward: options(case), dropout: false, ..TrainOptions::default() };
    network.forward_backward(&pixels, labels, &train)?;
    model::put_gradients(&mut outputs, &network.parameters())?;
    Ok(outputs)
}
