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
    let stored = Stored::new(model.layout, model.parameters, |_| options.dtype)?;
    let mut metadata = options.metadata.clone();
    metadata.insert("format".to_string(), "pt".to_string());
    write_safetensors(&folder.join(WEIGHTS_FILE), &metadata, &stored.tensors, |tensor| {
        stored.values(tensor, &mut values)
    })?;
    let config = with_class(model.config, model.class);
    write_config(folder, &config)
}

/// Writes `config.json` into `folder`, atomically.
pub(crate) fn write_config(folder: &Path, config: &VitMaeConfig) -> Result<(), WeightsError> {
    let path = folder.join(CONFIG_FILE);
    let text = config.to_json();
    write_atomically(&path, |out| {
        out.write_all(text.as_bytes()).map_err(|source| WeightsError::Io {
            action: "write",
            path: path.clone(),
            source,
        })
    })
}

/// The tensors that parameters become in a layout.
pub(crate) struct Stored {
    pub(crate) tensors: Vec<TensorToWrite>,
    layout: Layout,
    places: HashMap<String, Place>,
}

/// Where the values of a stored tensor come from: part `part` of `parts` of a parameter.
struct Place {
    parameter: usize,
    part: usize,
    parts: usize,
    /// Its shape in our order of axes.
    shape: Vec<usize>,
}

impl Stored {
    /// The tensors of `parameters`, with the element type of each.
    pub(crate) fn new(
        layout: Layout,
        parameters: &[ParameterShape],
        dtype: impl Fn(usize) -> Dtype,
    ) -> Result<Stored, WeightsError> {
        let (mut tensors, mut places) = (Vec::new(), HashMap::new());
        for (index, parameter) in parameters.iter().enumerate() {
            let Some(names) = layout.stored(&parameter.name) else {
                return Err(WeightsError::NoPlace { name: parameter.name.clone(), layout });
            };
            let parts = names.len();
            let shape = part_shape(&parameter.shape, parts);
            for (part, name) in names.into_iter().enumerate() {
                let stored = layout.order(&name).stored_shape(&shape);
                tensors.push(TensorToWrite {
                    name: name.clone(),
                    dtype: dtype(index),
                    shape: stored,
                });
                let shape = shape.clone();
                places.insert(name, Place { parameter: index, part, parts, shape });
            }
        }
        Ok(Stored { tensors, layout, places })
    }

    /// The values of a tensor, from those of its parameter, which `all` gives by its index.
    pub(crate) fn values(
        &self,
        tensor: &TensorToWrite,
        all: &mut impl FnMut(usize) -> Result<Vec<f32>, WeightsError>,
    ) -> Result<Vec<f32>, WeightsError> {
        let place = &self.places[&tensor.name];
        let mut values = all(place.parameter)?;
        if place.parts > 1 {
            // A part of a join is a run of whole rows.
            let length = values.len() / place.parts;
            values = values[place.part * length..][..length].to_vec();
        }
        Ok(self.layout.order(&tensor.name).to_stored(values, &place.shape))
    }
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
