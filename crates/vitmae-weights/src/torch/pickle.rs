//! A pickle machine whose values are data: it builds, shares and calls nothing.
//!
//! Values live in one list and refer to each other by number, so that a value used a thousand times costs a
//! number each time, and dropping them needs no recursion. Classes and functions are names from a short list;
//! what a call of one would give is kept as its name and arguments.
//!
//! Source: `pickletools` of Python 3.11 for the instructions of protocols 0 to 5.

mod machine;

use super::TorchFault;

/// Most values; ViT-H with its optimizer has about 20,000.
const MAX_VALUES: usize = 1_000_000;
/// Most instructions.
const MAX_INSTRUCTIONS: usize = 10_000_000;
/// Most marks open at once.
const MAX_DEPTH: usize = 64;
/// Most links between values: members of lists and dictionaries, and memo entries.
const MAX_LINKS: usize = 4_000_000;

/// The classes and functions that a checkpoint may name.
const GLOBALS: [&str; 37] = [
    "collections.OrderedDict",
    "collections.defaultdict",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "builtins.dict",
    "builtins.set",
    "builtins.list",
    "__builtin__.dict",
    "__builtin__.set",
    "__builtin__.list",
    "_codecs.encode",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "torch.Size",
    "torch.device",
    "torch.float16",
    "torch.float32",
    "torch.float64",
    "torch.bfloat16",
    "torch.int64",
    "torch.FloatStorage",
    "torch.HalfStorage",
    "torch.BFloat16Storage",
    "torch.DoubleStorage",
    "torch.LongStorage",
    "torch.IntStorage",
    "torch.ShortStorage",
    "torch.CharStorage",
    "torch.ByteStorage",
    "torch.BoolStorage",
    "torch.serialization._get_layout",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
];

/// The number of a value.
pub(super) type Id = usize;

/// A value that a pickle builds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// Bytes, and integers beyond 64 bits; nobody looks at them.
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function by its name.
    Global(&'static str),
    /// What a call of `callee` would give; `state` is what it would be filled with.
    Call {
        callee: &'static str,
        arguments: Vec<Id>,
        state: Option<Id>,
    },
    /// A tuple that names something outside the pickle: a storage.
    Persistent(Vec<Id>),
}

/// All values of a pickle, and which one it is.
#[derive(Debug)]
pub(super) struct Values {
    pub(super) all: Vec<Value>,
    pub(super) root: Id,
}

impl Values {
    pub(super) fn get(&self, id: Id) -> &Value {
        &self.all[id]
    }
}

/// Runs a pickle's program to its end.
pub(super) fn run(program: &[u8]) -> Result<Values, TorchFault> {
    let mut machine = Machine {
        program,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        links: 0,
    };
    for _ in 0..MAX_INSTRUCTIONS {
        if let Some(root) = machine.step()? {
            return Ok(Values { all: machine.values, root });
        }
    }
    let (found, limit) = (MAX_INSTRUCTIONS + 1, MAX_INSTRUCTIONS);
    Err(TorchFault::TooMany { what: "pickle instructions", found, limit })
}

struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at open marks.
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
    links: usize,
}

impl Machine<'_> {
    /// One instruction; the result, if it was the last.
    fn step(&mut self) -> Result<Option<Id>, TorchFault> {
        let at = self.at;
        let code = self.take(1)?[0];
        let stack = |expected| TorchFault::Stack { code, at, expected };
        match code {
            0x80 => {
                self.take(1)?; // the protocol
            }
            0x95 => {
                self.take(8)?; // the length of a frame
            }
            b'.' => return self.stack.pop().map(Some).ok_or(stack("a value")),
            b'(' => {
                self.limit("open marks", self.marks.len() + 1, MAX_DEPTH)?;
                self.marks.push(self.stack.len());
            }
            b'0' => {
                // POP takes a mark where one is on top.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop().ok_or(stack("a value"))?;
                }
            }
            b'1' => drop(self.pop_mark().ok_or(stack("a mark"))?),
            b'2' => {
                let top = self.top().ok_or(stack("a value"))?;
                self.stack.push(top);
            }

            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'K' => {
                let value = self.take(1)?[0];
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            0x8a => {
                let length = self.take(1)?[0] as usize;
                self.long(length)?;
            }
            0x8b => {
                let length = self.length4()?;
                self.long(length)?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(value))?;
            }
            b'I' => {
                // Protocol 0 and 1 write booleans so.
                let value = match self.line()? {
                    b"01" => Some(Value::Bool(true)),
                    b"00" => Some(Value::Bool(false)),
                    digits => std::str::from_utf8(digits)
                        .ok()
                        .and_then(|d| d.parse().ok())
                        .map(Value::Int),
                };
                self.push(value.ok_or(stack("an integer"))?)?;
            }

            b'X' => {
                let length = self.length4()?;
                self.text(length)?;
            }
            0x8c => {
                let length = self.take(1)?[0] as usize;
                self.text(length)?;
            }
            0x8d => {
                let length = self.length8()?;
                self.text(length)?;
            }
            // Strings of Python 2, taken as text.
            b'T' => {
                let length = self.length4()?;
                self.text(length)?;
            }
            b'U' => {
                let length = self.take(1)?[0] as usize;
                self.text(length)?;
            }
            b'B' => {
                let length = self.length4()?;
                self.bytes(length)?;
            }
            b'C' => {
                let length = self.take(1)?[0] as usize;
                self.bytes(length)?;
            }
            0x8e | 0x96 => {
                let length = self.length8()?;
                self.bytes(length)?;
            }

            b')' => self.push(Value::Tuple(Vec::new()))?,
            b']' | 0x8f => self.push(Value::List(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let height = self.stack.len().checked_sub(count);
                let height = height.filter(|&height| height >= self.floor());
                let members = self.stack.split_off(height.ok_or(stack("members"))?);
                self.link(count)?;
                self.push(Value::Tuple(members))?;
            }
            b't' => {
                let members = self.pop_mark().ok_or(stack("a mark"))?;
                self.link(members.len())?;
                self.push(Value::Tuple(members))?;
            }
            b'l' | 0x91 => {
                let members = self.pop_mark().ok_or(stack("a mark"))?;
                self.link(members.len())?;
                self.push(Value::List(members))?;
            }
            b'd' => {
                let members = self.pop_mark().ok_or(stack("a mark"))?;
                let pairs = self.pairs(members).ok_or(stack("pairs"))?;
                self.push(Value::Dict(pairs))?;
            }
            b'a' => {
                let member = self.pop().ok_or(stack("a member"))?;
                self.extend(vec![member]).ok_or(stack("a list"))??;
            }
            b'e' | 0x90 => {
                let members = self.pop_mark().ok_or(stack("a mark"))?;
                self.extend(members).ok_or(stack("a list"))??;
            }
            b's' => {
                let value = self.pop().ok_or(stack("a value"))?;
                let key = self.pop().ok_or(stack("a key"))?;
                self.insert(vec![key, value]).ok_or(stack("a dictionary"))??;
            }
            b'u' => {
                let members = self.pop_mark().ok_or(stack("a mark"))?;
                self.insert(members).ok_or(stack("a dictionary"))??;
            }

            b'q' => {
                let slot = self.take(1)?[0] as usize;
                self.remember(slot).ok_or(stack("a value"))??;
            }
            b'r' => {
                let slot = self.length4()?;
                self.remember(slot).ok_or(stack("a value"))??;
            }
            0x94 => self.remember(self.memo.len()).ok_or(stack("a value"))??,
            b'h' => {
                let slot = self.take(1)?[0] as usize;
                self.recall(slot).ok_or(stack("a remembered value"))?;
            }
            b'j' => {
                let slot = self.length4()?;
                self.recall(slot).ok_or(stack("a remembered value"))?;
            }

            b'c' => {
                let module = self.line()?.to_vec();
                let name = self.line()?.to_vec();
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop(), self.pop());
                let (Some(Value::Text(module)), Some(Value::Text(name))) =
                    (module.map(|id| &self.values[id]), name.map(|id| &self.values[id]))
                else {
                    return Err(stack("module and name"));
                };
                let (module, name) = (module.clone(), name.clone());
                self.global(module.as_bytes(), name.as_bytes())?;
            }
            b'R' | 0x81 => {
                let arguments = self.pop().ok_or(stack("arguments"))?;
                let callee = self.pop().ok_or(stack("a class"))?;
                let (Value::Global(callee), Value::Tuple(arguments)) =
                    (&self.values[callee], &self.values[arguments])
                else {
                    return Err(stack("a class and a tuple"));
                };
                let (callee, arguments) = (*callee, arguments.clone());
                self.link(arguments.len())?;
                self.call(callee, arguments)?;
            }
            b'b' => {
                let new = self.pop().ok_or(stack("a state"))?;
                let target = self.top().ok_or(stack("an object"))?;
                match &mut self.values[target] {
                    Value::Call { state, .. } => *state = Some(new),
                    // The attributes of an ordered dictionary say nothing about its members.
                    Value::Dict(_) => {}
                    _ => return Err(stack("an object")),
                }
            }
            b'Q' => {
                let id = self.pop().ok_or(stack("a tuple"))?;
                let Value::Tuple(parts) = &self.values[id] else { return Err(stack("a tuple")) };
                let parts = parts.clone();
                self.link(parts.len())?;
                self.push(Value::Persistent(parts))?;
            }
            _ => return Err(TorchFault::Instruction { code, at }),
        }
        Ok(None)
    }
}
