//! The parameters a configuration asks for: the table every file is compared with before its data
//! are read.

use vitmae_model::VitMaeConfig;

/// A parameter's name and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterShape {
    /// Our name, such as `vit.blocks.0.norm1.weight`.
    pub name: String,
    /// Its sides.
    pub shape: Vec<usize>,
}

/// Which model the parameters belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// The encoder alone.
    Encoder,
    /// Encoder and decoder.
    PreTraining,
    /// Encoder and a linear classifier on the CLS token.
    Classifier,
    /// Encoder without its last norm, a norm of the mean patch token and a linear classifier.
    MeanClassifier,
}

impl ModelKind {
    /// The model to which parameters of these names belong, the largest if there are several.
    pub(crate) fn of<'a>(mut names: impl Iterator<Item = &'a str> + Clone) -> Self {
        if names.clone().any(|name| name.starts_with("fc_norm.")) {
            Self::MeanClassifier
        } else if names.clone().any(|name| name.starts_with("classifier.")) {
            Self::Classifier
        } else if names.any(|name| name.starts_with("decoder.")) {
            Self::PreTraining
        } else {
            Self::Encoder
        }
    }

    /// Hugging Face's name of its class.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Encoder => "ViTMAEModel",
            Self::PreTraining => "ViTMAEForPreTraining",
            Self::Classifier | Self::MeanClassifier => "ViTForImageClassification",
        }
    }
}

/// The parameters of `kind` at the sizes of `config`, in the model's order.
///
/// B batch does not occur; D encoder width, E decoder width, L patches, C channels.
pub fn expected_parameters(config: &VitMaeConfig, kind: ModelKind) -> Vec<ParameterShape> {
    let mut table = Table(Vec::new());
    let d = config.hidden_size;
    let (height, width) = config.patch_size;
    let positions = config.num_patches() + 1;

    table.add("vit.cls_token", &[1, 1, d]);
    table.add("vit.position_embeddings", &[1, positions, d]);
    table.add("vit.patch_embedding.weight", &[d, config.num_channels, height, width]);
    table.add("vit.patch_embedding.bias", &[d]);
    for index in 0..config.num_hidden_layers {
        let prefix = format!("vit.blocks.{index}");
        table.block(&prefix, d, config.intermediate_size, config.qkv_bias);
    }
    if kind != ModelKind::MeanClassifier {
        table.norm("vit.norm", d);
    }
    match kind {
        ModelKind::Encoder => {}
        ModelKind::PreTraining => {
            let e = config.decoder_hidden_size;
            table.linear("decoder.embed", d, e);
            table.add("decoder.mask_token", &[1, 1, e]);
            table.add("decoder.position_embeddings", &[1, positions, e]);
            for index in 0..config.decoder_num_hidden_layers {
                let prefix = format!("decoder.blocks.{index}");
                table.block(&prefix, e, config.decoder_intermediate_size, config.qkv_bias);
            }
            table.norm("decoder.norm", e);
            table.linear("decoder.prediction", e, config.patch_dim());
        }
        ModelKind::Classifier => table.linear("classifier", d, config.num_labels()),
        ModelKind::MeanClassifier => {
            table.norm("fc_norm", d);
            table.linear("classifier", d, config.num_labels());
        }
    }
    table.0
}

struct Table(Vec<ParameterShape>);

impl Table {
    fn add(&mut self, name: &str, shape: &[usize]) {
        self.0.push(ParameterShape { name: name.to_string(), shape: shape.to_vec() });
    }

    fn linear(&mut self, name: &str, input: usize, output: usize) {
        self.add(&format!("{name}.weight"), &[output, input]);
        self.add(&format!("{name}.bias"), &[output]);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(&format!("{name}.weight"), &[width]);
        self.add(&format!("{name}.bias"), &[width]);
    }

    fn block(&mut self, prefix: &str, width: usize, inner: usize, qkv_bias: bool) {
        self.norm(&format!("{prefix}.norm1"), width);
        self.add(&format!("{prefix}.attention.qkv.weight"), &[3 * width, width]);
        if qkv_bias {
            self.add(&format!("{prefix}.attention.qkv.bias"), &[3 * width]);
        }
        self.linear(&format!("{prefix}.attention.projection"), width, width);
        self.norm(&format!("{prefix}.norm2"), width);
        self.linear(&format!("{prefix}.mlp.fc1"), width, inner);
        self.linear(&format!("{prefix}.mlp.fc2"), inner, width);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;

    fn count(table: &[ParameterShape]) -> u64 {
        table.iter().map(|row| row.shape.iter().product::<usize>() as u64).sum()
    }

    #[test]
    fn the_table_holds_as_many_numbers_as_the_config_counts() {
        let odd = VitMaeConfig {
            image_size: (32, 48),
            patch_size: (8, 4),
            num_channels: 6,
            qkv_bias: false,
            ..VitMaeConfig::default()
        };
        for config in [VitMaeConfig::base(), VitMaeConfig::large(), VitMaeConfig::huge(), odd] {
            let counted = config.parameter_count();
            let encoder = expected_parameters(&config, ModelKind::Encoder);
            let full = expected_parameters(&config, ModelKind::PreTraining);
            assert_eq!(count(&encoder), counted.encoder);
            assert_eq!(count(&full), counted.total());
        }
    }

    #[test]
    fn stored_tensors_are_as_many_as_in_published_files() {
        for (config, tensors) in
            [(VitMaeConfig::base(), 334), (VitMaeConfig::large(), 526), (VitMaeConfig::huge(), 654)]
        {
            let table = expected_parameters(&config, ModelKind::PreTraining);
            let stored =
                table.iter().flat_map(|row| Layout::HuggingFace.stored(&row.name).unwrap());
            assert_eq!(stored.count(), tensors);
        }
    }

    #[test]
    fn a_classifier_has_one_row_a_label() {
        let table = expected_parameters(&VitMaeConfig::base(), ModelKind::Classifier);
        assert_eq!(table[table.len() - 2].name, "classifier.weight");
        assert_eq!(table[table.len() - 2].shape, [2, 768]);
    }
}
