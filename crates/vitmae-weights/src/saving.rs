//! From the values of each parameter to a model folder, whatever model they come from.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use serde_json::{Map, json};
use vitmae_model::VitMaeConfig;

use crate::atomic_file::write_atomically;
use crate::comparison::part_shape;
use crate::dtype::Dtype;
use crate::error::WeightsError;
use crate::folder::{CONFIG_FILE, WEIGHTS_FILE};
use crate::layout::Layout;
use crate::parameters::ParameterShape;
use crate::safetensors_writer::{TensorToWrite, write_safetensors};

/// How a model is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaveOptions {
    /// Element type of every tensor. F16 turns values beyond 65,504 into infinity.
    pub dtype: Dtype,
    /// Text pairs for the header beside `format: pt`, which readers of Hugging Face's need.
    pub metadata: BTreeMap<String, String>,
}

impl Default for SaveOptions {
    fn default() -> Self {
        SaveOptions { dtype: Dtype::F32, metadata: BTreeMap::new() }
    }
}

/// A model as saving sees it.
pub(crate) struct Saved<'a> {
    pub(crate) config: &'a VitMaeConfig,
    /// Hugging Face's class, written as `architectures` where the config names none.
    pub(crate) class: &'static str,
    pub(crate) layout: Layout,
    pub(crate) parameters: &'a [ParameterShape],
}

/// Writes `model.safetensors` and `config.json` into `folder`, each atomically, making the folder
/// if needed. `values` gives the values of the parameter at an index.
pub(crate) fn save(
    folder: &Path,
    model: &Saved<'_>,
    options: &SaveOptions,
    mut values: impl FnMut(usize) -> Result<Vec<f32>, WeightsError>,
) -> Result<(), WeightsError> {
    fs::create_dir_all(folder).map_err(|source| WeightsError::Io {
        action: "create",
        path: folder.to_path_buf(),
        source,
    })?;
    let (tensors, places) = tensors_of(model, options.dtype)?;
    let mut metadata = options.metadata.clone();
    metadata.insert("format".to_string(), "pt".to_string());
    write_safetensors(&folder.join(WEIGHTS_FILE), &metadata, &tensors, |tensor| {
        let place = &places[&tensor.name];
        let all = values(place.parameter)?;
        // A part of a join is a run of whole rows.
        let length = all.len() / place.parts;
        let part: Vec<f32> = all.into_iter().skip(place.part * length).take(length).collect();
        Ok(model.layout.order(&tensor.name).to_stored(part, &place.shape))
    })?;
    let path = folder.join(CONFIG_FILE);
    let text = with_class(model.config, model.class).to_json();
    write_atomically(&path, |out| {
        out.write_all(text.as_bytes()).map_err(|source| WeightsError::Io {
            action: "write",
            path: path.clone(),
            source,
        })
    })
}

/// Where the values of a stored tensor come from: part `part` of `parts` of a parameter.
struct Place {
    parameter: usize,
    part: usize,
    parts: usize,
    /// Its shape in our order of axes.
    shape: Vec<usize>,
}

fn tensors_of(
    model: &Saved<'_>,
    dtype: Dtype,
) -> Result<(Vec<TensorToWrite>, HashMap<String, Place>), WeightsError> {
    let (mut tensors, mut places) = (Vec::new(), HashMap::new());
    for (index, parameter) in model.parameters.iter().enumerate() {
        let Some(names) = model.layout.stored(&parameter.name) else {
            let (name, layout) = (parameter.name.clone(), model.layout);
            return Err(WeightsError::NoPlace { name, layout });
        };
        let parts = names.len();
        let shape = part_shape(&parameter.shape, parts);
        for (part, name) in names.into_iter().enumerate() {
            let stored = model.layout.order(&name).stored_shape(&shape);
            tensors.push(TensorToWrite { name: name.clone(), dtype, shape: stored });
            let shape = shape.clone();
            places.insert(name, Place { parameter: index, part, parts, shape });
        }
    }
    Ok((tensors, places))
}

/// The config with `architectures` in front, unless it names one: Hugging Face's tools choose the
/// class by it.
fn with_class(config: &VitMaeConfig, class: &str) -> VitMaeConfig {
    let mut config = config.clone();
    if !config.extra.contains_key("architectures") {
        let mut extra = Map::from_iter([("architectures".to_string(), json!([class]))]);
        extra.extend(std::mem::take(&mut config.extra));
        config.extra = extra;
    }
    config
}
