//! The tensors of a case, by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

use super::CaseError;

/// The numbers of a tensor, as they are stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Stored as f32.
    F32(Vec<f32>),
    /// Stored as f64, which noise made by NumPy is.
    F64(Vec<f64>),
    /// Stored as i64 or i32.
    Integers(Vec<i64>),
}

/// A tensor of a case, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The numbers.
    pub values: Values,
}

impl Tensor {
    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match &self.values {
            Values::F32(values) => values.len(),
            Values::F64(values) => values.len(),
            Values::Integers(values) => values.len(),
        }
    }

    /// True when there is no number.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All tensors of a case.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tensors {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

impl Tensors {
    /// Reads a safetensors file of F32, F64, I64 and I32 tensors named `input.*` or `expected.*`.
    ///
    /// # Errors
    /// [`CaseError`] names the file, and the tensor that does not belong there.
    pub fn read(path: &Path) -> Result<Self, CaseError> {
        let path = path.to_owned();
        let bytes =
            std::fs::read(&path).map_err(|source| CaseError::Io { path: path.clone(), source })?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|source| CaseError::Safetensors { path: path.clone(), source })?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            if !is_known(&name) {
                return Err(CaseError::UnknownTensor { path, name });
            }
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => Values::F32(numbers(data, f32::from_le_bytes)),
                Dtype::F64 => Values::F64(numbers(data, f64::from_le_bytes)),
                Dtype::I64 => Values::Integers(numbers(data, i64::from_le_bytes)),
                Dtype::I32 => Values::Integers(numbers(data, |b| i32::from_le_bytes(b).into())),
                found => return Err(CaseError::Dtype { path, name, found }),
            };
            tensors.insert(name, Tensor { shape: view.shape().to_vec(), values });
        }
        Ok(Self { path, tensors })
    }

    /// Name and tensor, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensor called `name`, with its prefix.
    ///
    /// # Errors
    /// [`CaseError::NoTensor`] if there is none.
    pub fn get(&self, name: &str) -> Result<&Tensor, CaseError> {
        let missing = || CaseError::NoTensor { path: self.path.clone(), name: name.to_owned() };
        self.tensors.get(name).ok_or_else(missing)
    }

    /// Shape and numbers as f32, rounded if they are stored as f64.
    ///
    /// # Errors
    /// [`CaseError::NoTensor`], or [`CaseError::WrongType`] for integers.
    pub fn f32s(&self, name: &str) -> Result<(&[usize], Vec<f32>), CaseError> {
        let (shape, values) = self.f64s(name)?;
        Ok((shape, values.into_iter().map(|v| v as f32).collect()))
    }

    /// Shape and numbers as f64.
    ///
    /// # Errors
    /// [`CaseError::NoTensor`], or [`CaseError::WrongType`] for integers.
    pub fn f64s(&self, name: &str) -> Result<(&[usize], Vec<f64>), CaseError> {
        let tensor = self.get(name)?;
        let values = match &tensor.values {
            Values::F32(values) => values.iter().map(|&v| v.into()).collect(),
            Values::F64(values) => values.clone(),
            Values::Integers(_) => return Err(self.wrong_type(name, "integers", "numbers")),
        };
        Ok((&tensor.shape, values))
    }

    /// Shape and integers.
    ///
    /// # Errors
    /// [`CaseError::NoTensor`], or [`CaseError::WrongType`] for numbers with a fraction part.
    pub fn integers(&self, name: &str) -> Result<(&[usize], &[i64]), CaseError> {
        let tensor = self.get(name)?;
        match &tensor.values {
            Values::Integers(values) => Ok((&tensor.shape, values)),
            _ => Err(self.wrong_type(name, "numbers", "integers")),
        }
    }

    fn wrong_type(&self, name: &str, found: &'static str, expected: &'static str) -> CaseError {
        CaseError::WrongType { path: self.path.clone(), name: name.to_owned(), found, expected }
    }
}

fn is_known(name: &str) -> bool {
    matches!(name, "input.pixel_values" | "input.noise" | "input.labels")
        || name.strip_prefix("expected.").is_some_and(|rest| !rest.is_empty())
}

/// Little-endian numbers of `N` bytes; the length is a multiple of `N` in a valid file.
fn numbers<T, const N: usize>(data: &[u8], from_bytes: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = data.as_chunks::<N>();
    chunks.iter().map(|&bytes| from_bytes(bytes)).collect()
}
