//! What can go wrong on the way to an ONNX file.

use std::path::PathBuf;

use vitmae_model::ModelError;
use vitmae_tensor::TensorError;
use vitmae_weights::WeightsError;

/// Why a model was not exported. No file has been written or changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The model has not what the graph needs.
    #[error("{what} needs {needs}, and this model is {model}\nhelp: {help}")]
    Model {
        /// The graph.
        what: &'static str,
        /// What it needs.
        needs: &'static str,
        /// What the model is.
        model: &'static str,
        /// What to do.
        help: &'static str,
    },
    /// The graph needs kept patches, and for a loss removed ones.
    #[error(
        "the mask ratio {ratio} keeps {kept} of {patches} patches, this graph needs 1 to {most}"
    )]
    MaskRatio {
        /// The ratio.
        ratio: f64,
        /// K.
        kept: usize,
        /// L.
        patches: usize,
        /// The most it may keep.
        most: usize,
    },
    /// A value of a parameter could not be read.
    #[error("a parameter cannot be read")]
    Tensor(#[from] TensorError),
    /// The model refused its own test input.
    #[error("the model cannot be run")]
    Forward(#[from] ModelError),
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WeightsError),
    /// tract refused the graph.
    #[error("the graph cannot be run by tract: {reason}")]
    Refused {
        /// What tract says.
        reason: String,
    },
    /// The graph gives other numbers than the model.
    #[error(
        "output `{output}` of the graph differs from the model by {found:e}, expected at most {bound:e}\n\
         help: values this large in the weights or a fault of the export; `vitmae doctor` looks at weights"
    )]
    Differs {
        /// The output.
        output: &'static str,
        /// The largest difference.
        found: f64,
        /// The largest allowed.
        bound: f64,
    },
    /// The folder of the file has no usable name for its data.
    #[error("`{}` is no name for a file", path.display())]
    Name {
        /// What was named.
        path: PathBuf,
    },
}
