//! Reading and writing `config.json`.

use serde_json::{Map, Value};

use super::{ConfigError, VitMaeConfig};

impl VitMaeConfig {
    /// Reads Hugging Face's `config.json`; missing keys take Hugging Face's defaults, and unknown
    /// ones are kept. The sizes are not checked: see [`VitMaeConfig::validate`].
    ///
    /// # Errors
    /// [`ConfigError::Json`], [`ConfigError::NotAnObject`], and [`ConfigError::Type`] naming the
    /// key, what was found and what was expected.
    pub fn from_json(text: &str) -> Result<VitMaeConfig, ConfigError> {
        // serde_json stops at 128 levels of nesting, so that hostile text cannot exhaust the stack.
        let value: Value =
            serde_json::from_str(text).map_err(|source| ConfigError::Json { source })?;
        let keys = match value {
            Value::Object(keys) => keys,
            other => return Err(ConfigError::NotAnObject { found: kind(&other) }),
        };
        let mut config = VitMaeConfig::default();
        for (key, value) in keys {
            if !config.read_key(&key, &value)? {
                config.extra.insert(key, value);
            }
        }
        Ok(config)
    }

    /// Writes `config.json` with two spaces of indentation and a final newline.
    ///
    /// Known keys come in alphabetical order, as Hugging Face writes them; the others keep their
    /// own order and are merged in, so that a file of Hugging Face's comes back in its order.
    pub fn to_json(&self) -> String {
        let mut known = self.known_keys().into_iter().peekable();
        let mut all = Map::new();
        for (key, value) in &self.extra {
            while let Some((name, number)) = known.next_if(|(name, _)| *name < key.as_str()) {
                all.insert(name.to_string(), number);
            }
            all.insert(key.clone(), value.clone());
        }
        // A known name inside `extra` loses to the field.
        all.extend(known.map(|(name, value)| (name.to_string(), value)));
        for (name, value) in self.known_keys() {
            all.insert(name.to_string(), value);
        }
        format!("{:#}\n", Value::Object(all))
    }

    /// Takes `value` into the field named `key`; false when there is no such field.
    fn read_key(&mut self, key: &str, value: &Value) -> Result<bool, ConfigError> {
        match key {
            "model_type" => self.model_type = text(key, value)?,
            "hidden_size" => self.hidden_size = size(key, value)?,
            "num_hidden_layers" => self.num_hidden_layers = size(key, value)?,
            "num_attention_heads" => self.num_attention_heads = size(key, value)?,
            "intermediate_size" => self.intermediate_size = size(key, value)?,
            "hidden_act" => self.hidden_act = text(key, value)?,
            "hidden_dropout_prob" => self.hidden_dropout_prob = number(key, value)?,
            "attention_probs_dropout_prob" => {
                self.attention_probs_dropout_prob = number(key, value)?;
            }
            "initializer_range" => self.initializer_range = number(key, value)?,
            "layer_norm_eps" => self.layer_norm_eps = number(key, value)?,
            "image_size" => self.image_size = sides(key, value)?,
            "patch_size" => self.patch_size = sides(key, value)?,
            "num_channels" => self.num_channels = size(key, value)?,
            "qkv_bias" => self.qkv_bias = flag(key, value)?,
            "decoder_num_attention_heads" => self.decoder_num_attention_heads = size(key, value)?,
            "decoder_hidden_size" => self.decoder_hidden_size = size(key, value)?,
            "decoder_num_hidden_layers" => self.decoder_num_hidden_layers = size(key, value)?,
            "decoder_intermediate_size" => self.decoder_intermediate_size = size(key, value)?,
            "mask_ratio" => self.mask_ratio = number(key, value)?,
            "norm_pix_loss" => self.norm_pix_loss = flag(key, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Every field but `extra`, in alphabetical order.
    fn known_keys(&self) -> [(&'static str, Value); 20] {
        [
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob.into()),
            ("decoder_hidden_size", self.decoder_hidden_size.into()),
            ("decoder_intermediate_size", self.decoder_intermediate_size.into()),
            ("decoder_num_attention_heads", self.decoder_num_attention_heads.into()),
            ("decoder_num_hidden_layers", self.decoder_num_hidden_layers.into()),
            ("hidden_act", self.hidden_act.as_str().into()),
            ("hidden_dropout_prob", self.hidden_dropout_prob.into()),
            ("hidden_size", self.hidden_size.into()),
            ("image_size", sides_value(self.image_size)),
            ("initializer_range", self.initializer_range.into()),
            ("intermediate_size", self.intermediate_size.into()),
            ("layer_norm_eps", self.layer_norm_eps.into()),
            ("mask_ratio", self.mask_ratio.into()),
            ("model_type", self.model_type.as_str().into()),
            ("norm_pix_loss", self.norm_pix_loss.into()),
            ("num_attention_heads", self.num_attention_heads.into()),
            ("num_channels", self.num_channels.into()),
            ("num_hidden_layers", self.num_hidden_layers.into()),
            ("patch_size", sides_value(self.patch_size)),
            ("qkv_bias", self.qkv_bias.into()),
        ]
    }
}

fn sides_value((height, width): (usize, usize)) -> Value {
    if height == width { height.into() } else { vec![height, width].into() }
}

fn size(key: &str, value: &Value) -> Result<usize, ConfigError> {
    let whole = value.as_u64().and_then(|n| usize::try_from(n).ok());
    whole.ok_or_else(|| wrong_type(key, value, "a whole number"))
}

fn sides(key: &str, value: &Value) -> Result<(usize, usize), ConfigError> {
    let expected = "a whole number or a pair [height, width]";
    let side = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    let both = match value {
        Value::Array(pair) if pair.len() == 2 => side(&pair[0]).zip(side(&pair[1])),
        other => side(other).map(|n| (n, n)),
    };
    both.ok_or_else(|| wrong_type(key, value, expected))
}

fn number(key: &str, value: &Value) -> Result<f64, ConfigError> {
    value.as_f64().ok_or_else(|| wrong_type(key, value, "a number"))
}

fn flag(key: &str, value: &Value) -> Result<bool, ConfigError> {
    value.as_bool().ok_or_else(|| wrong_type(key, value, "true or false"))
}

fn text(key: &str, value: &Value) -> Result<String, ConfigError> {
    value.as_str().map(str::to_string).ok_or_else(|| wrong_type(key, value, "a string"))
}

pub(super) fn wrong_type(key: &str, value: &Value, expected: &'static str) -> ConfigError {
    let found = match value {
        Value::Array(_) | Value::Object(_) | Value::Null => kind(value).to_string(),
        Value::String(s) => {
            let shown: String = s.chars().take(40).collect();
            let more = if shown.len() < s.len() { "…" } else { "" };
            format!("the string {shown:?}{more}")
        }
        other => other.to_string(),
    };
    ConfigError::Type { key: key.to_string(), found, expected }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the form Hugging Face writes, keys sorted, with keys of no concern to us.
    const HUGGING_FACE: &str = r#"{
  "architectures": [
    "ViTMAEForPreTraining"
  ],
  "attention_probs_dropout_prob": 0.0,
  "decoder_hidden_size": 512,
  "decoder_intermediate_size": 2048,
  "decoder_num_attention_heads": 16,
  "decoder_num_hidden_layers": 8,
  "dtype": "float32",
  "hidden_act": "gelu",
  "hidden_dropout_prob": 0.0,
  "hidden_size": 768,
  "image_size": 224,
  "initializer_range": 0.02,
  "intermediate_size": 3072,
  "layer_norm_eps": 1e-12,
  "mask_ratio": 0.75,
  "model_type": "vit_mae",
  "norm_pix_loss": false,
  "num_attention_heads": 12,
  "num_channels": 3,
  "num_hidden_layers": 12,
  "patch_size": 16,
  "qkv_bias": true,
  "transformers_version": "4.57.6"
}
"#;

    #[test]
    fn a_file_of_hugging_face_comes_back_byte_for_byte() {
        let config = VitMaeConfig::from_json(HUGGING_FACE).unwrap();
        assert_eq!(config.to_json(), HUGGING_FACE);
        let extra: Vec<_> = config.extra.keys().collect();
        assert_eq!(extra, ["architectures", "dtype", "transformers_version"]);
        assert_eq!(VitMaeConfig { extra: Map::new(), ..config }, VitMaeConfig::base());
    }

    #[test]
    fn unknown_keys_keep_their_order_and_contents() {
        let text = r#"{"zebra":{"b":[1,2.5,null],"a":"x"},"hidden_size":32,"apple":-7}"#;
        let config = VitMaeConfig::from_json(text).unwrap();
        let again = VitMaeConfig::from_json(&config.to_json()).unwrap();
        assert_eq!(again, config);
        assert_eq!(again.extra.keys().collect::<Vec<_>>(), ["zebra", "apple"]);
        assert_eq!(again.extra["zebra"].to_string(), r#"{"b":[1,2.5,null],"a":"x"}"#);
    }

    #[test]
    fn every_field_survives_a_round_trip() {
        let config = VitMaeConfig {
            model_type: "vit".into(),
            hidden_size: 1,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            intermediate_size: 4,
            hidden_act: "relu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.2,
            initializer_range: 0.3,
            layer_norm_eps: 1e-6,
            image_size: (5, 6),
            patch_size: (7, 8),
            num_channels: 9,
            qkv_bias: false,
            decoder_num_attention_heads: 10,
            decoder_hidden_size: 11,
            decoder_num_hidden_layers: 12,
            decoder_intermediate_size: 13,
            mask_ratio: 0.6,
            norm_pix_loss: true,
            extra: Map::new(),
        };
        assert_eq!(VitMaeConfig::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn numbers_are_read_exactly() {
        // The parser's fast path is off by one unit in the last place here.
        let config = VitMaeConfig::from_json(r#"{"layer_norm_eps": 1e-112}"#).unwrap();
        assert_eq!(config.layer_norm_eps.to_bits(), 1e-112f64.to_bits());
    }

    #[test]
    fn sides_are_an_integer_or_a_pair() {
        let read = |text: &str| VitMaeConfig::from_json(text).map(|c| c.image_size);
        assert_eq!(read(r#"{"image_size": 64}"#).unwrap(), (64, 64));
        assert_eq!(read(r#"{"image_size": [64, 96]}"#).unwrap(), (64, 96));
        assert_eq!(
            read(r#"{"image_size": [64, 96, 3]}"#).unwrap_err().to_string(),
            "config: `image_size` is a list, expected a whole number or a pair [height, width]"
        );
    }

    #[test]
    fn a_wrong_type_names_key_found_and_expected() {
        let cases = [
            (
                r#"{"hidden_size": "wide"}"#,
                "config: `hidden_size` is the string \"wide\", expected a whole number",
            ),
            (r#"{"hidden_size": -3}"#, "config: `hidden_size` is -3, expected a whole number"),
            (r#"{"hidden_size": 1.5}"#, "config: `hidden_size` is 1.5, expected a whole number"),
            (r#"{"qkv_bias": 1}"#, "config: `qkv_bias` is 1, expected true or false"),
            (r#"{"mask_ratio": null}"#, "config: `mask_ratio` is null, expected a number"),
            (r#"{"hidden_act": {}}"#, "config: `hidden_act` is an object, expected a string"),
            ("[1]", "config: found a list, expected an object with the model's sizes"),
        ];
        for (text, message) in cases {
            assert_eq!(VitMaeConfig::from_json(text).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn broken_json_keeps_the_parsers_message_as_cause() {
        let error = VitMaeConfig::from_json("{\"hidden_size\": }").unwrap_err();
        assert_eq!(error.to_string(), "config: the text is not valid JSON");
        assert_eq!(cause(&error), "expected value at line 1 column 17");
    }

    fn cause(error: &ConfigError) -> String {
        std::error::Error::source(error).unwrap().to_string()
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let text = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let message = cause(&VitMaeConfig::from_json(&text).unwrap_err());
        assert!(message.contains("recursion limit exceeded"), "{message}");
    }

    #[test]
    fn a_known_name_in_extra_does_not_hide_the_field() {
        let mut config = VitMaeConfig::default();
        config.extra.insert("hidden_size".into(), 5.into());
        config.extra.insert("qkv_bias".into(), "no".into());
        let again = VitMaeConfig::from_json(&config.to_json()).unwrap();
        assert_eq!(again, VitMaeConfig::default());
    }
}
