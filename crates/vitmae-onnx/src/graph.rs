//! A graph while it grows: every operation returns the name of its output.

use vitmae_layers::Param;
use vitmae_tensor::TensorError;

use crate::proto::{
    AttributeProto, AttributeType, DataType, DimensionProto, GraphProto, NodeProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// The name of a value.
pub(crate) type Value = String;

/// A side of an input or output.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    /// B, or what was fixed for it.
    Batch,
    /// A number.
    Of(usize),
}

/// Nodes and constants in the order in which they were made.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
    /// B, if it is fixed.
    batch: Option<usize>,
}

impl Graph {
    /// An empty graph for a fixed or for any number of images.
    pub(crate) fn new(batch: Option<usize>) -> Self {
        Self { batch, ..Self::default() }
    }

    /// An f32 input.
    pub(crate) fn input(&mut self, name: &str, sides: &[Side]) -> Value {
        let info = self.info(name, DataType::Float, sides);
        self.inputs.push(info);
        name.to_owned()
    }

    /// Makes a value an output of this name.
    pub(crate) fn output(&mut self, name: &str, value: &str, of: DataType, sides: &[Side]) {
        let info = self.info(name, of, sides);
        self.outputs.push(info);
        self.push("Identity", &[value], vec![], vec![name.to_owned()]);
    }

    /// An operation with one output.
    pub(crate) fn op(&mut self, kind: &str, inputs: &[&str]) -> Value {
        self.op_with(kind, inputs, vec![])
    }

    /// As [`op`](Self::op), with attributes.
    pub(crate) fn op_with(
        &mut self,
        kind: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> Value {
        let [value] = self.op_many(kind, inputs, attributes);
        value
    }

    /// An operation with several outputs.
    pub(crate) fn op_many<const N: usize>(
        &mut self,
        kind: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> [Value; N] {
        let number = self.nodes.len();
        let names: [Value; N] = std::array::from_fn(|i| match N {
            1 => format!("{}_{number}", kind.to_lowercase()),
            _ => format!("{}_{number}_{i}", kind.to_lowercase()),
        });
        self.push(kind, inputs, attributes, names.to_vec());
        names
    }

    fn push(
        &mut self,
        kind: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
        output: Vec<Value>,
    ) {
        let input = inputs.iter().map(|&name| name.to_owned()).collect();
        let name = format!("node_{}", self.nodes.len());
        let op_type = kind.to_owned();
        self.nodes.push(NodeProto { input, output, name, op_type, attribute });
    }

    /// A parameter as it is.
    pub(crate) fn parameter(&mut self, param: &Param) -> Result<Value, TensorError> {
        let values = param.value.to_vec()?;
        Ok(self.constant(param.name.clone(), param.value.shape(), &values))
    }

    /// A matrix `[out, in]`, or a kernel that is one, as `[in, out]`, which `MatMul` multiplies with.
    pub(crate) fn transposed(&mut self, param: &Param) -> Result<Value, TensorError> {
        let (values, outputs) = (param.value.to_vec()?, param.value.shape()[0]);
        let inputs = values.len() / outputs;
        let mut turned = vec![0.0; values.len()];
        for (o, row) in values.chunks_exact(inputs).enumerate() {
            row.iter().enumerate().for_each(|(i, value)| turned[i * outputs + o] = *value);
        }
        Ok(self.constant(format!("{}.transposed", param.name), &[inputs, outputs], &turned))
    }

    /// An f32 constant.
    pub(crate) fn constant(&mut self, name: String, shape: &[usize], values: &[f32]) -> Value {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let dims = shape.iter().map(|&side| side as i64).collect();
        self.initializers.push(TensorProto {
            dims,
            data_type: DataType::Float.into(),
            name: name.clone(),
            raw_data,
            ..TensorProto::default()
        });
        name
    }

    /// One f32 value.
    pub(crate) fn scalar(&mut self, value: f32) -> Value {
        let name = format!("scalar_{}", self.initializers.len());
        self.constant(name, &[], &[value])
    }

    /// A list of integers.
    pub(crate) fn integers(&mut self, values: &[i64]) -> Value {
        let name = format!("integers_{}", self.initializers.len());
        self.initializers.push(TensorProto {
            dims: vec![values.len() as i64],
            data_type: DataType::Int64.into(),
            name: name.clone(),
            raw_data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ..TensorProto::default()
        });
        name
    }

    /// The message.
    pub(crate) fn finish(self, name: &str) -> GraphProto {
        GraphProto {
            node: self.nodes,
            name: name.to_owned(),
            initializer: self.initializers,
            input: self.inputs,
            output: self.outputs,
        }
    }

    fn info(&self, name: &str, of: DataType, sides: &[Side]) -> ValueInfoProto {
        let fixed = |side: usize| DimensionProto { dim_value: Some(side as i64), dim_param: None };
        let dim = sides.iter().map(|side| match (side, self.batch) {
            (&Side::Of(side), _) => fixed(side),
            (Side::Batch, Some(batch)) => fixed(batch),
            (Side::Batch, None) => {
                DimensionProto { dim_value: None, dim_param: Some("batch".to_owned()) }
            }
        });
        let shape = Some(TensorShapeProto { dim: dim.collect() });
        let tensor_type = Some(TensorTypeProto { elem_type: of.into(), shape });
        ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type }) }
    }
}

/// An attribute that is an integer.
pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    let r#type = AttributeType::Int.into();
    AttributeProto { name: name.to_owned(), i: Some(value), r#type, ..AttributeProto::default() }
}

/// An attribute that is a list of integers.
pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let (ints, r#type) = (values.to_vec(), AttributeType::Ints.into());
    AttributeProto { name: name.to_owned(), ints, r#type, ..AttributeProto::default() }
}

/// An attribute that is a number.
pub(crate) fn float(name: &str, value: f32) -> AttributeProto {
    let r#type = AttributeType::Float.into();
    AttributeProto { name: name.to_owned(), f: Some(value), r#type, ..AttributeProto::default() }
}
