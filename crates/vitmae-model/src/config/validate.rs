//! The checks a configuration must pass before anything is allocated for it.

use super::json::wrong_type;
use super::{ConfigError, INTERPOLATION_KEY, NUMERICS_KEY, PROBLEM_TYPES, VitMaeConfig};

/// The activations a config may name: those of Hugging Face's table.
pub const ACTIVATIONS: [&str; 22] = [
    "elu",
    "gelu",
    "gelu_10",
    "gelu_accurate",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_python_tanh",
    "gelu_pytorch_tanh",
    "laplace",
    "leaky_relu",
    "linear",
    "mish",
    "quick_gelu",
    "relu",
    "relu2",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "swish",
    "tanh",
];

/// The largest model accepted: 2^34 numbers, 64 GiB in f32.
pub const MAX_PARAMETERS: u64 = 1 << 34;

const MAX_WIDTH: usize = 65_536;
const MAX_MLP_WIDTH: usize = 4 * MAX_WIDTH;
const MAX_LAYERS: usize = 1_024;
const MAX_CHANNELS: usize = 4_096;
const MAX_SIDE: usize = 65_536;
const MAX_LABELS: usize = 1_048_576;

impl VitMaeConfig {
    /// Checks every size and choice; a config that passes can be built.
    ///
    /// # Errors
    /// The first fault found, as the [`ConfigError`] that names the key, the value and what is
    /// accepted.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.model_type != "vit_mae" && self.model_type != "vit" {
            return Err(ConfigError::ModelType { found: self.model_type.clone() });
        }
        self.check_sizes()?;
        self.check_shape()?;
        self.check_numbers()?;
        check_activation(&self.hidden_act)?;
        self.check_extra()
    }

    /// Every size is at least 1 and below its cap.
    fn check_sizes(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_MLP_WIDTH),
            ("decoder_hidden_size", self.decoder_hidden_size, MAX_WIDTH),
            ("decoder_num_hidden_layers", self.decoder_num_hidden_layers, MAX_LAYERS),
            ("decoder_num_attention_heads", self.decoder_num_attention_heads, MAX_WIDTH),
            ("decoder_intermediate_size", self.decoder_intermediate_size, MAX_MLP_WIDTH),
            ("num_channels", self.num_channels, MAX_CHANNELS),
            ("image_size", self.image_size.0, MAX_SIDE),
            ("image_size", self.image_size.1, MAX_SIDE),
            ("patch_size", self.patch_size.0, MAX_SIDE),
            ("patch_size", self.patch_size.1, MAX_SIDE),
        ];
        for (key, found, limit) in sizes {
            if found == 0 {
                return Err(ConfigError::Zero { key });
            }
            at_most(key, found, limit)?;
        }
        let found = self.parameter_count().total();
        if found > MAX_PARAMETERS {
            return Err(ConfigError::TooManyParameters { found, limit: MAX_PARAMETERS });
        }
        Ok(())
    }

    /// The sizes fit each other.
    fn check_shape(&self) -> Result<(), ConfigError> {
        let stacks = [
            ("hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads),
            (
                "decoder_hidden_size",
                self.decoder_hidden_size,
                "decoder_num_attention_heads",
                self.decoder_num_attention_heads,
            ),
        ];
        for (width_key, width, heads_key, heads) in stacks {
            if !width.is_multiple_of(heads) {
                return Err(ConfigError::Heads { width_key, width, heads_key, heads });
            }
            if !width.is_multiple_of(4) {
                return Err(ConfigError::PositionWidth { key: width_key, found: width });
            }
        }
        let axes = [
            ("height", self.image_size.0, self.patch_size.0),
            ("width", self.image_size.1, self.patch_size.1),
        ];
        for (axis, image, patch) in axes {
            if !image.is_multiple_of(patch) {
                return Err(ConfigError::Patches { axis, image, patch });
            }
        }
        if self.norm_pix_loss && self.patch_dim() < 2 {
            return Err(ConfigError::NormPixLoss);
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        // `contains` is false for NaN.
        if !(0.0..1.0).contains(&self.mask_ratio) {
            return Err(ConfigError::MaskRatio { found: self.mask_ratio });
        }
        let dropouts = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
        ];
        for (key, found) in dropouts {
            if !(0.0..1.0).contains(&found) {
                let expected = "at least 0 and less than 1";
                return Err(ConfigError::Range { key, found, expected });
            }
        }
        let positives = [
            ("layer_norm_eps", self.layer_norm_eps),
            ("initializer_range", self.initializer_range),
        ];
        for (key, found) in positives {
            // Above this the number is infinite as f32.
            if !(0.0..=f64::from(f32::MAX)).contains(&found) {
                let expected = "a finite number of at least 0";
                return Err(ConfigError::Range { key, found, expected });
            }
        }
        Ok(())
    }

    /// The keys in `extra` that this project reads.
    fn check_extra(&self) -> Result<(), ConfigError> {
        if let Some(value) = self.extra.get("id2label")
            && !value.is_null()
            && !value.is_object()
        {
            return Err(wrong_type("id2label", value, "an object from class to name"));
        }
        if let Some(value) = self.extra.get("num_labels")
            && !value.is_null()
            && !value.is_u64()
        {
            return Err(wrong_type("num_labels", value, "a whole number"));
        }
        at_most("num_labels", self.num_labels(), MAX_LABELS)?;
        if let Some(value) = self.extra.get("problem_type")
            && !value.is_null()
            && !matches!(
                value.as_str(),
                Some("regression" | "single_label_classification" | "multi_label_classification")
            )
        {
            return Err(wrong_type("problem_type", value, PROBLEM_TYPES));
        }
        for (key, known, expected) in [
            (INTERPOLATION_KEY, ["hf1d", "grid2d"], "`hf1d` or `grid2d`"),
            (NUMERICS_KEY, ["torch", "tf"], "`torch` or `tf`"),
        ] {
            if let Some(value) = self.extra.get(key)
                && !value.as_str().is_some_and(|text| known.contains(&text))
            {
                return Err(wrong_type(key, value, expected));
            }
        }
        Ok(())
    }
}

fn at_most(key: &'static str, found: usize, limit: usize) -> Result<(), ConfigError> {
    if found > limit {
        return Err(ConfigError::TooLarge { key, found: found as u64, limit: limit as u64 });
    }
    Ok(())
}

/// Accepts the names in [`ACTIVATIONS`].
fn check_activation(name: &str) -> Result<(), ConfigError> {
    if ACTIVATIONS.contains(&name) {
        return Ok(());
    }
    let nearest = ACTIVATIONS
        .iter()
        .map(|&known| (edits(&name.to_lowercase(), known), known))
        .min()
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 3));
    let help = match nearest {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => format!("the known ones are {}", ACTIVATIONS.join(", ")),
    };
    Err(ConfigError::Activation { found: name.chars().take(40).collect(), help })
}

/// Letters to add, drop or change to turn `a` into `b` (Levenshtein); `a` is cut at 40 letters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(40).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(change: impl FnOnce(&mut VitMaeConfig)) -> String {
        let mut config = VitMaeConfig::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        assert_eq!(
            message(|c| c.num_attention_heads = 7),
            "config: `hidden_size` 768 is not divisible by `num_attention_heads` 7\n\
             help: the heads share the width equally"
        );
        assert_eq!(
            message(|c| c.decoder_num_attention_heads = 12),
            "config: `decoder_hidden_size` 512 is not divisible by `decoder_num_attention_heads` \
             12\nhelp: the heads share the width equally"
        );
        assert_eq!(
            message(|c| (c.hidden_size, c.num_attention_heads) = (30, 2)),
            "config: `hidden_size` is 30, expected a multiple of 4\nhelp: the position table \
             holds a sine and a cosine for each of two axes"
        );
        assert_eq!(
            message(|c| c.image_size = (224, 230)),
            "config: image width 230 is not divisible by patch width 16"
        );
        assert_eq!(
            message(|c| c.image_size = (8, 16)),
            "config: image height 8 is not divisible by patch height 16"
        );
        assert_eq!(
            message(|c| (c.patch_size, c.num_channels, c.norm_pix_loss) = ((1, 1), 1, true)),
            "config: `norm_pix_loss` is true, but a patch holds a single number\nhelp: the \
             variance of a patch needs at least 2; use a larger `patch_size` or turn \
             `norm_pix_loss` off"
        );
    }

    #[test]
    fn every_size_refuses_zero_and_absurd() {
        type Set = fn(&mut VitMaeConfig, usize);
        let sizes: [(&str, Set); 13] = [
            ("hidden_size", |c, n| c.hidden_size = n),
            ("num_hidden_layers", |c, n| c.num_hidden_layers = n),
            ("num_attention_heads", |c, n| c.num_attention_heads = n),
            ("intermediate_size", |c, n| c.intermediate_size = n),
            ("decoder_hidden_size", |c, n| c.decoder_hidden_size = n),
            ("decoder_num_hidden_layers", |c, n| c.decoder_num_hidden_layers = n),
            ("decoder_num_attention_heads", |c, n| c.decoder_num_attention_heads = n),
            ("decoder_intermediate_size", |c, n| c.decoder_intermediate_size = n),
            ("num_channels", |c, n| c.num_channels = n),
            ("image_size", |c, n| c.image_size.0 = n),
            ("image_size", |c, n| c.image_size.1 = n),
            ("patch_size", |c, n| c.patch_size.0 = n),
            ("patch_size", |c, n| c.patch_size.1 = n),
        ];
        for (key, set) in sizes {
            assert_eq!(
                message(|c| set(c, 0)),
                format!("config: `{key}` is 0, expected at least 1")
            );
            let absurd = message(|c| set(c, 1_000_000));
            assert!(absurd.starts_with(&format!("config: `{key}` is 1000000, expected at most")));
        }
        assert_eq!(
            message(|c| c.num_hidden_layers = 1025),
            "config: `num_hidden_layers` is 1025, expected at most 1024"
        );
    }

    #[test]
    fn allowed_sizes_with_an_absurd_product_are_refused() {
        let text = message(|c| {
            (c.hidden_size, c.num_hidden_layers, c.intermediate_size) = (65_536, 1_024, 262_144);
        });
        assert!(text.ends_with(" parameters, expected at most 17179869184"), "{text}");
    }

    #[test]
    fn mask_ratio_is_at_least_zero_and_below_one() {
        for bad in [1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
            assert_eq!(
                message(|c| c.mask_ratio = bad),
                format!(
                    "config: `mask_ratio` is {bad}, expected at least 0 and less than 1\nhelp: a \
                     ratio of 1 can only be asked for in a single call"
                )
            );
        }
        for good in [0.0, 0.75, 0.999] {
            VitMaeConfig { mask_ratio: good, ..VitMaeConfig::default() }.validate().unwrap();
        }
    }

    #[test]
    fn numbers_outside_their_range_are_named() {
        assert_eq!(
            message(|c| c.hidden_dropout_prob = 1.0),
            "config: `hidden_dropout_prob` is 1, expected at least 0 and less than 1"
        );
        assert_eq!(
            message(|c| c.attention_probs_dropout_prob = f64::NAN),
            "config: `attention_probs_dropout_prob` is NaN, expected at least 0 and less than 1"
        );
        assert_eq!(
            message(|c| c.layer_norm_eps = -1e-6),
            "config: `layer_norm_eps` is -0.000001, expected a finite number of at least 0"
        );
        assert_eq!(
            message(|c| c.initializer_range = f64::INFINITY),
            "config: `initializer_range` is inf, expected a finite number of at least 0"
        );
    }

    #[test]
    fn activations_are_known_or_suggested() {
        for name in ACTIVATIONS {
            VitMaeConfig { hidden_act: name.into(), ..VitMaeConfig::default() }.validate().unwrap();
        }
        assert_eq!(
            message(|c| c.hidden_act = "geluu".into()),
            "config: `hidden_act` is `geluu`, which is not a known activation\nhelp: did you mean \
             `gelu`?"
        );
        assert!(
            message(|c| c.hidden_act = "GELU_new ".into()).ends_with("did you mean `gelu_new`?")
        );
        let text = message(|c| c.hidden_act = "completely different".into());
        assert!(text.contains("help: the known ones are elu, gelu, "), "{text}");
    }

    #[test]
    fn other_models_are_refused() {
        assert_eq!(
            message(|c| c.model_type = "bert".into()),
            "config: `model_type` is `bert`, expected `vit_mae`\nhelp: only ViTMAE models and the \
             `vit` classifiers made from them are read"
        );
        let classifier = VitMaeConfig { model_type: "vit".into(), ..VitMaeConfig::default() };
        classifier.validate().unwrap();
        assert!(classifier.is_classifier());
    }

    #[test]
    fn keys_of_ours_in_extra_are_checked() {
        let with = |key: &str, value| message(|c| drop(c.extra.insert(key.to_string(), value)));
        assert_eq!(
            with("id2label", json!([1])),
            "config: `id2label` is a list, expected an object from class to name"
        );
        assert_eq!(
            with("num_labels", json!("ten")),
            "config: `num_labels` is the string \"ten\", expected a whole number"
        );
        assert_eq!(
            with("num_labels", json!(5_000_000)),
            "config: `num_labels` is 5000000, expected at most 1048576"
        );
        assert_eq!(
            with(INTERPOLATION_KEY, json!("cubic")),
            "config: `vitmae_interpolation` is the string \"cubic\", expected `hf1d` or `grid2d`"
        );
        let mut good = VitMaeConfig::default();
        good.extra.insert(INTERPOLATION_KEY.into(), json!("grid2d"));
        good.validate().unwrap();
        assert_eq!(good.recorded_interpolation(), Some("grid2d"));
        assert_eq!(
            with(NUMERICS_KEY, json!("jax")),
            "config: `vitmae_numerics` is the string \"jax\", expected `torch` or `tf`"
        );
        good.extra.insert(NUMERICS_KEY.into(), json!("tf"));
        good.validate().unwrap();
        assert_eq!(good.recorded_numerics(), Some("tf"));
    }

    #[test]
    fn edits_counts_changes() {
        for (a, b, n) in
            [("gelu", "gelu", 0), ("", "tanh", 4), ("relu", "gelu", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(edits(a, b), n);
        }
    }
}
