//! `preprocessor_config.json`: every form that transformers has written.

use serde_json::{Map, Value, json};

use super::{PerChannel, Size, VitImageProcessor};
use crate::{Filter, ImageError};

const BOOL: &str = "true or false";
const NUMBER: &str = "a finite number other than 0";
const SIZE: &str =
    "pixels from 1 to 32768 as `N`, `[height, width]`, `{height, width}` or `{shortest_edge}`";
const RESAMPLE: &str =
    "0 (nearest), 1 (lanczos), 2 (bilinear), 3 (bicubic), 4 (box) or 5 (hamming)";
const PER_CHANNEL: &str = "a finite number or a list of them, one a channel";
const STD: &str = "a positive number or a list of them, one a channel";

/// The keys that this crate reads, and the type names, which it writes anew.
const KNOWN: [&str; 11] = [
    "do_resize",
    "size",
    "resample",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "do_convert_rgb",
    "image_processor_type",
    "feature_extractor_type",
];

impl VitImageProcessor {
    /// Reads `preprocessor_config.json`.
    ///
    /// Missing keys take the class's defaults. `size` may be one number (old files: both sides),
    /// `[height, width]`, `{"height", "width"}` or `{"shortest_edge"}`. The type names
    /// (`image_processor_type`, formerly `feature_extractor_type`) are not looked at: ViTMAE files
    /// carry several. Unknown keys are kept and, as in transformers, have no effect.
    ///
    /// # Errors
    /// [`ImageError::ConfigJson`] if `text` is not a JSON object, [`ImageError::Config`] if a
    /// value means nothing.
    pub fn from_json(text: &str) -> Result<VitImageProcessor, ImageError> {
        let map: Map<String, Value> =
            serde_json::from_str(text).map_err(|source| ImageError::ConfigJson { source })?;
        let mut processor = VitImageProcessor::default();
        read(&map, "do_resize", &mut processor.do_resize, BOOL, Value::as_bool)?;
        read(&map, "do_rescale", &mut processor.do_rescale, BOOL, Value::as_bool)?;
        read(&map, "do_normalize", &mut processor.do_normalize, BOOL, Value::as_bool)?;
        read(&map, "rescale_factor", &mut processor.rescale_factor, NUMBER, Value::as_f64)?;
        read(&map, "resample", &mut processor.resample, RESAMPLE, |value| {
            Filter::from_pillow(value.as_u64()?)
        })?;
        // transformers writes `null` for these when they are unset.
        read_or_null(&map, "size", &mut processor.size, SIZE, size)?;
        read_or_null(&map, "image_mean", &mut processor.image_mean, PER_CHANNEL, per_channel)?;
        read_or_null(&map, "image_std", &mut processor.image_std, STD, per_channel)?;
        read_or_null(&map, "do_convert_rgb", &mut processor.do_convert_rgb, BOOL, |value| {
            value.as_bool().map(Some)
        })?;
        processor.unknown = map;
        processor.unknown.retain(|key, _| !KNOWN.contains(&key.as_str()));
        processor.validate()?;
        Ok(processor)
    }

    /// Writes `preprocessor_config.json` in the form of transformers 4.57, unknown keys last.
    #[must_use]
    pub fn to_json(&self) -> String {
        let size = match self.size {
            Size::Exact { height, width } => json!({"height": height, "width": width}),
            Size::ShortestEdge(edge) => json!({"shortest_edge": edge}),
        };
        let list = |values: &PerChannel| match values {
            PerChannel::All(value) => json!(value),
            PerChannel::Each(values) => json!(values),
        };
        let mut map = Map::new();
        for (key, value) in [
            ("do_convert_rgb", json!(self.do_convert_rgb)),
            ("do_normalize", json!(self.do_normalize)),
            ("do_rescale", json!(self.do_rescale)),
            ("do_resize", json!(self.do_resize)),
            ("image_mean", list(&self.image_mean)),
            ("image_processor_type", json!("ViTImageProcessor")),
            ("image_std", list(&self.image_std)),
            ("resample", json!(self.resample.pillow())),
            ("rescale_factor", json!(self.rescale_factor)),
            ("size", size),
        ] {
            map.insert(key.to_owned(), value);
        }
        map.extend(self.unknown.clone());
        // The alternate form of `Value` is indented JSON.
        format!("{:#}\n", Value::Object(map))
    }

    /// Checks the values, which are public, for being usable.
    ///
    /// # Errors
    /// [`ImageError::Config`] for the first that is not: a side of 0 or above 32,768, a factor
    /// that is 0 or not finite, a mean that is not finite, a standard deviation that is not a
    /// positive number, an empty list.
    pub fn validate(&self) -> Result<(), ImageError> {
        let refuse =
            |key, found: String, expected| Err(ImageError::Config { key, found, expected });
        let side = |pixels: usize| (1..=32_768).contains(&pixels);
        match self.size {
            Size::Exact { height, width } if !side(height) || !side(width) => {
                return refuse("size", format!("{{height: {height}, width: {width}}}"), SIZE);
            }
            Size::ShortestEdge(edge) if !side(edge) => {
                return refuse("size", format!("{{shortest_edge: {edge}}}"), SIZE);
            }
            _ => {}
        }
        let factor = self.rescale_factor;
        if !factor.is_finite() || factor == 0.0 {
            return refuse("rescale_factor", factor.to_string(), NUMBER);
        }
        if !self.image_mean.all(|value| (value as f32).is_finite()) {
            return refuse("image_mean", format!("{:?}", self.image_mean.list()), PER_CHANNEL);
        }
        // The check is on the rounded value: it is the divisor.
        if !self.image_std.all(|value| (value as f32).is_finite() && value as f32 > 0.0) {
            return refuse("image_std", format!("{:?}", self.image_std.list()), STD);
        }
        Ok(())
    }
}

impl PerChannel {
    fn list(&self) -> &[f64] {
        match self {
            PerChannel::All(value) => std::slice::from_ref(value),
            PerChannel::Each(values) => values,
        }
    }

    fn all(&self, good: impl Fn(f64) -> bool) -> bool {
        !self.list().is_empty() && self.list().iter().all(|&value| good(value))
    }
}

/// Replaces `field` if the key is there.
fn read<T>(
    map: &Map<String, Value>,
    key: &'static str,
    field: &mut T,
    expected: &'static str,
    parse: impl Fn(&Value) -> Option<T>,
) -> Result<(), ImageError> {
    if let Some(value) = map.get(key) {
        let found = || value.to_string();
        *field =
            parse(value).ok_or_else(|| ImageError::Config { key, found: found(), expected })?;
    }
    Ok(())
}

/// As [`read`], with `null` as good as absent.
fn read_or_null<T>(
    map: &Map<String, Value>,
    key: &'static str,
    field: &mut T,
    expected: &'static str,
    parse: impl Fn(&Value) -> Option<T>,
) -> Result<(), ImageError> {
    if map.get(key).is_none_or(Value::is_null) {
        return Ok(());
    }
    read(map, key, field, expected, parse)
}

fn size(value: &Value) -> Option<Size> {
    let side = |value: &Value| usize::try_from(value.as_u64()?).ok();
    match value {
        Value::Number(_) => {
            let side = side(value)?;
            Some(Size::Exact { height: side, width: side })
        }
        Value::Array(sides) => match sides.as_slice() {
            [height, width] => Some(Size::Exact { height: side(height)?, width: side(width)? }),
            _ => None,
        },
        Value::Object(map) if map.len() == 2 => {
            Some(Size::Exact { height: side(map.get("height")?)?, width: side(map.get("width")?)? })
        }
        Value::Object(map) if map.len() == 1 => {
            Some(Size::ShortestEdge(side(map.get("shortest_edge")?)?))
        }
        _ => None,
    }
}

fn per_channel(value: &Value) -> Option<PerChannel> {
    match value {
        Value::Number(number) => Some(PerChannel::All(number.as_f64()?)),
        Value::Array(values) => {
            values.iter().map(Value::as_f64).collect::<Option<_>>().map(PerChannel::Each)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> VitImageProcessor {
        VitImageProcessor::from_json(text).unwrap()
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(parse("{}"), VitImageProcessor::default());
        let facebook = parse(
            r#"{"do_normalize": true, "do_resize": true, "feature_extractor_type":
            "ViTFeatureExtractor", "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225], "resample": 2, "size": 224}"#,
        );
        assert_eq!(facebook.size, Size::Exact { height: 224, width: 224 });
        assert_eq!(facebook.image_mean, PerChannel::Each(vec![0.485, 0.456, 0.406]));
        assert!(facebook.unknown.is_empty());
        let sizes = [
            (r#"{"size": [32, 48]}"#, Size::Exact { height: 32, width: 48 }),
            (r#"{"size": {"width": 48, "height": 32}}"#, Size::Exact { height: 32, width: 48 }),
            (r#"{"size": {"shortest_edge": 256}}"#, Size::ShortestEdge(256)),
            (r#"{"size": null}"#, Size::Exact { height: 224, width: 224 }),
        ];
        for (text, size) in sizes {
            assert_eq!(parse(text).size, size);
        }
        let rest = parse(
            r#"{"do_convert_rgb": true, "resample": 5, "do_resize": false, "do_rescale": false,
            "do_normalize": false, "image_mean": 0.5, "image_std": [0.1], "rescale_factor": 1}"#,
        );
        assert_eq!(rest.do_convert_rgb, Some(true));
        assert_eq!(rest.resample, Filter::Hamming);
        assert_eq!((rest.do_resize, rest.do_rescale, rest.do_normalize), (false, false, false));
        assert_eq!(
            (rest.image_mean, rest.image_std),
            (PerChannel::All(0.5), PerChannel::Each(vec![0.1]))
        );
        assert_eq!(rest.rescale_factor, 1.0);
    }

    #[test]
    fn writing_and_reading_keeps_everything() {
        let processor = parse(
            r#"{"size": {"shortest_edge": 99}, "image_mean": 0.25, "resample": 3,
            "rescale_factor": 0.00392156862745098, "do_convert_rgb": null,
            "crop_pct": 0.875, "nested": {"b": [1, null], "a": "x"}}"#,
        );
        assert_eq!(processor.unknown.len(), 2);
        let written = processor.to_json();
        assert_eq!(parse(&written), processor);
        assert!(written.contains(r#""rescale_factor": 0.00392156862745098"#));
        assert!(written.contains(r#""crop_pct": 0.875"#));
    }

    #[test]
    fn wrong_values_are_named() {
        let message = |text| VitImageProcessor::from_json(text).unwrap_err().to_string();
        assert_eq!(
            message(r#"{"size": {"height": 224}}"#),
            "image processor configuration: `size` is {\"height\":224}, expected pixels from 1 to \
             32768 as `N`, `[height, width]`, `{height, width}` or `{shortest_edge}`"
        );
        assert_eq!(message("[1]"), "image processor configuration is not a JSON object");
        for (text, key) in [
            (r#"{"size": 0}"#, "size"),
            (r#"{"size": -3}"#, "size"),
            (r#"{"size": {"shortest_edge": 9, "longest_edge": 10, "x": 1}}"#, "size"),
            (r#"{"size": 1000000}"#, "size"),
            (r#"{"resample": 6}"#, "resample"),
            (r#"{"resample": "bilinear"}"#, "resample"),
            (r#"{"do_resize": null}"#, "do_resize"),
            (r#"{"do_convert_rgb": 1}"#, "do_convert_rgb"),
            (r#"{"rescale_factor": 0}"#, "rescale_factor"),
            (r#"{"image_mean": []}"#, "image_mean"),
            (r#"{"image_mean": [1e300]}"#, "image_mean"),
            (r#"{"image_std": [0.5, 0.0, 0.5]}"#, "image_std"),
            (r#"{"image_std": 1e-50}"#, "image_std"),
            (r#"{"image_std": "half"}"#, "image_std"),
        ] {
            let message = message(text);
            assert!(message.contains(&format!("`{key}` is ")), "{text}: {message}");
        }
    }
}
