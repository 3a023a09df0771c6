//! The dictionary of tensors inside what a pickle built.

use std::collections::{BTreeMap, HashSet};

use super::TorchFault;
use super::pickle::{Id, Value, Values};
use crate::dtype::Dtype;
use crate::error::{WeightsError, shown};
use crate::safetensors_header::{MAX_RANK, MAX_TENSORS};

/// The keys under which a training checkpoint keeps its model, the first that is there.
const MODEL_KEYS: [&str; 4] = ["model", "state_dict", "model_state_dict", "module"];
/// What a wrapper for several devices puts in front of every name.
const WRAPPER: &str = "module.";
/// Most text pairs that are kept of `args`.
const MAX_METADATA: usize = 1_000;

/// A tensor as a pickle describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TorchTensor {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Values between neighbours of each axis.
    pub(super) strides: Vec<u64>,
    /// Its first value in the storage.
    pub(super) offset: u64,
    /// The storage's name in the archive.
    pub(super) storage: String,
    /// The storage's values.
    pub(super) storage_len: u64,
}

impl TorchTensor {
    /// Number of values; [`TorchTensor::end`] has shown that the product fits.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The value behind the last one in the storage; none if it cannot be counted.
    pub(super) fn end(&self) -> Option<u64> {
        let count = self.shape.iter().try_fold(1u64, |n, &side| n.checked_mul(side as u64))?;
        if count == 0 {
            return Some(self.offset);
        }
        // A view may show a storage's values many times; what it shows must fit the memory of one tensor.
        if count > self.storage_len {
            return None;
        }
        let mut last = self.offset;
        for (&side, &stride) in self.shape.iter().zip(&self.strides) {
            last = last.checked_add(stride.checked_mul(side as u64 - 1)?)?;
        }
        last.checked_add(1)
    }

    pub(super) fn is_contiguous(&self) -> bool {
        let mut expected = 1u64;
        for (&side, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if side != 1 && stride != expected {
                return false;
            }
            expected = expected.saturating_mul(side as u64);
        }
        true
    }
}

/// Named tensors, and what a checkpoint says beside them.
#[derive(Debug)]
pub(super) struct StateDict {
    pub(super) tensors: Vec<(String, TorchTensor)>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Finds the dictionary of tensors: what was saved, or one of its members.
pub(super) fn find(values: &Values) -> Result<StateDict, WeightsError> {
    let nothing = |found| WeightsError::from(TorchFault::NoStateDict { found });
    let Value::Dict(root) = values.get(values.root) else {
        return Err(nothing(match values.get(values.root) {
            Value::Call { callee: "torch._utils._rebuild_tensor_v2", .. } => "one tensor",
            Value::Call { .. } => "an object",
            Value::List(_) | Value::Tuple(_) => "a list",
            _ => "a simple value",
        }));
    };
    let member = |key: &str| {
        let found = root.iter().rev().find(|(name, _)| text(values, *name) == Some(key));
        found.map(|(_, value)| *value)
    };
    let model = MODEL_KEYS.iter().find_map(|key| match values.get(member(key)?) {
        Value::Dict(model) => Some(model),
        _ => None,
    });
    let tensors = tensors(values, model.unwrap_or(root))?;
    if tensors.is_empty() {
        return Err(nothing("a dictionary without tensors"));
    }
    let mut metadata = BTreeMap::new();
    if let Some(Value::Int(epoch)) = member("epoch").map(|id| values.get(id)) {
        metadata.insert("epoch".to_string(), epoch.to_string());
    }
    if let Some(args) = member("args") {
        arguments(values, args, &mut metadata);
    }
    Ok(StateDict { tensors, metadata })
}

fn text(values: &Values, id: Id) -> Option<&str> {
    match values.get(id) {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// The tensors among the members of a dictionary; of two members of one name Python keeps the last.
fn tensors(values: &Values, dict: &[(Id, Id)]) -> Result<Vec<(String, TorchTensor)>, WeightsError> {
    let mut found = Vec::new();
    for &(key, value) in dict {
        let Some(name) = text(values, key) else { continue };
        let Value::Call { callee: "torch._utils._rebuild_tensor_v2", arguments, .. } =
            values.get(value)
        else {
            continue;
        };
        if found.len() == MAX_TENSORS {
            let (found, limit) = (found.len() + 1, MAX_TENSORS);
            return Err(TorchFault::TooMany { what: "tensors", found, limit }.into());
        }
        found.push((name.to_string(), tensor(values, arguments)?));
    }
    if found.iter().all(|(name, _)| name.starts_with(WRAPPER)) {
        for (name, _) in &mut found {
            name.drain(..WRAPPER.len());
        }
    }
    let mut names = HashSet::new();
    match found.iter().find(|(name, _)| !names.insert(name.as_str())) {
        None => Ok(found),
        Some((name, _)) => Err(WeightsError::Duplicate { what: "tensor", name: shown(name) }),
    }
}

/// Arguments of `_rebuild_tensor_v2`: storage, offset, size, stride, and what says nothing of the values.
fn tensor(values: &Values, arguments: &[Id]) -> Result<TorchTensor, TorchFault> {
    let odd = |what| TorchFault::Tensor { what };
    let [storage, offset, size, stride, ..] = arguments else { return Err(odd("four arguments")) };
    let Value::Persistent(storage) = values.get(*storage) else { return Err(odd("storage")) };
    let [kind, class, key, _location, len] = storage[..] else { return Err(odd("storage")) };
    if text(values, kind) != Some("storage") {
        return Err(odd("storage"));
    }
    let dtype = match values.get(class) {
        Value::Global("torch.FloatStorage") => Dtype::F32,
        Value::Global("torch.HalfStorage") => Dtype::F16,
        Value::Global("torch.BFloat16Storage") => Dtype::BF16,
        Value::Global("torch.DoubleStorage") => Dtype::F64,
        Value::Global("torch.LongStorage") => Dtype::I64,
        Value::Global("torch.IntStorage") => Dtype::I32,
        Value::Global("torch.ShortStorage") => Dtype::I16,
        Value::Global("torch.CharStorage") => Dtype::I8,
        Value::Global("torch.ByteStorage") => Dtype::U8,
        Value::Global("torch.BoolStorage") => Dtype::Bool,
        _ => return Err(odd("known type of values")),
    };
    let key = text(values, key).filter(|key| key.bytes().all(|b| b.is_ascii_alphanumeric()));
    let key = key.ok_or(odd("storage"))?.to_string();
    let number = |id: Id| match values.get(id) {
        Value::Int(n) => u64::try_from(*n).ok(),
        _ => None,
    };
    let numbers = |id: Id| -> Option<Vec<u64>> {
        match values.get(id) {
            Value::Tuple(members) => members.iter().map(|&id| number(id)).collect(),
            Value::Call { callee: "torch.Size", arguments, .. } => match arguments[..] {
                [members] => match values.get(members) {
                    Value::Tuple(members) => members.iter().map(|&id| number(id)).collect(),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    };
    let shape = numbers(*size).ok_or(odd("shape of whole numbers"))?;
    let strides = numbers(*stride).ok_or(odd("strides of whole numbers"))?;
    if shape.len() != strides.len() || shape.len() > MAX_RANK {
        return Err(odd("stride for each of at most 8 axes"));
    }
    let shape = shape.into_iter().map(usize::try_from).collect::<Result<_, _>>();
    Ok(TorchTensor {
        dtype,
        shape: shape.map_err(|_| odd("shape that fits the memory"))?,
        strides,
        offset: number(*offset).ok_or(odd("offset"))?,
        storage: key,
        storage_len: number(len).ok_or(odd("number of values"))?,
    })
}

/// The simple values of an `argparse.Namespace` or a dictionary, as `args.NAME`.
fn arguments(values: &Values, args: Id, metadata: &mut BTreeMap<String, String>) {
    let state = match values.get(args) {
        Value::Call { state: Some(state), .. } => *state,
        _ => args,
    };
    let Value::Dict(members) = values.get(state) else { return };
    for &(key, value) in members.iter().take(MAX_METADATA) {
        let Some(key) = text(values, key) else { continue };
        let value = match values.get(value) {
            Value::None => "None".to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Text(value) => value.clone(),
            _ => continue,
        };
        metadata.insert(format!("args.{key}"), value);
    }
}
