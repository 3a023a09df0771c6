//! What a file holds against what a configuration asks for, by name and shape, before any data are
//! read.

use std::collections::{HashMap, HashSet};
use std::fmt;

use vitmae_model::VitMaeConfig;

use crate::architecture::Architecture;
use crate::error::shown;
use crate::layout::Layout;
use crate::parameters::ParameterShape;
use crate::safetensors_header::TensorInfo;

/// What may differ between a file and the model it is loaded into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Patterns of tensors that may be absent, such as `decoder.*`; `*` stands for any letters, and the name may
    /// be that in the file or ours. Their parameters keep the values the model was made with.
    pub allow_missing: Vec<String>,
    /// Patterns of tensors that may be there without a place in the model.
    pub allow_unexpected: Vec<String>,
    /// Seed of the model's initialisation, which missing parameters keep.
    pub seed: u64,
    /// The encoder's heads, for weights without a `config.json`.
    pub heads: Option<usize>,
    /// The decoder's heads, for weights without a `config.json`.
    pub decoder_heads: Option<usize>,
}

impl LoadOptions {
    /// For a classifier on the encoder of a masked autoencoder: the decoder may be left out, and with a mean
    /// head the encoder's norm; what stands behind the encoder may be new. The report names each.
    pub fn for_fine_tuning() -> Self {
        let patterns = |all: &[&str]| all.iter().map(|&pattern| pattern.to_owned()).collect();
        Self {
            allow_missing: patterns(&["classifier.*", "fc_norm.*"]),
            allow_unexpected: patterns(&["decoder.*", "vit.norm.*"]),
            ..Self::default()
        }
    }
}

/// A tensor that is missing or unexpected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedShape {
    /// Its name in the file.
    pub name: String,
    /// Its sides.
    pub shape: Vec<usize>,
}

/// A tensor of another shape than the configuration gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshapen {
    /// Its name in the file.
    pub name: String,
    /// Its sides in the file.
    pub found: Vec<usize>,
    /// Its sides by the configuration.
    pub expected: Vec<usize>,
}

/// Every tensor in which a file and a configuration differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Asked for and not there.
    pub missing: Vec<NamedShape>,
    /// There and not asked for.
    pub unexpected: Vec<NamedShape>,
    /// There in another shape.
    pub misshapen: Vec<Misshapen>,
    /// What to do about it.
    pub help: String,
}

/// A parameter that the file holds, in one tensor or in several joined by rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) parameter: ParameterShape,
    pub(crate) parts: Vec<String>,
}

/// A file that fits: what to load, and what was allowed to differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) found: Vec<Found>,
    pub(crate) missing: Vec<String>,
    pub(crate) unexpected: Vec<String>,
}

/// Compares the `tensors` of a file in `layout` with the parameters `expected` by `config`.
pub(crate) fn compare(
    layout: Layout,
    tensors: &[TensorInfo],
    config: &VitMaeConfig,
    expected: &[ParameterShape],
    options: &LoadOptions,
) -> Result<Fit, Box<Mismatch>> {
    let present: HashMap<&str, &TensorInfo> =
        tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut used = HashSet::new();
    let mut fit = Fit { found: Vec::new(), missing: Vec::new(), unexpected: Vec::new() };
    let (mut missing, mut misshapen) = (Vec::new(), Vec::new());

    for parameter in expected {
        let parts = layout.stored(&parameter.name).unwrap_or_default();
        let shape = part_shape(&parameter.shape, parts.len());
        let absent = parts.iter().filter(|part| !present.contains_key(part.as_str())).count();
        if absent == parts.len() {
            // A layout without a place for the parameter: it is named as in the full layout.
            let full = || Layout::HuggingFace.stored(&parameter.name).unwrap_or_default();
            let names = if parts.is_empty() { full() } else { parts };
            let shape = part_shape(&parameter.shape, names.len());
            for name in names {
                let patterns = &options.allow_missing;
                match matches_any(patterns, &name) || matches_any(patterns, &parameter.name) {
                    true => fit.missing.push(name),
                    false => missing.push(NamedShape { name, shape: shape.clone() }),
                }
            }
            continue;
        }
        // Some parts of a join without the others are an error, whatever is allowed.
        for part in &parts {
            match present.get_key_value(part.as_str()) {
                None => missing.push(NamedShape {
                    name: part.clone(),
                    shape: layout.order(part).stored_shape(&shape),
                }),
                Some((&name, tensor)) => {
                    used.insert(name);
                    let expected = layout.order(part).stored_shape(&shape);
                    if tensor.shape != expected {
                        let found = tensor.shape.clone();
                        misshapen.push(Misshapen { name: part.clone(), found, expected });
                    }
                }
            }
        }
        fit.found.push(Found { parameter: parameter.clone(), parts });
    }

    let mut unexpected = Vec::new();
    for tensor in tensors.iter().filter(|tensor| !used.contains(tensor.name.as_str())) {
        let ours = layout.internal(&tensor.name).map(|(ours, _)| ours);
        let patterns = &options.allow_unexpected;
        let allowed = matches_any(patterns, &tensor.name)
            || ours.is_some_and(|ours| matches_any(patterns, &ours));
        match allowed {
            true => fit.unexpected.push(tensor.name.clone()),
            false => {
                let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
                unexpected.push(NamedShape { name, shape });
            }
        }
    }
    if missing.is_empty() && unexpected.is_empty() && misshapen.is_empty() {
        return Ok(fit);
    }
    let help = remedy(layout, tensors, config, &missing, &unexpected);
    Err(Box::new(Mismatch { missing, unexpected, misshapen, help }))
}

/// The shape of each of `parts` tensors that are joined by rows to `shape`.
pub(crate) fn part_shape(shape: &[usize], parts: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if let Some(rows) = shape.first_mut() {
        *rows /= parts.max(1);
    }
    shape
}

/// The most useful thing to do, in one sentence.
fn remedy(
    layout: Layout,
    tensors: &[TensorInfo],
    config: &VitMaeConfig,
    missing: &[NamedShape],
    unexpected: &[NamedShape],
) -> String {
    let contradictions = Architecture::infer(layout, tensors).contradictions(config);
    if !contradictions.is_empty() {
        let sides: Vec<_> = contradictions
            .iter()
            .map(|c| {
                format!(
                    "`{}` is {} in the weights and {} in the config",
                    c.key, c.weights, c.config
                )
            })
            .collect();
        return format!(
            "{}; use the `config.json` that belongs to these weights",
            sides.join(", ")
        );
    }
    for (prefix, what) in [("decoder.", "an encoder only"), ("classifier.", "no classifier")] {
        let belongs = |tensor: &NamedShape| {
            let ours = layout.internal(&tensor.name);
            let ours = ours.or_else(|| Layout::HuggingFace.internal(&tensor.name));
            ours.is_some_and(|(ours, _)| ours.starts_with(prefix))
        };
        if !missing.is_empty() && missing.iter().all(belongs) {
            return format!(
                "the file holds {what}; allow `{prefix}*` to be missing and those parameters \
                 start as in a new model"
            );
        }
    }
    if missing.is_empty() && !unexpected.is_empty() {
        return "the model has no place for these tensors; allow them by pattern to leave them out"
            .to_string();
    }
    "the file is incomplete or belongs to another model; `inspect` shows what it holds".to_string()
}

/// Whether `name` matches one of the patterns, in which `*` stands for any letters.
fn matches_any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(rest) = name.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    // The first place where a piece fits is the best one, since `*` may take any letters.
    let rest = pieces.try_fold(rest, |rest, piece| rest.split_once(piece).map(|(_, after)| after));
    rest.is_some_and(|rest| rest.ends_with(last))
}

/// Tensors of each kind that a message shows; the variant holds all.
const SHOWN: usize = 40;

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (missing, unexpected) = (self.missing.len(), self.unexpected.len());
        let misshapen = self.misshapen.len();
        write!(
            f,
            "the tensors do not fit the config: {missing} missing, {unexpected} unexpected, \
             {misshapen} misshapen"
        )?;
        let rest = |f: &mut fmt::Formatter<'_>, kind: &str, count: usize| match count {
            0..=SHOWN => Ok(()),
            _ => write!(f, "\n  {kind} and {} more", count - SHOWN),
        };
        for tensor in self.missing.iter().take(SHOWN) {
            write!(f, "\n  missing `{}` {:?}", shown(&tensor.name), tensor.shape)?;
        }
        rest(f, "missing", missing)?;
        for tensor in self.unexpected.iter().take(SHOWN) {
            write!(f, "\n  unexpected `{}` {:?}", shown(&tensor.name), tensor.shape)?;
        }
        rest(f, "unexpected", unexpected)?;
        for tensor in self.misshapen.iter().take(SHOWN) {
            let (name, found, expected) = (shown(&tensor.name), &tensor.found, &tensor.expected);
            write!(f, "\n  misshapen `{name}`: found {found:?}, expected {expected:?}")?;
        }
        rest(f, "misshapen", misshapen)?;
        write!(f, "\nhelp: {}", self.help)
    }
}

impl std::error::Error for Mismatch {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::parameters::{ModelKind, expected_parameters};

    fn tiny() -> VitMaeConfig {
        VitMaeConfig {
            hidden_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 12,
            image_size: (8, 8),
            patch_size: (4, 4),
            num_channels: 1,
            decoder_hidden_size: 4,
            decoder_num_hidden_layers: 1,
            decoder_num_attention_heads: 1,
            decoder_intermediate_size: 6,
            ..VitMaeConfig::default()
        }
    }

    /// A file with the tensors of `tiny` in `layout`.
    fn tensors(layout: Layout, kind: ModelKind) -> Vec<TensorInfo> {
        let mut tensors = Vec::new();
        for row in expected_parameters(&tiny(), kind) {
            let names = layout.stored(&row.name).unwrap();
            let shape = part_shape(&row.shape, names.len());
            for name in names {
                let (dtype, shape) = (Dtype::F32, layout.order(&name).stored_shape(&shape));
                tensors.push(TensorInfo { name, dtype, shape, offset: 0, bytes: 0 });
            }
        }
        tensors
    }

    fn against(
        tensors: &[TensorInfo],
        config: &VitMaeConfig,
        options: &LoadOptions,
    ) -> Result<Fit, Box<Mismatch>> {
        let layout = Layout::detect(tensors.iter().map(|t| t.name.as_str())).unwrap();
        let expected = expected_parameters(config, ModelKind::PreTraining);
        compare(layout, tensors, config, &expected, options)
    }

    #[test]
    fn a_complete_file_fits() {
        let tensors = tensors(Layout::HuggingFace, ModelKind::PreTraining);
        let fit = against(&tensors, &tiny(), &LoadOptions::default()).unwrap();
        assert_eq!(fit.found.len(), expected_parameters(&tiny(), ModelKind::PreTraining).len());
        assert_eq!(fit.found.iter().map(|f| f.parts.len()).sum::<usize>(), tensors.len());
        assert!(fit.missing.is_empty() && fit.unexpected.is_empty());
    }

    #[test]
    fn all_faults_are_listed_in_one_message() {
        let mut tensors = tensors(Layout::HuggingFace, ModelKind::PreTraining);
        tensors.retain(|t| t.name != "vit.layernorm.bias");
        let token = tensors.iter_mut().find(|t| t.name == "decoder.decoder_norm.weight").unwrap();
        token.shape = vec![5];
        tensors.push(TensorInfo {
            name: "stray\n".into(),
            dtype: Dtype::I64,
            shape: vec![2, 3],
            offset: 0,
            bytes: 0,
        });
        let error = against(&tensors, &tiny(), &LoadOptions::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the tensors do not fit the config: 1 missing, 1 unexpected, 1 misshapen\n  missing \
             `vit.layernorm.bias` [8]\n  unexpected `stray\\n` [2, 3]\n  misshapen \
             `decoder.decoder_norm.weight`: found [5], expected [4]\nhelp: the file is incomplete \
             or belongs to another model; `inspect` shows what it holds"
        );
    }

    #[test]
    fn a_config_that_contradicts_the_weights_is_told_where() {
        let tensors = tensors(Layout::HuggingFace, ModelKind::PreTraining);
        let config = VitMaeConfig { num_channels: 3, ..tiny() };
        let error = against(&tensors, &config, &LoadOptions::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the tensors do not fit the config: 0 missing, 0 unexpected, 3 misshapen\n  misshapen \
             `vit.embeddings.patch_embeddings.projection.weight`: found [8, 1, 4, 4], expected [8, \
             3, 4, 4]\n  misshapen `decoder.decoder_pred.weight`: found [16, 4], expected [48, \
             4]\n  misshapen `decoder.decoder_pred.bias`: found [16], expected [48]\nhelp: \
             `num_channels` is 1 in the weights and 3 in the config; use the `config.json` that \
             belongs to these weights"
        );
    }

    #[test]
    fn an_encoder_needs_permission_to_leave_the_decoder_new() {
        for layout in Layout::ALL {
            let tensors = tensors(layout, ModelKind::Encoder);
            let error = against(&tensors, &tiny(), &LoadOptions::default()).unwrap_err();
            let parts =
                if layout == Layout::Original || layout == Layout::Mmpretrain { 20 } else { 24 };
            assert_eq!(error.missing.len(), parts, "{layout}");
            assert_eq!(
                error.help,
                "the file holds an encoder only; allow `decoder.*` to be missing and those \
                 parameters start as in a new model"
            );
            let options =
                LoadOptions { allow_missing: vec!["decoder.*".into()], ..LoadOptions::default() };
            let fit = against(&tensors, &tiny(), &options).unwrap();
            assert_eq!(fit.missing.len(), parts);
            let token = layout.stored("decoder.mask_token");
            let token = token.map_or("decoder.mask_token".to_string(), |mut names| names.remove(0));
            assert!(fit.missing.contains(&token), "{token}");
        }
    }

    #[test]
    fn a_join_without_one_part_is_refused_even_if_allowed() {
        let mut tensors = tensors(Layout::HuggingFace, ModelKind::PreTraining);
        tensors.retain(|t| !t.name.ends_with("0.attention.attention.key.weight"));
        let options = LoadOptions { allow_missing: vec!["*".into()], ..LoadOptions::default() };
        let error = against(&tensors, &tiny(), &options).unwrap_err();
        let names: Vec<_> = error.missing.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "vit.encoder.layer.0.attention.attention.key.weight",
                "decoder.decoder_layers.0.attention.attention.key.weight"
            ]
        );
    }

    #[test]
    fn unexpected_tensors_are_left_out_when_allowed() {
        let mut tensors = tensors(Layout::HuggingFace, ModelKind::PreTraining);
        let stray = TensorInfo { name: "pooler.dense.bias".into(), ..tensors[0].clone() };
        tensors.push(stray);
        let error = against(&tensors, &tiny(), &LoadOptions::default()).unwrap_err();
        assert_eq!(
            error.help,
            "the model has no place for these tensors; allow them by pattern to leave them out"
        );
        let options =
            LoadOptions { allow_unexpected: vec!["pooler.*".into()], ..LoadOptions::default() };
        assert_eq!(against(&tensors, &tiny(), &options).unwrap().unexpected, ["pooler.dense.bias"]);
    }

    #[test]
    fn a_long_list_is_cut_in_the_message_and_whole_in_the_variant() {
        let config = VitMaeConfig { num_hidden_layers: 5, ..tiny() };
        let tensors = tensors(Layout::HuggingFace, ModelKind::PreTraining);
        let error = against(&tensors, &config, &LoadOptions::default()).unwrap_err();
        assert_eq!(error.missing.len(), 64);
        assert!(error.to_string().contains("\n  missing and 24 more\n"), "{error}");
    }

    #[test]
    fn a_star_stands_for_any_letters() {
        for (pattern, name, expected) in [
            ("decoder.*", "decoder.mask_token", true),
            ("decoder.*", "vit.decoder.x", false),
            ("*.bias", "a.bias", true),
            ("*.bias", "a.bias.b", false),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "ac", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("**", "x", true),
            ("", "", true),
            ("", "x", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
