//! The kinds of findings, and what each means in words.

use std::fmt;

use serde_json::{Value, json};

use crate::architecture::Contradiction;
use crate::layout::Layout;

/// Something that is wrong with a checkpoint, or that a user of it has to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// No tensor name belongs to a ViTMAE.
    UnknownLayout,
    /// There is no configuration that can be used.
    Config {
        /// Why.
        reason: String,
    },
    /// Configuration and weights disagree on a size.
    Contradiction(Contradiction),
    /// Names or shapes are not those of a whole model.
    Tensors {
        /// Asked for and not there.
        missing: Vec<String>,
        /// There without a place.
        unexpected: Vec<String>,
        /// Of another shape.
        misshapen: Vec<String>,
    },
    /// The layer norms' eps is not that of models of this origin.
    LayerNormEps {
        /// Of the configuration.
        found: f64,
        /// Of models of this layout.
        usual: f64,
        /// The layout, which tells the origin.
        layout: Layout,
    },
    /// A file that transformers 4 reads in part and initialises in part, without an error.
    Transformers5 {
        /// The layout.
        layout: Layout,
        /// Tensors that transformers 4 does not find.
        tensors: usize,
    },
    /// A position table that is zero throughout.
    ZeroTable {
        /// Its name in the file.
        tensor: String,
    },
    /// A position table with rows and columns exchanged.
    SwappedTable {
        /// Its name in the file.
        tensor: String,
    },
    /// A position table for another grid than the configuration's.
    WrongGrid {
        /// Its name in the file.
        tensor: String,
        /// The grid (rows, columns) it was made for; none for a learned table.
        found: Option<(usize, usize)>,
        /// The patches it has places for.
        patches: usize,
        /// The grid of the configuration.
        expected: (usize, usize),
    },
    /// Values that are not numbers.
    NonFinite {
        /// The tensor's name in the file.
        tensor: String,
        /// How many are NaN.
        nan: usize,
        /// How many are infinite.
        infinite: usize,
    },
    /// A token or a matrix that is zero throughout.
    ZeroTensor {
        /// Its name in the file.
        tensor: String,
        /// Whether it is the class token or the mask token.
        token: bool,
    },
    /// Tensors with the same values, which are none of one number alone.
    Repeated {
        /// Their names in the file.
        tensors: Vec<String>,
    },
    /// What the decoder predicts is not what the configuration says.
    DecoderTarget {
        /// Whether its predictions are those of normalised patches.
        normalised: bool,
        /// Error of the predictions as pixels, in units of the pixels' variance.
        as_pixels: f64,
        /// Error of the predictions as normalised patches, in units of theirs.
        as_normalised: f64,
    },
}

impl Finding {
    /// Its name for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::UnknownLayout => "unknown-layout",
            Self::Config { .. } => "config",
            Self::Contradiction(_) => "contradiction",
            Self::Tensors { .. } => "tensors",
            Self::LayerNormEps { .. } => "layer-norm-eps",
            Self::Transformers5 { .. } => "transformers-5",
            Self::ZeroTable { .. } => "zero-table",
            Self::SwappedTable { .. } => "swapped-table",
            Self::WrongGrid { .. } => "wrong-grid",
            Self::NonFinite { .. } => "non-finite",
            Self::ZeroTensor { .. } => "zero-tensor",
            Self::Repeated { .. } => "repeated",
            Self::DecoderTarget { .. } => "decoder-target",
        }
    }

    /// Whether [`repair`](super::repair) mends it: where the right values are known.
    pub fn can_be_mended(&self) -> bool {
        match self {
            Self::LayerNormEps { .. }
            | Self::Transformers5 { .. }
            | Self::ZeroTable { .. }
            | Self::SwappedTable { .. }
            | Self::DecoderTarget { .. } => true,
            Self::WrongGrid { found, .. } => found.is_some(),
            Self::ZeroTensor { token, .. } => *token,
            _ => false,
        }
    }

    /// What it means for a user, and what mending does.
    pub fn meaning(&self) -> &'static str {
        match self {
            Self::UnknownLayout => "this is no ViTMAE, or one under names that are not known here",
            Self::Config { .. } => {
                "the number of heads and the image size are not all in the weights; copy the `config.json` \
                 from where the weights come from"
            }
            Self::Contradiction(_) => {
                "configuration and weights belong to different models; use the `config.json` of these weights"
            }
            Self::Tensors { .. } => {
                "the file is incomplete or belongs to another model; a library that fills gaps silently would \
                 give random results"
            }
            Self::LayerNormEps { .. } => {
                "the model computes slightly other numbers than the one that was trained; mending writes the \
                 usual value into the configuration"
            }
            Self::Transformers5 { .. } => {
                "transformers 4 initialises these tensors at random with no more than a warning, and its \
                 reconstructions are noise; mending writes names that versions 4 and 5 both read"
            }
            Self::ZeroTable { .. } => {
                "the model cannot tell places apart: every removed patch of an image gets the same prediction. \
                 Models made from scratch by transformers have this fault, and their decoder did not learn; \
                 mending writes the sine-cosine table, after which training can go on"
            }
            Self::SwappedTable { .. } => {
                "every patch is taken for the one mirrored at the diagonal; published weights expect the column \
                 first. Mending writes the right table"
            }
            Self::WrongGrid { found: Some(_), .. } => {
                "patches are taken for others, or the file does not load; mending computes the table for the \
                 configuration's grid, which the formula gives exactly"
            }
            Self::WrongGrid { .. } => {
                "the file does not load, and the table was learned, so that no formula gives it for another \
                 grid; correct `image_size` in `config.json`"
            }
            Self::NonFinite { .. } => {
                "training diverged or the file is damaged; every output will be NaN. Nothing restores the \
                 values: go back to an earlier checkpoint"
            }
            Self::ZeroTensor { token: true, .. } => {
                "the model was saved before it was trained, by a version of transformers that starts this token \
                 at zero; mending draws it as the original does"
            }
            Self::ZeroTensor { .. } => {
                "this layer gives nothing but its bias; it was never trained, or the file is damaged"
            }
            Self::Repeated { .. } => {
                "no training gives two layers the same values: they were tied, copied in error, or the model was \
                 grown from a smaller one"
            }
            Self::DecoderTarget { normalised: true, .. } => {
                "the decoder was trained on normalised patches (`norm_pix_loss`), as the original's `_full` \
                 files: shown as pixels its reconstructions look grey and wrong, and a loss computed with \
                 `norm_pix_loss` false means nothing. Mending sets it to true"
            }
            Self::DecoderTarget { .. } => {
                "the decoder was trained on pixels, not on normalised patches: reconstructions would be scaled \
                 twice. Mending sets `norm_pix_loss` to false"
            }
        }
    }

    /// As a JSON object.
    pub fn to_json(&self) -> Value {
        let tensors = match self {
            Self::ZeroTable { tensor }
            | Self::SwappedTable { tensor }
            | Self::WrongGrid { tensor, .. }
            | Self::NonFinite { tensor, .. }
            | Self::ZeroTensor { tensor, .. } => vec![tensor.clone()],
            Self::Repeated { tensors } => tensors.clone(),
            Self::Tensors { missing, unexpected, misshapen } => {
                [&missing[..], unexpected, misshapen].concat()
            }
            _ => Vec::new(),
        };
        json!({
            "kind": self.kind(),
            "message": self.to_string(),
            "meaning": self.meaning(),
            "can_be_mended": self.can_be_mended(),
            "tensors": tensors,
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = |names: &[String]| match names.first() {
            Some(name) => format!(" (`{}` first)", name.escape_debug()),
            None => String::new(),
        };
        match self {
            Self::UnknownLayout => f.write_str("no tensor name belongs to a ViTMAE"),
            Self::Config { reason } => write!(f, "no usable configuration: {reason}"),
            Self::Contradiction(Contradiction { key, weights, config }) => {
                write!(f, "`{key}` is {weights} in the weights and {config} in the config")
            }
            Self::Tensors { missing, unexpected, misshapen } => write!(
                f,
                "{} tensors missing{}, {} unexpected{}, {} of another shape{}",
                missing.len(),
                first(missing),
                unexpected.len(),
                first(unexpected),
                misshapen.len(),
                first(misshapen)
            ),
            Self::LayerNormEps { found, usual, layout } => {
                write!(f, "`layer_norm_eps` is {found:e}, models from {layout} have {usual:e}")
            }
            Self::Transformers5 { layout, tensors } => {
                write!(
                    f,
                    "{tensors} tensors have names of {layout}, which transformers 4 does not read"
                )
            }
            Self::ZeroTable { tensor } => write!(f, "position table `{tensor}` is zero throughout"),
            Self::SwappedTable { tensor } => {
                write!(f, "position table `{tensor}` has rows and columns exchanged")
            }
            Self::WrongGrid { tensor, found, patches, expected: (rows, columns) } => {
                match found {
                    Some((h, w)) => {
                        write!(f, "position table `{tensor}` is for a grid of {h} x {w}")?
                    }
                    None => write!(f, "position table `{tensor}` is for {patches} patches")?,
                }
                write!(f, ", the configuration has {rows} x {columns}")
            }
            Self::NonFinite { tensor, nan, infinite } => {
                write!(f, "`{tensor}` holds {nan} NaN and {infinite} infinite values")
            }
            Self::ZeroTensor { tensor, .. } => write!(f, "`{tensor}` is zero throughout"),
            Self::Repeated { tensors } => {
                let names: Vec<String> = tensors.iter().map(|name| format!("`{name}`")).collect();
                write!(f, "{} hold the same values", names.join(", "))
            }
            Self::DecoderTarget { normalised, as_pixels, as_normalised } => write!(
                f,
                "the decoder predicts {} but `norm_pix_loss` is {}: on photographs its error is \
                 {as_pixels:.2} of the variance as pixels, {as_normalised:.2} as normalised patches",
                if *normalised { "normalised patches" } else { "pixels" },
                !normalised
            ),
        }
    }
}
